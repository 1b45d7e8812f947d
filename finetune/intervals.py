"""How far an error rate, or a difference of two, may be trusted: bootstrap intervals and a paired test.

Draws are seeded, so that the same counts give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
MIN_SPEAKERS = 10  # with fewer, drawing speakers says little
SEED = 0
AT_ONCE = 2**22  # numbers drawn at once: memory stays flat on any number of clips

Counts: TypeAlias = npt.NDArray[np.int64]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Units:
    """What is drawn with replacement: independent parts of a test set.

    The errors of one speaker go together, so that intervals from single utterances are too narrow for other
    speakers. Drawing whole speakers (the blockwise bootstrap of Liu & Peng, Interspeech 2020) needs enough
    of them.

    Attributes:
        kind: `speakers` or `utterances`.
        number: the unit of each utterance, counted from 0.
    """

    kind: str
    number: Counts

    @classmethod
    def of(cls, speakers: Sequence[str]) -> Units:
        """Whole speakers where at least `MIN_SPEAKERS` are named, else utterances.

        Args:
            speakers: of each utterance; "" is nobody's, and such an utterance is a unit of its own.
        """
        if len(set(speakers) - {""}) < MIN_SPEAKERS:
            return cls("utterances", np.arange(len(speakers)))
        names = [(speaker, -1 if speaker else place) for place, speaker in enumerate(speakers)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls("speakers", np.array([numbers[name] for name in names]))

    def add_up(self, counts: Sequence[int]) -> Counts:
        """Counts per utterance to counts per unit."""
        sums = np.zeros(int(self.number.max(initial=-1)) + 1, dtype=np.int64)
        np.add.at(sums, self.number, np.asarray(counts, dtype=np.int64))
        return sums


def rate_interval(
    errors: Sequence[int], totals: Sequence[int], units: Units, resamples: int = RESAMPLES
) -> Interval | None:
    """The bootstrap percentile interval of sum(errors) / sum(totals), at 95 %.

    Bisani & Ney, *Bootstrap estimates for confidence intervals in ASR performance evaluation*, ICASSP 2004.
    It is too narrow where there are few units.

    Args:
        errors: of each utterance; differences of two models' errors give the interval of their difference.
        totals: words (or characters) of each utterance's reference, at least 1.
        units: what is drawn.
        resamples: how often.

    Returns:
        Both ends, or None where nothing is known of the spread: a single unit, or the same rate in all.
    """
    wrong, said = units.add_up(errors), units.add_up(totals)
    generator = np.random.default_rng(SEED)
    rates = []
    for draws in _parts(resamples, len(wrong)):
        chosen = generator.integers(len(wrong), size=(draws, len(wrong)))
        rates.append(wrong[chosen].sum(axis=1) / said[chosen].sum(axis=1))
    low, high = np.quantile(np.concatenate(rates), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return None if low == high else (float(low), float(high))


def paired_p_value(differences: Sequence[int], units: Units, resamples: int = RESAMPLES) -> float:
    """Approximate randomisation: how likely so large a difference is if the two models were alike.

    If they were, either could have made each unit's errors, so the sign of each unit's difference is left to
    chance; the p-value (two-sided) is the share of such sums at least as far from 0 as the one found (Noreen
    1989). With many utterances it agrees with the matched pairs test (MAPSSWE, Gillick & Cox, ICASSP 1989),
    but it needs no normal distribution. All signs are tried where they are at most `resamples`.

    Args:
        differences: errors of the one model less those of the other, per utterance.
        units: whose signs change.
        resamples: how often signs are drawn.
    """
    found = units.add_up(differences)
    found = found[found != 0].astype(np.float64)  # whole numbers, so that sums are exact
    if 2 ** len(found) <= resamples:
        every = np.arange(2 ** len(found))[:, None] >> np.arange(len(found)) & 1
        return float(_as_far(every, found).mean())
    generator = np.random.default_rng(SEED)
    far = sum(
        int(_as_far(generator.integers(2, size=(draws, len(found)), dtype=np.int8), found).sum())
        for draws in _parts(resamples, len(found))
    )
    return (far + 1) / (resamples + 1)


def _as_far(flipped: npt.NDArray[np.integer], found: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each row of flipped signs `(draw, unit)` gives a sum as far from 0 as the one found."""
    return np.abs(found.sum() - 2 * (flipped @ found)) >= abs(found.sum())


def _parts(resamples: int, width: int) -> Iterator[int]:
    """`resamples` in parts of at most `AT_ONCE` numbers."""
    size = max(1, AT_ONCE // width)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
