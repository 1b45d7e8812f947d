"""The two file formats of `torch.save`, read without torch's loader: zip, and the one before it.

Only what is asked for is read: an optimiser's state beside the model costs neither time nor memory.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor

from conversion.inert import Machine
from conversion.values import PickleError, Storage, TensorRef
from hf_distilhubert.errors import UserError, one_line

# torch's names of its storages; the others hold no weights.
TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
PIECE = 1 << 20
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


class Archive:
    """An open file of `torch.save`.

    Attributes:
        content: what was saved: plain values, `TensorRef` for tensors, `Foreign` for all else.
        foreign: names of other programs' classes and functions in it.
    """

    def __init__(self, path: Path, content: Any, foreign: tuple[str, ...], numbers: _Numbers) -> None:
        self.content, self.foreign = content, foreign
        self._path, self._numbers = path, numbers
        self._read: dict[Storage, Tensor] = {}
        self._left = path.stat().st_size

    def tensor(self, reference: TensorRef) -> Tensor:
        """The tensor itself; those that share numbers in the file share memory.

        Raises:
            UserError: its numbers are not there, or damaged.
        """
        with _damage_told(self._path):
            return self._tensor(reference)

    def _tensor(self, reference: TensorRef) -> Tensor:
        storage = reference.storage
        if storage not in self._read:
            dtype = type_of(storage)
            size = storage.size * dtype.itemsize
            self._left -= size
            if self._left < 0:
                raise PickleError("its tensors claim more than the file holds")
            data = self._numbers.read(storage.key, size) if size else bytearray(1)
            flat = torch.frombuffer(data, dtype=torch.uint8)[:size]
            self._read[storage] = flat.view(dtype)
        return self._read[storage].as_strided(reference.shape, reference.stride, reference.offset)


def type_of(storage: Storage) -> torch.dtype:
    """Type of the numbers in a storage.

    Raises:
        PickleError: it is none that torch has for weights.
    """
    if storage.kind not in TYPES:
        raise PickleError(f"numbers in a {storage.kind[:40]}; expected {', '.join(TYPES)}")
    return TYPES[storage.kind]


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a file of `torch.save`; nothing in it is run, nothing is written.

    Raises:
        UserError: it cannot be read as such a file.
    """
    if not path.is_file():
        kind = "a folder or a device" if path.exists() else "no file"
        raise UserError(f"{path} is {kind}; give a checkpoint of S3PRL's distiller")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is in Transformers' format already; give the checkpoint that S3PRL saved")
    if path.stat().st_size == 0:
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint (it is empty); give the whole file")
    with ExitStack() as stack:
        with _damage_told(path):
            file = stack.enter_context(path.open("rb"))
            if file.read(2) == b"PK":
                archive = _open_zip(path, stack.enter_context(zipfile.ZipFile(file)))
            else:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                archive = _open_legacy(path, stack.enter_context(data))
        yield archive


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Damage shows as PickleError in our code, and as the others in Python's zip reader."""
    try:
        yield
    except (
        *(ValueError, LookupError, TypeError, EOFError, OSError, MemoryError, OverflowError, struct.error),
        *(RuntimeError, zipfile.BadZipFile),
    ) as error:
        reason = one_line(error, limit=200) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as a PyTorch checkpoint ({reason}); give the whole file as S3PRL saved it"
        ) from error


class _Numbers(Protocol):
    """Where an archive's numbers lie."""

    def read(self, key: str, size: int) -> bytearray:
        """The `size` bytes of a storage, one byte or more."""


class _ZipNumbers:
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive, self._folder = archive, folder

    def read(self, key: str, size: int) -> bytearray:
        """See `_Numbers`; the zip format's checksum tells damage."""
        info = _entry(self._archive, f"{self._folder}data/{key}")
        if info.file_size != size:
            raise PickleError(f"the numbers {key[:40]!r} take {info.file_size} bytes; expected {size}")
        data = bytearray(size)
        with self._archive.open(info) as file:
            for start in range(0, size, PIECE):
                piece = file.read(min(PIECE, size - start))
                data[start : start + len(piece)] = piece
        return data


class _LegacyNumbers:
    def __init__(self, data: mmap.mmap, offsets: dict[str, int]) -> None:
        self._data, self._offsets = data, offsets

    def read(self, key: str, size: int) -> bytearray:
        """See `_Numbers`; this format has no checksum."""
        start = self._offsets[key]
        return bytearray(self._data[start : start + size])


def _open_zip(path: Path, archive: zipfile.ZipFile) -> Archive:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise PickleError("a part of the zip archive is there twice")
    folders = [name.removesuffix("data.pkl") for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(folders) != 1:
        raise PickleError("it is a zip archive, but not one of torch")
    folder = folders[0]
    if f"{folder}constants.pkl" in names:
        raise PickleError("it is a TorchScript program")
    if f"{folder}byteorder" in names and archive.read(_entry(archive, f"{folder}byteorder")) != b"little":
        raise PickleError("it was written by a big-endian machine")
    machine = Machine()
    content = machine.load(archive.read(_entry(archive, f"{folder}data.pkl")))
    return Archive(path, content, tuple(machine.foreign), _ZipNumbers(archive, folder))


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A part of the archive, which torch stores as it is: a compressed one could grow without bound."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise PickleError(f"its part {name[:80]!r} is compressed, as torch never does")
    return info


def _open_legacy(path: Path, data: mmap.mmap) -> Archive:
    """The format until torch 1.6: pickles for magic number, version, machine, content, keys; then numbers."""
    stream = cast(IO[bytes], data)
    if not _is_legacy(stream):
        raise PickleError("it is in neither of torch's two formats")
    system = Machine().load(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("it was not written by a little-endian machine")
    machine = Machine()
    content, keys = machine.load(stream), Machine().load(stream)
    offsets = _offsets(data, [machine.storages[key] for key in keys])
    return Archive(path, content, tuple(machine.foreign), _LegacyNumbers(data, offsets))


def _is_legacy(stream: IO[bytes]) -> bool:
    try:
        return [Machine().load(stream) for _ in range(2)] == [LEGACY_MAGIC, LEGACY_VERSION]
    except PickleError:
        return False


def _offsets(data: mmap.mmap, storages: list[Storage]) -> dict[str, int]:
    """Where the numbers of each storage begin: one after the other to the end, each behind its size."""
    offsets, position = {}, data.tell()
    for storage in storages:
        if int.from_bytes(data[position : position + 8], "little") != storage.size:
            raise PickleError(f"the numbers {storage.key[:40]!r} are not as many as expected")
        offsets[storage.key] = position + 8
        position += 8 + storage.size * type_of(storage).itemsize
    if position != len(data):
        raise PickleError(f"it is {len(data)} bytes long; expected {position}")
    return offsets
