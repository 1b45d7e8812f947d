"""Fill a cache of teacher targets: batches of similar length, every process its share."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from hf_distilhubert.audio import SAMPLING_RATE, num_frames, pad
from hf_distilhubert.errors import UserError
from hf_distilhubert.processes import first_problem, on_main
from hf_distilhubert.provenance import write_json
from hf_distilhubert.speech_data import Clip
from hf_distilhubert.target_cache import HEADER, TargetCache, check_header, pack
from hf_distilhubert.target_records import SHARD, index_line, shard_path
from hf_distilhubert.teachers import Teacher

BATCH_SECONDS = 60  # padding included
MAX_SECONDS = 300  # the teacher hears a clip as a whole, and its memory grows with the length
SHARD_BYTES = 2**30
LINES = 20  # how often is said how far it is, where there is no bar


def fill(accelerator: Accelerator, teacher: Teacher, cache: TargetCache, clips: Sequence[Clip]) -> None:
    """Compute the targets of clips that are not in a cache yet, and look all of them up.

    The teacher hears whole clips, in the precision of `accelerator`. What is computed does not depend on what
    was there before: a batch of which one clip is missing is heard again as a whole.

    Raises:
        UserError: the disk has not the room, a clip is too long, the teacher's states are not finite, or
            another run fills the same folder.
    """
    clips = list({clip.clip_id: clip for clip in clips}.values())  # some may be in both splits
    with ExitStack() as stack:
        missing = on_main(accelerator, partial(_prepare, stack, teacher, cache, clips))
        if missing:
            wanted = {clips[number].clip_id for number in missing}
            started = time.perf_counter()
            hours = _compute(accelerator, teacher, cache, clips, wanted)
            rate = hours / (time.perf_counter() - started) * 60
            accelerator.print(f"targets are there: {hours:.3g} hours of speech, {rate:.2g} hours a minute")
    if (missing or not accelerator.is_main_process) and cache.look_up(clips):
        raise UserError(
            f"{cache.folder} does not hold what was written; give a folder that all processes see"
        )


def _prepare(stack: ExitStack, teacher: Teacher, cache: TargetCache, clips: Sequence[Clip]) -> list[int]:
    """Numbers of the clips without targets; if there are any, all that can be refused is refused."""
    missing = cache.look_up(clips)
    if not missing:
        return []
    too_long = [clip for clip in clips if clip.num_samples > MAX_SECONDS * SAMPLING_RATE]
    if too_long:
        raise UserError(
            f"{too_long[0].clip_id} lasts {too_long[0].num_samples / SAMPLING_RATE:.0f} s, and targets are "
            f"those of whole clips, at most {MAX_SECONDS} s; cut it, or leave out --cache_targets"
        )
    with _writing(cache.folder):
        cache.folder.mkdir(parents=True, exist_ok=True)
        stack.callback(_alone(cache.folder).release)
        check_header(cache.folder, cache.header)  # two runs may have found a new folder
        if not (cache.folder / HEADER).is_file():
            write_json(cache.folder / f".{HEADER}", cache.header)
            (cache.folder / f".{HEADER}").replace(cache.folder / HEADER)
    _announce(teacher, cache, [clips[number] for number in missing])
    return missing


def _announce(teacher: Teacher, cache: TargetCache, clips: Sequence[Clip]) -> None:
    kernels, strides = teacher.config.conv_kernel, teacher.config.conv_stride
    needed = sum(cache.num_bytes(num_frames(clip.num_samples, kernels, strides)) for clip in clips)
    free = shutil.disk_usage(cache.folder).free
    said = f"targets of {len(clips):,} clips ({_hours(clips):.3g} hours) take {needed / 1e9:.3g} GB"
    if needed > free:
        raise UserError(
            f"{said}, and {cache.folder} has {free / 1e9:.3g} GB left; make room, give another folder, or "
            "--cache_dtype int8"
        )
    print(f"{said} in {cache.folder}, which has {free / 1e9:.3g} GB left", flush=True)


def _alone(folder: Path) -> FileLock:
    """A lock that keeps other runs from computing the same at the same time; the system lets go of it."""
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another run is filling {folder}; give the same command again when it has done so"
        ) from error
    return lock


def _compute(
    accelerator: Accelerator, teacher: Teacher, cache: TargetCache, clips: Sequence[Clip], wanted: set[str]
) -> float:
    """Write the wanted targets; how many hours were heard."""
    teacher.to(accelerator.device)
    shards = Shards(cache.folder)
    batches = similar_batches(clips, one_by_one=not cache.header["mask_group_norm"])
    batches = [batch for batch in batches if any(clip.clip_id in wanted for clip in batch)]
    processes, own = accelerator.num_processes, accelerator.process_index
    progress = Progress(_hours(clip for batch in batches for clip in batch), accelerator.is_main_process)
    with progress.bar:
        for start in range(0, len(batches), processes):
            turn, problem = batches[start : start + processes], None
            try:
                for batch in turn[own : own + 1]:
                    states = _hear(accelerator, teacher, batch)
                    shards.add(cache.dtype, [heard for heard in states if heard[0].clip_id in wanted])
            except UserError as error:
                problem = str(error)
            problem = first_problem(accelerator, problem)
            if problem is not None:
                raise UserError(problem)
            progress.add(_hours(clip for batch in turn for clip in batch))
    return progress.total


def _hear(accelerator: Accelerator, teacher: Teacher, clips: Sequence[Clip]) -> list[tuple[Clip, Tensor]]:
    """The teacher's states of whole clips, `(layer, frame, size)` each."""
    waveforms = [clip.read() for clip in clips]
    values, mask = (torch.from_numpy(array).to(accelerator.device) for array in pad(waveforms))
    with accelerator.autocast():
        states = teacher(values, mask)
    kernels, strides = teacher.config.conv_kernel, teacher.config.conv_stride
    frames = [num_frames(len(waveform), kernels, strides) for waveform in waveforms]
    return [(clip, state[:, :count]) for clip, state, count in zip(clips, states, frames, strict=True)]


def similar_batches(clips: Sequence[Clip], *, one_by_one: bool = False) -> list[list[Clip]]:
    """Each clip once, the longest first; a batch is one clip, or as many as fit into `BATCH_SECONDS`."""
    each = {clip.clip_id: clip for clip in clips}.values()
    batches: list[list[Clip]] = []
    for clip in sorted(each, key=lambda clip: (-clip.num_samples, clip.clip_id)):
        longest, count = (batches[-1][0].num_samples, len(batches[-1])) if batches else (0, 0)
        if one_by_one or not batches or longest * (count + 1) > BATCH_SECONDS * SAMPLING_RATE:
            batches.append([])
        batches[-1].append(clip)
    return batches


class Shards:
    """What one process adds to a cache: its own files, created exclusively, so that no other writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shard: Path | None = None

    def add(self, dtype: str, targets: Sequence[tuple[Clip, Tensor]]) -> None:
        """Write the targets of some clips, then the lines that name them.

        Raises:
            UserError: they are not finite, or the disk is full.
        """
        packed = [(clip, states.shape[1], _packed(clip, states, dtype)) for clip, states in targets]
        with _writing(self.folder):
            if self._shard is None or self._shard.stat().st_size >= SHARD_BYTES:
                self._shard = self._new_shard()
            lines = []
            with self._shard.open("ab") as file:
                for clip, frames, data in packed:
                    lines.append(index_line(clip, file.tell(), frames, data))
                    file.write(data)
                _to_disk(file)
            with self._shard.with_suffix(".jsonl").open("a", encoding="utf-8") as index:
                index.writelines(lines)
                _to_disk(index)

    def _new_shard(self) -> Path:
        """A file whose number no other has, or had before it was deleted."""
        names = [path.stem.removeprefix(SHARD) for path in self.folder.glob(f"{SHARD}*.*")]
        number = max((int(name) for name in names if name.isdecimal()), default=-1)
        while True:
            number += 1
            path = shard_path(self.folder, number)
            try:
                path.open("xb").close()
            except FileExistsError:
                continue
            return path


class Progress:
    """How much was heard: a bar on a terminal, lines elsewhere; hours of speech in all processes."""

    def __init__(self, total: float, main: bool) -> None:
        self.total, self.main, self.done = total, main, 0.0
        unit = "{desc}: {percentage:3.0f}% of {total:.3g} hours [{elapsed}<{remaining}]"
        self.bar = tqdm(total=total, desc="targets", bar_format=unit, disable=None if main else True)

    def add(self, hours: float) -> None:
        """So much more was heard."""
        share = self.done / self.total
        self.done += hours
        self.bar.update(hours)
        if self.bar.disable and self.main and int(LINES * share) < int(LINES * self.done / self.total):
            print(f"targets: {self.done:.3g} of {self.total:.3g} hours", flush=True)


def _packed(clip: Clip, states: Tensor, dtype: str) -> bytes:
    try:
        return pack(states, dtype)
    except ValueError as error:
        raise UserError(
            f"the teacher's states of {clip.clip_id} are not finite, or too large for {dtype}; give another "
            "--cache_dtype or --precision, or leave out --cache_targets"
        ) from error


def _hours(clips: Iterable[Clip]) -> float:
    return sum(clip.num_samples for clip in clips) / SAMPLING_RATE / 3600


def _to_disk(file: IO[Any]) -> None:
    """Lest after a power cut an index names numbers that never arrived."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line that a cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; make room, and the same command goes on from there"
        ) from error
