"""Word and character error rate over jiwer, which work without a network.

`evaluate.load("wer")` downloads a script and runs it; these are the same `evaluate.Metric`s as classes.
Import this module late: `evaluate` takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import evaluate
import jiwer


@dataclass(frozen=True)
class ErrorCounts:
    """What has to change to make the references of the hypotheses.

    Attributes:
        substitutions: words (or characters) written as another one.
        deletions: words of the references that are missing.
        insertions: words that nobody said.
        total: words in the references.
    """

    substitutions: int
    deletions: int
    insertions: int
    total: int

    @property
    def errors(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per word, 0.25 = 25 %. Where nothing was said: 0 for silence, 1 for anything else."""
        return self.errors / self.total if self.total else float(self.errors > 0)


def count_errors(
    references: Sequence[str], predictions: Sequence[str], *, characters: bool = False
) -> ErrorCounts:
    """Align each pair (Levenshtein) and add up the errors.

    Args:
        references: what was said.
        predictions: what was recognised, one for each reference.
        characters: count characters (the space is one) in place of words.
    """
    if not references:
        return ErrorCounts(0, 0, 0, 0)
    process = jiwer.process_characters if characters else jiwer.process_words
    found = process(list(references), list(predictions))
    total = found.hits + found.substitutions + found.deletions
    return ErrorCounts(found.substitutions, found.deletions, found.insertions, total)


class _ErrorRate(evaluate.Metric):
    """What both rates share; `compute` returns the rate under `name` and the fields of `ErrorCounts`."""

    name = ""
    description = ""
    characters = False

    def __init__(self) -> None:
        # In memory: the cache folder of evaluate may not be writable, and is not needed.
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        counts = count_errors(references, predictions, characters=self.characters)
        return {self.name: counts.rate, **asdict(counts)}


class WER(_ErrorRate):
    """Word error rate: `WER().compute(predictions=[…], references=[…])["wer"]`."""

    name = "wer"
    description = "Word error rate: substitutions, deletions and insertions per word of the references."


class CER(_ErrorRate):
    """Character error rate: `CER().compute(predictions=[…], references=[…])["cer"]`."""

    name = "cer"
    description = "Character error rate: substitutions, deletions and insertions per character."
    characters = True
