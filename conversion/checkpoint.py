"""S3PRL's checkpoint file: read without ever running what is in it (`inert.py`), and written afresh."""

from __future__ import annotations

import argparse
import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conversion.inert import Placeholder, unpickle
from hf_distilhubert.errors import UserError

# Types whose every value is a float32 too.
READABLE_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """What S3PRL's file holds.

    Attributes:
        weights: the distiller's state dict in float32, without the prefix of `DataParallel`.
        config: its `Config`, plain values only.
        step: the training step it was saved at, 0 where it does not say.
        foreign: names of other programs' objects that were left out.
        sha256: of the file.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]
    step: int
    foreign: tuple[str, ...]
    sha256: str

    @property
    def distiller(self) -> dict[str, Any]:
        """The settings of the model."""
        return dict(self.config["distiller"])


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of S3PRL's distiller, zip or legacy format; foreign objects are named in a warning.

    Raises:
        UserError: there is no such file, or it is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; give a checkpoint of S3PRL's distiller")
    content, foreign = unpickle(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {_describe(content)}; expected a checkpoint of S3PRL's distiller")
    config = _part(path, content, "Config")
    if not isinstance(config.get("distiller"), dict):
        raise UserError(f"{path} has no settings under Config['distiller']; expected S3PRL's distiller")
    step = content.get("Step", 0)
    with path.open("rb") as file:
        checkpoint = Checkpoint(
            weights=_weights(path, _part(path, content, "Distiller")),
            config=_plain(config, f"{path}: Config"),
            step=step if isinstance(step, int) else 0,
            foreign=foreign,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
        )
    if foreign:
        names = ", ".join(foreign)
        warnings.warn(f"{path}: objects of other programs were left out, not run: {names}", stacklevel=2)
    return checkpoint


def write_checkpoint(
    path: str | Path,
    weights: Mapping[str, Tensor],
    distiller: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint that S3PRL's `distiller_local` loads, under a temporary name until it is whole.

    Args:
        path: the file.
        weights: tensors under S3PRL's names.
        distiller: the settings of the model.
        overwrite: replace a file that is there already.

    Raises:
        UserError: `path` is a folder, exists already without `overwrite`, or cannot be written.
    """
    target = Path(path)
    check_new_file(target, overwrite=overwrite)
    content = {
        "Optimizer": {},
        "Step": 0,
        "Args": argparse.Namespace(upstream="distiller", expname=target.stem),
        "Config": {"distiller": dict(distiller), "teacher": {}, "task": {}, "audio": {}},
        "Distiller": {name: tensor.detach().clone() for name, tensor in weights.items()},
    }
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(content, file)
        partial.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another output file") from error
    finally:
        if partial.exists():
            partial.unlink()
    return target


def check_new_file(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse an output file that is a folder, or there already without `overwrite`.

    Raises:
        UserError: see above.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a new file, such as student.ckpt")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already; choose another name, or give --overwrite to replace it")


def _part(path: Path, content: dict[Any, Any], key: str) -> dict[Any, Any]:
    """One of the dictionaries of which a checkpoint consists."""
    if key not in content:
        found = ", ".join(sorted(map(str, content))) or "nothing"
        raise UserError(f"{path} has no {key!r}, only {found}; expected a checkpoint of S3PRL's distiller")
    if not isinstance(content[key], dict):
        raise UserError(f"{path}: {key!r} is {_describe(content[key])}; expected a dictionary")
    return dict(content[key])


def _weights(path: Path, state: dict[Any, Any]) -> dict[str, Tensor]:
    """The state dict in float32; a name that is there twice is refused."""
    weights: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = str(key).removeprefix("module.")
        if name in weights:
            raise UserError(f"{path}: tensor {name!r} is there twice, with and without 'module.' before it")
        if not isinstance(tensor, Tensor) or tensor.dtype not in READABLE_TYPES:
            kind = tensor.dtype if isinstance(tensor, Tensor) else _describe(tensor)
            raise UserError(f"{path}: {name!r} is {kind}; expected a tensor of float32, float16 or bfloat16")
        weights[name] = tensor.detach().float()
    return weights


def _plain(value: Any, where: str) -> Any:
    """The value as JSON knows it; objects, infinities and NaN are refused with the place they stand in."""
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}[{str(key)!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, where) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise UserError(f"{where} holds {_describe(value)}; expected text, finite numbers and lists only")


def _describe(value: Any) -> str:
    if isinstance(value, Placeholder):
        return f"an object of {value.name}, which was not run"
    return f"a {type(value).__name__} ({str(value)[:40]})"
