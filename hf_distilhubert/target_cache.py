"""Teacher targets of whole clips, kept on disk (`--cache_targets`).

A cache is a folder. `teacher.json` says whose targets it holds. `targets-NUMBER.bin` is a shard of plain
numbers, and `targets-NUMBER.jsonl` has a line for each clip in it: where its numbers are, and their checksum.
Shards only grow, and a line is written once its numbers are on the disk; so a build may be killed at any
moment, and what is there may be read while more is added.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hf_distilhubert.errors import UserError
from hf_distilhubert.students import INHERITED
from hf_distilhubert.target_records import SHARD, Record, Records, identity, read_indices, shard_path

if TYPE_CHECKING:
    from hf_distilhubert.speech_data import Clip
    from hf_distilhubert.teachers import Teacher

HEADER = "teacher.json"
ITEM_BYTES = {"float16": 2, "int8": 1}
SCALE_BYTES = {"float16": 0, "int8": 4}  # per frame and layer


class DamagedTargetsError(UserError):
    """Targets that cannot be used."""

    def __init__(self, message: str) -> None:
        # From a process that reads, torch hands on the traceback, with the message at its end.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class TargetCache:
    """Targets on disk, `(layer, frame, size)` for a clip, to be read by any number of processes.

    Args:
        folder: where they are, or will be.
        header: whose they are, see `describe`.

    Raises:
        UserError: the folder holds something else, or targets of another teacher.
    """

    def __init__(self, folder: str | Path, header: Mapping[str, Any]) -> None:
        self.folder, self.header = Path(folder), dict(header)
        self.dtype: str = header["dtype"]
        self.layers, self.size = len(header["layers"]), int(header["hidden_size"])
        self._records = Records({})
        check_header(self.folder, self.header)

    @property
    def name(self) -> str:
        """Whose targets these are, in a few words."""
        return f"of whole clips, {self.dtype}, teacher {self.header['teacher'][:12]}"

    def look_up(self, clips: Sequence[Clip]) -> list[int]:
        """Find the targets of clips; the numbers of the clips that have none here."""
        known = dict(self._whole_records())
        with ThreadPoolExecutor() as pool:
            found = [known.get(name) for name in pool.map(identity, clips)]
        pairs = zip(clips, found, strict=True)
        self._records = Records({clip.clip_id: record for clip, record in pairs if record is not None})
        return [number for number, record in enumerate(found) if record is None]

    def read(self, clip: Clip, first: int, count: int) -> Tensor:
        """`count` frames from frame `first` on, `(layer, count, size)`; int8 comes back as float32.

        Checksums are compared when a process first reads a clip.

        Raises:
            DamagedTargetsError: the numbers are damaged, or the clip is another now.
        """
        record = self._records[clip.clip_id]
        if first + count > record.frames:
            raise DamagedTargetsError(f"{clip.clip_id} has become longer; give the same command again")
        data, checked = self._bytes(record), self._records.is_checked(clip.clip_id)
        if data is None or not (checked or zlib.crc32(data) == record.crc32):
            raise DamagedTargetsError(
                f"the targets of {clip.clip_id} are damaged; delete {shard_path(self.folder, record.shard)} "
                "and give the same command again, which makes it anew"
            )
        self._records.note_checked(clip.clip_id)
        return unpack(data, self.dtype, (self.layers, record.frames, self.size), slice(first, first + count))

    def num_bytes(self, frames: int) -> int:
        """How much room so many frames take."""
        return frames * self.layers * (self.size * ITEM_BYTES[self.dtype] + SCALE_BYTES[self.dtype])

    def _bytes(self, record: Record) -> Any:
        """A map of the bytes of a clip (gone with its last user: memory stays flat); None if cut off."""
        path, shape = shard_path(self.folder, record.shard), (self.num_bytes(record.frames),)
        try:
            return np.memmap(path, np.uint8, "r", record.offset, shape)
        except (OSError, ValueError):
            return None

    def _whole_records(self) -> Iterator[tuple[str, Record]]:
        """What the indices name, as far as the numbers are there."""
        lengths = {path.name: path.stat().st_size for path in self.folder.glob(f"{SHARD}*.bin")}
        for name, record in read_indices(self.folder):
            end = record.offset + self.num_bytes(record.frames)
            if end <= lengths.get(shard_path(self.folder, record.shard).name, 0):
                yield name, record


def pack(targets: Tensor, dtype: str) -> bytes:
    """Targets `(layer, frame, size)` as bytes; for int8 the scales `(layer, frame)` come first.

    Raises:
        ValueError: they are not finite, or too large for float16.
    """
    if dtype == "int8":
        targets = targets.float()
        scales = targets.abs().amax(dim=-1) / 127
        codes = torch.round(targets / scales.clamp(min=1e-30)[..., None])
        parts = [scales, codes.to(torch.int8)]
    else:
        parts = [targets.to(torch.float16)]
    if not torch.isfinite(parts[0]).all():
        raise ValueError("not finite")
    return b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts)


def unpack(data: npt.NDArray[Any], dtype: str, shape: tuple[int, int, int], frames: slice) -> Tensor:
    """The way back of `pack`, for some of the frames: float16, or float32 from int8."""
    if dtype == "float16":
        return torch.from_numpy(np.array(data.view(np.float16).reshape(shape)[:, frames]))
    end = shape[0] * shape[1] * SCALE_BYTES[dtype]
    scales = np.array(data[:end].view(np.float32).reshape(shape[:2])[:, frames])
    codes = np.array(data[end:].view(np.int8).reshape(shape)[:, frames])
    return torch.from_numpy(codes) * torch.from_numpy(scales)[..., None]


def check_header(folder: Path, header: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else; one without a file is fine.

    Raises:
        UserError: it does, or it cannot be read.
    """
    try:
        found = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        different = [name for name in header if found.get(name) != header[name]]
    except FileNotFoundError:
        # Hidden files are a lock, and a header that was being written.
        if folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()):
            return
        if folder.exists():
            raise UserError(f"{folder} holds other things than targets; give a new folder") from None
        return
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} holds no {HEADER} that can be read; give a new folder") from error
    if different:
        name = different[0]
        raise UserError(
            f"{folder} holds targets of another {name} ({str(found.get(name))[:12]}, now "
            f"{str(header[name])[:12]}); give another folder as --cache_targets"
        )


def describe(teacher: Teacher, *, mask_group_norm: bool, precision: str, dtype: str) -> dict[str, Any]:
    """What targets depend on beside the sound; `precision` is what the teacher computes in."""
    arrangement = [(name, getattr(teacher.config, name, None)) for name in ("model_type", *INHERITED)]
    digest = hashlib.sha256(json.dumps(arrangement).encode())
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return {
        "teacher": digest.hexdigest(),
        "layers": list(teacher.layers),
        "hidden_size": int(teacher.config.hidden_size),
        "do_normalize": teacher.do_normalize,
        "mask_group_norm": mask_group_norm,
        "precision": precision,
        "dtype": dtype,
    }
