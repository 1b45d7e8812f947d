"""What a checkpoint's pickle may hold beside plain values: names, tensors, numpy's scalars; all as data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

# Containers that occur in S3PRL's files; only their items are kept.
DICTIONARIES = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("easydict", "EasyDict"),
    ("argparse", "Namespace"),
    ("builtins", "dict"),
}
SEQUENCES = {("builtins", name) for name in ("list", "tuple", "set", "frozenset")} | {("torch", "Size")}
# Defaults of a defaultdict: named, never made.
PLAIN = {("builtins", name) for name in ("int", "float", "bool", "str")}
TENSORS = {("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2")}
PARAMETER = ("torch._utils", "_rebuild_parameter")
# numpy's scalars: a type, and bytes that old protocols write as text.
NUMPY_SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}
NUMPY_TYPE = ("numpy", "dtype")
TEXT_TO_BYTES = ("_codecs", "encode")
NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}
MAX_DIMENSIONS = 8
SILENT = DICTIONARIES | SEQUENCES | PLAIN | TENSORS | NUMPY_SCALARS | {PARAMETER, NUMPY_TYPE, TEXT_TO_BYTES}


class PickleError(ValueError):
    """The bytes are not a pickle, or not one of plain values and tensors."""


@dataclass(eq=False)
class Foreign:
    """Stands for a class or function of another program, or for what it would have made; does nothing."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A stretch of numbers in the file: its key, torch's name of its type, the number of values."""

    key: str
    kind: str
    size: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor as the pickle describes it; nothing is read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def is_known(named: Foreign) -> bool:
    """Whether a name needs no warning: a container, or what tensors and scalars are made of."""
    storage = named.module in ("torch", "torch.storage") and named.name.endswith("Storage")
    return storage or (named.module, named.name) in SILENT


def made(function: Foreign, arguments: tuple[Any, ...]) -> Any:
    """What a known function makes of its arguments; `Foreign` for every other.

    Raises:
        PickleError: a tensor is no tensor.
    """
    name = (function.module, function.name)
    if name in DICTIONARIES:
        return {}
    if name in SEQUENCES or name == PARAMETER:
        # The very same value: copies in a loop could fill the memory.
        return arguments[0] if arguments else []
    if name in TENSORS:
        return _tensor(*arguments[:4])
    if name == TEXT_TO_BYTES and isinstance(arguments[0], str) and len(arguments[0]) <= 16:
        return arguments[0].encode("latin-1")
    if name == NUMPY_TYPE and isinstance(arguments[0], str):
        return Foreign("numpy", arguments[0])
    if name in NUMPY_SCALARS:
        return _number(*arguments)
    return Foreign(function.module, function.name)


def _number(kind: Any, data: Any) -> Any:
    """numpy's scalar as Python's number; other kinds (text, dates, complex) stay what they are."""
    code = NUMBERS.get(kind.name) if isinstance(kind, Foreign) else None
    if code is None or not isinstance(data, bytes):
        return Foreign("numpy", "scalar")
    return struct.unpack(f"<{code}", data)[0]


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    if not isinstance(storage, Storage) or len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise PickleError("a tensor without numbers, shape or strides")
    if not all(map(is_size, (offset, *shape, *stride))):
        raise PickleError("a tensor whose shape or strides are no numbers")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.size:
        raise PickleError(f"a tensor of shape {tuple(shape)} claims more than the file holds")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))


def is_size(value: Any) -> bool:
    """Whether a value can be a number of bytes or values."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
