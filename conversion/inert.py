"""An unpickler that runs nothing of a file's choosing.

A PyTorch checkpoint is a pickle, and a pickle is a program. Here it meets tensors and plain containers only;
every other name in the file becomes a placeholder that takes anything and does nothing.
"""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from hf_distilhubert.errors import UserError, one_line


def unpickle(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What a file of `torch.save` holds, and the names of the objects that placeholders stand for.

    Raises:
        UserError: it cannot be read as such a file.
    """
    foreign: list[str] = []
    try:
        with path.open("rb") as file:
            _refuse_other_archives(file)
            content = torch.load(
                file,
                map_location="cpu",
                # Torch's own safe reader refuses harmless objects too; this one allows less and reads them.
                weights_only=False,
                pickle_module=_inert_pickle(foreign),
            )
    except Exception as error:  # A broken or hostile file can fail anywhere in the reader.
        named = f"; it names {', '.join(foreign)}" if foreign else ""
        reason = one_line(error, limit=200) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as a PyTorch checkpoint ({reason}{named}); "
            "give the whole file as S3PRL saved it"
        ) from error
    return content, tuple(foreign)


class Placeholder:
    """Stands for an object of another program: takes whatever the file gives it, and does nothing."""

    name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any) -> Placeholder:
        """Itself: a bound method is pickled as a call of `getattr`, whose result may be called in turn."""
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Items of a list that this is not."""

    def extend(self, values: Any) -> None:
        """Items of a list that this is not."""

    def add(self, value: Any) -> None:
        """Items of a set that this is not."""


class _PlainDict(dict[Any, Any]):
    """Stands for `OrderedDict`, `defaultdict`, `EasyDict` and `Namespace`: only its items are kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(arg for arg in args if isinstance(arg, list | dict)))

    def __setstate__(self, state: Any) -> None: ...


class _TensorRebuilder:
    """`torch._utils._rebuild_tensor`, without the hooks and metadata that a file may add."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        tensor: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} claims more than the file holds")
        return tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("the file tries to change how tensors are made")


class _ParameterRebuilder(_TensorRebuilder):
    """`torch._utils._rebuild_parameter`: the tensor itself."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_PLAIN_TYPES = {kind.__name__: kind for kind in (list, dict, set, frozenset, tuple, int, float, bool, str)}
_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _TensorRebuilder(),
    ("torch._utils", "_rebuild_tensor_v2"): _TensorRebuilder(),
    ("torch._utils", "_rebuild_parameter"): _ParameterRebuilder(),
    ("collections", "OrderedDict"): _PlainDict,
    ("collections", "defaultdict"): _PlainDict,
    ("easydict", "EasyDict"): _PlainDict,
    ("argparse", "Namespace"): _PlainDict,
    **{("builtins", name): kind for name, kind in _PLAIN_TYPES.items()},
    **{("__builtin__", name): kind for name, kind in _PLAIN_TYPES.items()},
}


def _inert_pickle(foreign: list[str]) -> Any:
    """A module in the likeness of `pickle` for `torch.load`; names it does not know are added to `foreign`.

    `torch.load` puts a class of its own on top, which takes the names of storages away before they come here.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in _KNOWN:
                return _KNOWN[module, name]
            full_name = one_line(f"{module}.{name}", limit=100)
            if full_name not in foreign:
                foreign.append(full_name)
            return type("Foreign", (Placeholder,), {"name": full_name})

    def load(file: BinaryIO, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    return SimpleNamespace(__name__="inert_pickle", Unpickler=Unpickler, load=load)


def _refuse_other_archives(file: BinaryIO) -> None:
    """`torch.load` hands TorchScript to its compiler and unpacks tar files to disk; neither is S3PRL's."""
    zipped = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    if zipped and "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():
        raise ValueError("it is a TorchScript program")
    if not zipped and tarfile.is_tarfile(file):
        raise ValueError("it is a tar archive")
    file.seek(0)
