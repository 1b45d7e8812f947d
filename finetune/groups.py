"""Error rates of parts of a test set: by speaker, by length, by any column of its table."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from finetune.intervals import Interval, Units, rate_interval

if TYPE_CHECKING:
    from finetune.comparison import Utterance

LENGTHS = (1, 2, 5, 10, 20, 30)  # seconds at which a new length begins
LENGTH_NAMES = (
    f"under {LENGTHS[0]} s",
    *(f"{low} to {high} s" for low, high in pairwise(LENGTHS)),
    f"{LENGTHS[-1]} s and more",
)
NOT_GIVEN = "(not given)"


@dataclass(frozen=True)
class Rates:
    """Error rates of some utterances, as shares.

    Attributes:
        utterances: how many there are.
        words: of their references.
        wer: word error rate.
        wer_interval: both ends of its 95 % interval; None where no spread is seen.
        cer: character error rate.
        cer_interval: both ends of its 95 % interval.
        resampled: what the intervals draw, `speakers` or `utterances`.
    """

    utterances: int
    words: int
    wer: float
    wer_interval: Interval | None
    cer: float
    cer_interval: Interval | None
    resampled: str

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> Rates:
        """Add up the errors of at least one utterance."""
        words, characters = [u.words for u in utterances], [u.characters for u in utterances]
        errors, character_errors = [u.errors for u in utterances], [u.character_errors for u in utterances]
        units = Units.of([u.speaker for u in utterances])
        return cls(
            utterances=len(utterances),
            words=sum(words),
            wer=sum(errors) / sum(words),
            wer_interval=rate_interval(errors, words, units),
            cer=sum(character_errors) / sum(characters),
            cer_interval=rate_interval(character_errors, characters, units),
            resampled=units.kind,
        )


def grouped(utterances: Sequence[Utterance]) -> dict[str, dict[str, Rates]]:
    """Rates per column and value: `speaker` where one is named, `clip length`, the columns asked for.

    Values come in the order of the alphabet, lengths in their own.
    """
    table = {}
    if any(utterance.speaker for utterance in utterances):
        table["speaker"] = _rates(utterances, lambda utterance: utterance.speaker)
    lengths = _rates(utterances, lambda utterance: _length(utterance.seconds))
    table["clip length"] = {name: lengths[name] for name in LENGTH_NAMES if name in lengths}
    for column in utterances[0].columns:
        table[column] = _rates(utterances, partial(_value, column))
    return table


def _rates(utterances: Sequence[Utterance], key: Callable[[Utterance], str]) -> dict[str, Rates]:
    groups = defaultdict(list)
    for utterance in utterances:
        groups[key(utterance) or NOT_GIVEN].append(utterance)
    return {name: Rates.of(groups[name]) for name in sorted(groups)}


def _value(column: str, utterance: Utterance) -> str:
    return utterance.columns[column]


def _length(seconds: float) -> str:
    return LENGTH_NAMES[bisect_right(LENGTHS, seconds)]
