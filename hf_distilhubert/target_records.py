"""Where the targets of which clip lie: the indices on disk, and a compact list for processes that read."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hf_distilhubert.speech_data import Clip, source_of

SHARD = "targets-"
PROBE = 4_096  # bytes at the beginning and in the middle of a file that tell it from another of its length


class Record(NamedTuple):
    """Where the targets of a clip lie: number of the shard, first byte, number of frames, and checksum."""

    shard: int
    offset: int
    frames: int
    crc32: int


class Records:
    """Records by name of the clip, in columns: forked processes share them (see `clip_lists`)."""

    def __init__(self, found: Mapping[str, Record]) -> None:
        keys = np.array([_key(clip_id) for clip_id in found], np.uint64)
        order = np.argsort(keys)
        self._keys = keys[order]
        self._columns = np.array(list(found.values()), np.int64).reshape(-1, len(Record._fields))[order]
        self._checked = np.zeros(len(keys), bool)

    def __getitem__(self, clip_id: str) -> Record:
        return Record(*self._columns[self._place(clip_id)].tolist())

    def is_checked(self, clip_id: str) -> bool:
        """Whether this process has compared the checksum of a clip before."""
        return bool(self._checked[self._place(clip_id)])

    def note_checked(self, clip_id: str) -> None:
        """It has."""
        self._checked[self._place(clip_id)] = True

    def _place(self, clip_id: str) -> int:
        return int(np.searchsorted(self._keys, np.uint64(_key(clip_id))))


def _key(clip_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(clip_id), digest_size=8).digest(), "big")


def identity(clip: Clip) -> str:
    """What tells a clip from others, also from another one of its name, without decoding it."""
    source = source_of(clip.audio)
    with BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        length = file.seek(0, 2)
        crc32 = 0
        for place in (0, length // 2):
            file.seek(place)
            crc32 = zlib.crc32(file.read(PROBE), crc32)
    return f"{clip.clip_id}\t{clip.num_samples}\t{length}\t{crc32:08x}"


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard; its index has the suffix `.jsonl`."""
    return folder / f"{SHARD}{number:05}.bin"


def index_line(clip: Clip, offset: int, frames: int, data: bytes) -> str:
    """What an index says of a clip whose bytes begin at `offset`."""
    return json.dumps([identity(clip), offset, frames, zlib.crc32(data)]) + "\n"


def read_indices(folder: Path) -> Iterator[tuple[str, Record]]:
    """Identities and records of all shards; where a build was killed, a line may be cut off."""
    for index in sorted(folder.glob(f"{SHARD}{'[0-9]' * 5}*.jsonl")):
        number = int(index.stem.removeprefix(SHARD))
        for line in index.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, offset, frames, crc32 = json.loads(line)
            except (ValueError, TypeError):
                continue
            yield name, Record(number, offset, frames, crc32)
