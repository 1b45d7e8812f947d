"""Pools of clips from a stream, cut into batches of similar length: the same from wherever they start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from hf_distilhubert.audio import AudioError, Waveform, crop, read_audio
from hf_distilhubert.batches import Cut, Numbers
from hf_distilhubert.errors import UserError
from hf_distilhubert.manifests import Row
from hf_distilhubert.speech_data import Skipped, check_share

POOL = 480  # clips that are sorted by length together; cropped to 15.6 s, they take 480 MB at most

Batch = dict[str, Tensor]


class Stream(Protocol):
    """Rows, epoch after epoch; `state` says where they stand, in plain values."""

    @property
    def fingerprint(self) -> str:
        """What batches depend on, in words."""

    def rows(self, epoch: int, state: Any) -> Iterator[Row]:
        """The rows of an epoch, from its beginning (None) or from where `state` was asked for."""

    def state(self) -> Any:
        """Where the rows stand; to be asked once there was one."""


@dataclass(frozen=True)
class Place:
    """Where a stream of batches stands: what a checkpoint needs of it. Plain values only.

    Attributes:
        epoch: how often the stream was read to its end before the pool began.
        rows: how many rows were read before.
        epoch_rows: how many of them in this epoch.
        unusable: how many of those could not be used.
        stream: the state of the stream there; None at the beginning of an epoch.
        batches: how many of the pool were handed out.
        samples: length of the different clips heard until now.
        clips: how many those are.
    """

    epoch: int = 0
    rows: int = 0
    epoch_rows: int = 0
    unusable: int = 0
    stream: Any = None
    batches: int = 0
    samples: int = 0
    clips: int = 0


@dataclass(frozen=True)
class Step:
    """What is read for one step: its batches, the place behind them, clips passed over; or what is wrong."""

    batches: Sequence[Batch] = ()
    place: Place = field(default_factory=Place)
    skipped: Sequence[Skipped] = ()
    problem: str | None = None


@dataclass
class _Pool:
    """Clips that are sorted together; `place` is where they begin, `ended` says that the epoch ends here."""

    place: Place
    clips: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ended: bool = False

    @property
    def num_rows(self) -> int:
        """How many rows were read for it."""
        return len(self.lengths) + len(self.skipped)


class StreamedSteps(IterableDataset[Step]):
    """The next `count` steps of a stream: clips of one pool and similar length, cropped and collated.

    While a pool is handed out, the next one is read: memory holds about one pool, and no step waits for many
    clips. Clips that cannot be used are passed over. An epoch's last pool is filled up to whole batches.

    Args:
        stream: what is read.
        name: what it is called in complaints.
        cut: how a pool is cut into batches.
        parts: how many batches a step is cut into.
        collate: makes a batch of waveforms, or of what else `read` gives.
        max_samples: longer clips are cropped to this.
        seed: of crops and batches.
        threads: how many clips are decoded at a time.
        place: where to begin.
        count: how many steps there are; a process that reads ahead is idle at their end, and ends quietly.
    """

    def __init__(
        self,
        stream: Stream,
        name: str,
        cut: Cut,
        parts: int,
        collate: Callable[[Sequence[Any]], Batch],
        max_samples: int,
        seed: int,
        threads: int,
        place: Place,
        count: int,
    ) -> None:
        self.stream, self.name, self.cut, self.parts, self.collate = stream, name, cut, parts, collate
        self.max_samples, self.seed, self.threads = max_samples, seed, threads
        self.place, self.count = place, count
        self.pool_size = -(-POOL // cut.multiple) * cut.multiple

    def __iter__(self) -> Iterator[Step]:
        with ThreadPoolExecutor(self.threads) as self._threads:
            try:
                yield from islice(self._steps(), self.count)
            except UserError as error:
                # As a value, it comes through from another process as it is.
                yield Step(problem=str(error))

    def _steps(self) -> Iterator[Step]:
        self._rows = self.stream.rows(self.place.epoch, self.place.stream)
        pool = _Pool(replace(self.place, batches=0))
        self._fill(pool, self.pool_size)
        done, samples, clips = self.place.batches, self.place.samples, self.place.clips
        while True:
            following = self._following(pool)
            batches = self._batches(pool)
            for number in range(1, len(batches) + 1):
                batch, unheard = batches.popleft()
                if number <= done:
                    continue
                samples, clips = samples + int(unheard.sum()), clips + len(unheard)
                self._fill(following, len(batch))
                size = len(batch) // self.parts
                parts = [batch[part * size : (part + 1) * size] for part in range(self.parts)]
                place = replace(pool.place, batches=number, samples=samples, clips=clips)
                yield Step([self.collate(part) for part in parts], place, pool.skipped)
            self._fill(following, self.pool_size)
            pool, done = following, 0

    def _batches(self, pool: _Pool) -> deque[tuple[list[Any], Numbers]]:
        """The batches of a pool, which lets go of its clips; and the lengths of those first heard in each."""
        generator = np.random.default_rng((self.seed, pool.place.rows, 1))
        lengths = np.array(pool.lengths, np.int64)
        batches = self.cut(np.minimum(lengths, self.max_samples), generator) if pool.lengths else []
        unheard = lengths * (pool.place.epoch == 0)
        found: deque[tuple[list[Any], Numbers]] = deque()
        for clips in batches:
            new = unheard[np.unique(clips)]
            found.append(([pool.clips[clip] for clip in clips], new[new > 0]))
            unheard[clips] = 0
        pool.clips.clear()
        return found

    def _following(self, pool: _Pool) -> _Pool:
        """An empty pool that begins where another ends."""
        before, rows = pool.place, pool.num_rows
        if pool.ended:
            self._rows = self.stream.rows(before.epoch + 1, None)
            return _Pool(Place(before.epoch + 1, before.rows + rows))
        return _Pool(
            Place(
                before.epoch,
                before.rows + rows,
                before.epoch_rows + rows,
                before.unusable + len(pool.skipped),
                self.stream.state(),
            )
        )

    def _fill(self, pool: _Pool, count: int) -> None:
        """Read up to `count` more clips that can be used, as far as the pool has room and the epoch goes.

        Raises:
            UserError: too many of the first pool, or of a whole epoch, cannot be used.
        """
        goal = min(len(pool.clips) + count, self.pool_size)
        while len(pool.clips) < goal and not pool.ended:
            rows = list(islice(self._rows, goal - len(pool.clips)))
            pool.ended = len(rows) < goal - len(pool.clips)
            first = pool.place.rows + pool.num_rows
            for found in self._threads.map(self.read, rows, range(first, first + len(rows))):
                if isinstance(found, Skipped):
                    pool.skipped.append(found)
                else:
                    pool.clips.append(found[0])
                    pool.lengths.append(found[1])
            if pool.ended or (pool.place.rows == 0 and pool.num_rows >= self.pool_size):
                usable = pool.place.epoch_rows - pool.place.unusable + len(pool.clips)
                check_share(self.name, usable, pool.place.unusable + len(pool.skipped), pool.skipped[:1])

    def read(self, row: Row, position: int) -> tuple[Any, int] | Skipped:
        """What is kept of a row until it is collated, and its length in samples; called in threads.

        Args:
            row: a row.
            position: how many rows were read before it, in all epochs.
        """
        waveform = read_row(row)
        if isinstance(waveform, Skipped):
            return waveform
        generator = np.random.default_rng((self.seed, position))
        # A copy: a view would keep all of a long recording in memory.
        return crop(waveform, self.max_samples, generator).copy(), len(waveform)


def read_row(row: Row) -> Waveform | Skipped:
    """The sound of a row, or why there is none."""
    if row.problem:
        return Skipped(row.clip_id, row.problem)
    try:
        return read_audio(row.audio)
    except AudioError as error:
        return Skipped(row.clip_id, str(error))
