"""Batches of clips of similar length: batch i is a function of (seed, i), so training can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

POOL = 50  # batches whose clips are sorted together: little padding, and still a random order


class LengthBatches:
    """An endless shuffle, cut into `num_batches` batches of `(clip, position)`.

    `position` counts every clip that was ever drawn; what is random about a clip (its crop) depends on it and
    the seed alone. Each epoch holds every clip once; its last batch is filled up from its beginning.

    Args:
        lengths: of the clips, in any unit.
        batch_size: clips in a batch.
        num_batches: how many batches there are.
        parts: what is handed out is each batch cut into this many, one after the other.
        seed: of the shuffle.
        start: number of the first batch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        num_batches: int,
        *,
        parts: int = 1,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.clips_per_batch, self.num_batches, self.parts = batch_size, num_batches, parts
        self.seed, self.start = seed, start
        # Accelerate asks a batch sampler for these two; they are about what is handed out.
        self.batch_size, self.drop_last = batch_size // parts, False
        self._epoch: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches until every clip was seen."""
        return -(-len(self.lengths) // self.clips_per_batch)

    def __len__(self) -> int:
        return (self.num_batches - self.start) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.start, self.num_batches):
            batch = self.batch(number)
            for part in range(self.parts):
                yield batch[part * self.batch_size : (part + 1) * self.batch_size]

    def batch(self, number: int) -> list[tuple[int, int]]:
        """The clips of one batch, each with its position."""
        epoch, within = divmod(number, self.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._shuffled(epoch)
        clips = self._epoch[1][within]
        return [(int(clip), number * self.clips_per_batch + row) for row, clip in enumerate(clips)]

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        """One epoch: `(batch, clip)`."""
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(self.lengths))
        order = np.resize(order, self.batches_per_epoch * self.clips_per_batch)
        pool = POOL * self.clips_per_batch
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = order.reshape(-1, self.clips_per_batch)
        return generator.permutation(batches, axis=0)
