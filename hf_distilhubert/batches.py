"""Batches of clips of similar length: batch i is a function of (seed, i), so training can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

POOL = 50  # batches whose clips are sorted together: little padding, and still a random order
BUCKET = 3_200  # samples; with a budget, clips count as equally long within this (0.2 s)

Numbers = npt.NDArray[np.int64]


class Cut(Protocol):
    """How an epoch is cut into batches: for the same lengths always into the same number of them.

    Attributes:
        multiple: the number of clips in a batch is a multiple of this.
    """

    @property
    def multiple(self) -> int:
        """See above."""

    def __call__(self, lengths: Numbers, generator: np.random.Generator) -> list[Numbers]:
        """The clips of each batch of one epoch: every clip once, the last batch filled up with some again."""


@dataclass(frozen=True)
class ByCount:
    """Batches of `multiple` clips; those of 50 batches are sorted by length together."""

    multiple: int

    def __call__(self, lengths: Numbers, generator: np.random.Generator) -> list[Numbers]:
        """See `Cut`."""
        order = generator.permutation(len(lengths))
        order = np.resize(order, -(-len(order) // self.multiple) * self.multiple)
        pool = POOL * self.multiple
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(lengths[part], kind="stable")]
        return list(generator.permutation(order.reshape(-1, self.multiple), axis=0))


@dataclass(frozen=True)
class ByBudget:
    """Batches of as many clips of similar length as fit into a budget of padded samples.

    Clips of one length (to 0.2 s) are shuffled among themselves and cut; what is left over of them goes with
    those of the next length. The last batch, of the longest clips, may stay below the budget.

    Attributes:
        samples: the budget: longest clip of a batch, cropped and padded, times the number of its clips. At
            least `multiple` times `longest`.
        max_samples: longer clips are cropped to this.
        pad_multiple: lengths are rounded up to a multiple of this many samples.
        multiple: the number of clips in a batch is a multiple of this.
    """

    samples: int
    max_samples: int
    pad_multiple: int = 1
    multiple: int = 1

    @property
    def longest(self) -> int:
        """The longest clip, cropped and padded, in samples."""
        return _round_up(self.max_samples, self.pad_multiple)

    def __call__(self, lengths: Numbers, generator: np.random.Generator) -> list[Numbers]:
        """See `Cut`."""
        width = _round_up(BUCKET, self.pad_multiple)
        padded = np.minimum(-(-lengths // width) * width, self.longest)
        sizes = self._sizes(padded)
        order = generator.permutation(len(lengths))
        order = order[np.argsort(padded[order], kind="stable")]
        batches = np.split(np.resize(order, sum(sizes)), np.cumsum(sizes)[:-1])
        return [batches[number] for number in generator.permutation(len(batches))]

    def _sizes(self, padded: Numbers) -> list[int]:
        """Clips in each batch, shortest first."""
        sizes: list[int] = []
        waiting = 0
        lengths, counts = np.unique(padded, return_counts=True)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
            room = self.samples // length // self.multiple * self.multiple
            full, waiting = divmod(waiting + count, room)
            sizes += [room] * full
        return sizes + [_round_up(waiting, self.multiple)] * bool(waiting)


class LengthBatches:
    """An endless shuffle, cut into `num_batches` batches of `(clip, position)`.

    `position` counts every clip that was ever drawn; what is random about a clip (its crop) depends on it and
    the seed alone.

    Args:
        lengths: of the clips, in samples.
        cut: how an epoch is cut into batches.
        num_batches: how many batches there are.
        parts: what is handed out is each batch cut into this many, one after the other.
        seed: of the shuffle.
        start: number of the first batch.
    """

    # Accelerate asks a batch sampler for these two: None leaves batches of any size as they are.
    batch_size = None
    drop_last = False

    def __init__(
        self,
        lengths: Sequence[int] | Numbers,
        cut: Cut,
        num_batches: int,
        *,
        parts: int = 1,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.lengths, self.cut = np.asarray(lengths, np.int64), cut
        self.num_batches, self.parts, self.seed, self.start = num_batches, parts, seed, start
        self._load(0)

    @property
    def batches_per_epoch(self) -> int:
        """Batches until every clip was seen."""
        return len(self._batches)

    def __len__(self) -> int:
        return (self.num_batches - self.start) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.start, self.num_batches):
            batch = self.batch(number)
            size = len(batch) // self.parts
            for part in range(self.parts):
                yield batch[part * size : (part + 1) * size]

    def batch(self, number: int) -> list[tuple[int, int]]:
        """The clips of one batch, each with its position."""
        epoch, within = divmod(number, self.batches_per_epoch)
        if self._epoch != epoch:
            self._load(epoch)
        first = epoch * self._ends[-1] + self._ends[within] - len(self._batches[within])
        return [(clip, int(first) + row) for row, clip in enumerate(self._batches[within].tolist())]

    def _load(self, epoch: int) -> None:
        self._epoch = epoch
        self._batches = self.cut(self.lengths, np.random.default_rng((self.seed, epoch)))
        self._ends = np.cumsum([len(batch) for batch in self._batches])


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
