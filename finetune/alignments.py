"""Reference and hypothesis side by side, and what is most often taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer

from finetune.metrics import ErrorCounts


class Step(NamedTuple):
    """One place of an alignment: a word (or character) of each side, "" where that side has none."""

    reference: str
    hypothesis: str

    @property
    def kind(self) -> str:
        """`equal`, `substitution`, `deletion` (not recognised) or `insertion` (not said)."""
        if self.reference == self.hypothesis:
            return "equal"
        if not self.hypothesis:
            return "deletion"
        return "substitution" if self.reference else "insertion"


@dataclass(frozen=True)
class Confusion:
    """An error that is made again and again.

    Attributes:
        reference: what was said; empty for an insertion.
        hypothesis: what was written; empty for a deletion.
        count: how often.
        said: how often `reference` was said in all.
    """

    reference: str
    hypothesis: str
    count: int
    said: int


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors of each kind, most frequent first."""

    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]


def align(
    references: Sequence[str], hypotheses: Sequence[str], *, characters: bool = False
) -> list[list[Step]]:
    """The alignments with the fewest errors (Levenshtein), as jiwer chooses them.

    Args:
        references: what was said.
        hypotheses: what was recognised, one for each reference.
        characters: align characters (the space is one) in place of words.
    """
    if not references:
        return []
    process = jiwer.process_characters if characters else jiwer.process_words
    found = process(list(references), list(hypotheses))
    return [
        [step for chunk in chunks for step in _steps(chunk, said, written)]
        for chunks, said, written in zip(found.alignments, found.references, found.hypotheses, strict=True)
    ]


def _steps(chunk: jiwer.AlignmentChunk, said: Sequence[str], written: Sequence[str]) -> Iterable[Step]:
    reference = said[chunk.ref_start_idx : chunk.ref_end_idx]
    hypothesis = written[chunk.hyp_start_idx : chunk.hyp_end_idx]
    length = max(len(reference), len(hypothesis))
    missing = [""] * length
    return map(Step, reference or missing, hypothesis or missing)


def error_counts(steps: Iterable[Step]) -> ErrorCounts:
    """Add up the errors of an alignment."""
    kinds = Counter(step.kind for step in steps)
    substitutions, deletions = kinds["substitution"], kinds["deletion"]
    total = kinds["equal"] + substitutions + deletions
    return ErrorCounts(substitutions, deletions, kinds["insertion"], total)


def most_confused(alignments: Iterable[Sequence[Step]], most: int) -> Confusions:
    """The `most` frequent substitutions, deletions and insertions; of equally many, by the alphabet."""
    said: Counter[str] = Counter()
    found: dict[str, Counter[Step]] = {kind: Counter() for kind in ("substitution", "deletion", "insertion")}
    for steps in alignments:
        for step in steps:
            if step.reference:
                said[step.reference] += 1
            if step.kind in found:
                found[step.kind][step] += 1

    def top(kind: str) -> tuple[Confusion, ...]:
        ranked = sorted(found[kind].items(), key=lambda item: (-item[1], item[0]))[:most]
        return tuple(Confusion(*step, count, said[step.reference]) for step, count in ranked)

    return Confusions(top("substitution"), top("deletion"), top("insertion"))
