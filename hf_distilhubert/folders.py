"""Output folders that are whole as soon as they exist."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_distilhubert.errors import UserError

# Every folder that a command writes holds one of these; nothing else is ever replaced.
RESULTS = ("results.json", "metadata.csv", "config.json")


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which gets that name once the block has ended without an error.

    What stood under `path` before stays untouched until then; after an error nothing new is left behind.

    Raises:
        UserError: `path` is there already and `overwrite` is not set, or it cannot be written.
    """
    check_new(path, overwrite=overwrite)
    target = Path(path).resolve()
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another output folder") from error
    try:
        yield partial
        if target.exists():
            target.rename(old)
        partial.rename(target)
    except OSError as error:
        # Reading has errors of its own kind by now; this is a disk that is full, or gone.
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; make room, or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def check_new(path: str | Path, *, overwrite: bool = False, keep: Iterable[str | Path | None] = ()) -> None:
    """Refuse an output folder that would lose what is in it.

    Args:
        path: the output folder.
        overwrite: whether a result that is there may be replaced.
        keep: inputs of the command, which must not lie in the folder that it replaces.

    Raises:
        UserError: `path` is a file, or a folder with something in it and `overwrite` is not set, or a folder
            that no command of this project wrote, or one that holds an input.
    """
    target = resolved(path)
    for source in keep:
        if source is not None and resolved(source).is_relative_to(target):
            raise UserError(f"{source} lies in the output folder {path}; choose another output folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give the name of a new folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{target} exists already; choose another folder, or give --overwrite to replace it")
    if not any((target / name).is_file() for name in RESULTS):
        raise UserError(f"{target} holds other things than a result of this project; choose another folder")


def resolved(path: str | Path) -> Path:
    """A path without links and `..`.

    Raises:
        UserError: no file can have such a name.
    """
    try:
        str(path).encode("utf-8")
        target = Path(path).resolve()
        target.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not valid UTF-8"
        raise UserError(f"{str(path)[:100]!r} cannot be the name of a file or folder: {reason}") from error
    return target


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
