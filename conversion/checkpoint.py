"""S3PRL's checkpoint file: read without ever running what is in it (`archive.py`), and written afresh."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conversion.archive import TYPES, Archive, open_archive
from conversion.values import Foreign, TensorRef
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.folders import file_sha256

# Types whose every value is a float32 too.
READABLE_TYPES = (torch.float32, torch.float16, torch.bfloat16)
# A config of S3PRL's has some 100 values; one that refers to itself would never end.
MAX_VALUES = 10_000


@dataclass(frozen=True)
class Checkpoint:
    """What S3PRL's file holds.

    Attributes:
        path: the file.
        weights: the distiller's state dict in float32, without the prefix of `DataParallel`.
        distiller: the settings of the model, its `Config['distiller']`; plain values only.
        step: the training step it was saved at, 0 where it does not say.
        foreign: names of other programs' objects that were left out.
        sha256: of the file.
    """

    path: Path
    weights: dict[str, Tensor]
    distiller: dict[str, Any]
    step: int
    foreign: tuple[str, ...]
    sha256: str


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of S3PRL's distiller, zip or legacy format; foreign objects are named in a warning.

    Raises:
        UserError: there is no such file, or it is not such a checkpoint.
    """
    path = Path(path)
    with open_archive(path) as archive:
        config = _part(path, archive.content, "Config")
        if not isinstance(config.get("distiller"), dict):
            raise UserError(f"{path} has no settings under Config['distiller']; expected S3PRL's distiller")
        checkpoint = Checkpoint(
            path=path,
            weights=_weights(path, archive, _part(path, archive.content, "Distiller")),
            distiller=_plain(config["distiller"], f"{path}: Config['distiller']", iter(range(MAX_VALUES))),
            step=_step(archive.content.get("Step")),
            foreign=tuple(one_line(name, limit=100) for name in archive.foreign),
            sha256=file_sha256(path),
        )
    if checkpoint.foreign:
        warnings.warn(f"{path}: {left_out(checkpoint.foreign)}", stacklevel=2)
    return checkpoint


def left_out(foreign: tuple[str, ...]) -> str:
    """What to say of objects of other programs."""
    more = f" and {len(foreign) - 10} more" if len(foreign) > 10 else ""
    return f"objects of other programs were left out, not run: {', '.join(foreign[:10])}{more}"


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
    except (OSError, RuntimeError) as error:  # torch's zip writer has the latter for a full disk
        reason = one_line(getattr(error, "strerror", None) or error, limit=200)
        raise UserError(f"cannot write {target}: {reason}; choose another output file") from error
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


def _step(value: Any) -> int:
    """The training step, 0 where the file does not say it as a whole number."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if whole and 0 <= value < 2**63 else 0


def _part(path: Path, content: Any, key: str) -> dict[Any, Any]:
    """One of the dictionaries of which a checkpoint consists."""
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {describe(content)}; expected a checkpoint of S3PRL's distiller")
    if key not in content:
        raise UserError(
            f"{path} has no {key!r}: {_kind(content)}; expected a checkpoint of S3PRL's distiller"
        )
    if not isinstance(content[key], dict):
        raise UserError(f"{path}: {key!r} is {describe(content[key])}; expected a dictionary")
    return dict(content[key])


def _kind(content: dict[Any, Any]) -> str:
    """What a file is that is no checkpoint of S3PRL's distiller."""
    if "model" in content and {"args", "cfg"} & content.keys():
        return (
            "it looks like a checkpoint of fairseq, such as the teacher HuBERT, which needs no conversion "
            "(`distilhubert distill --teacher facebook/hubert-base-ls960` learns from it as it is)"
        )
    if content and all(isinstance(value, TensorRef) for value in content.values()):
        return "it holds bare tensors, such as a `pytorch_model.bin`"
    found = ", ".join(sorted(str(key)[:40] for key in content)[:10]) or "nothing"
    return f"it holds {found}"


def _weights(path: Path, archive: Archive, state: dict[Any, Any]) -> dict[str, Tensor]:
    """The state dict in float32; a name that is there twice is refused."""
    weights: dict[str, Tensor] = {}
    storages: set[str] = set()
    left = path.stat().st_size
    for key, reference in state.items():
        name = str(key).removeprefix("module.")
        if name in weights:
            raise UserError(f"{path}: tensor {name!r} is there twice, with and without 'module.' before it")
        dtype = TYPES.get(reference.storage.kind) if isinstance(reference, TensorRef) else None
        if dtype not in READABLE_TYPES:
            raise UserError(
                f"{path}: {name!r} is {dtype or describe(reference)}; "
                "expected a tensor of float32, float16 or bfloat16"
            )
        left -= math.prod(reference.shape) * dtype.itemsize
        if left < 0:
            raise UserError(
                f"{path}: its tensors up to {name!r} claim more than the file holds; give a whole file"
            )
        tensor = archive.tensor(reference).float()
        # Tensors that share their numbers in the file part here: safetensors has no such thing.
        weights[name] = tensor.clone() if reference.storage.key in storages else tensor
        storages.add(reference.storage.key)
    return weights


def _plain(value: Any, where: str, places: Iterator[int], depth: int = 0) -> Any:
    """The value as JSON knows it; objects, infinities and NaN are refused with the place they stand in."""
    if next(places, None) is None or depth > 20:
        raise UserError(f"{where} has no end; expected settings as S3PRL writes them")
    if isinstance(value, dict):
        return {
            _plain(str(key), where, places): _plain(item, f"{where}[{str(key)[:40]!r}]", places, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, where, places, depth + 1) for item in value]
    if value is None or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    # Half of a pair of UTF-16 can stand in a pickle, and in no file of text.
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    raise UserError(f"{where} holds {describe(value)}; expected text, finite numbers and lists only")


def describe(value: Any) -> str:
    """A few words for a value that should be another; never the inside of a list, which may have no end."""
    if isinstance(value, Foreign):
        return f"an object of {one_line(value, limit=100)}, which was not run"
    if isinstance(value, TensorRef):
        return f"a tensor of shape {value.shape}"
    shown = f" ({value!r:.40})" if isinstance(value, str | float) else ""
    return f"a {type(value).__name__}{shown}"
