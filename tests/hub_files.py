"""The files of a repository of the Hub of the tests: their names in git, and which of them are large."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGE = 10_000_000  # bytes; and the kinds of files that are large whatever their size
LARGE_KINDS = (".safetensors", ".parquet", ".bin", ".png", ".wav", ".flac")

Json = dict[str, Any]


def commit_of(folder: Path) -> str:
    """The name of what lies in a folder now: another one after every change, a new branch's the old one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    # The revisions of a repository lie beside it, a pull request's two folders further down.
    place = str(folder).partition("@")[0]
    return hashlib.sha1(repr((place, state)).encode(), usedforsecurity=False).hexdigest()


def mode_of(folder: Path, file: Mapping[str, Any]) -> Json:
    """Whether a file is sent ahead, and what it is now, so that the same is not committed again."""
    large = _is_large(file["path"], file["size"])
    about = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    path = folder / file["path"]
    if path.is_file():
        content = path.read_bytes()
        about["oid"] = hashlib.sha256(content).hexdigest() if large else _blob(content)
    return about


def entry_of(root: Path, path: Path) -> Json:
    """A file or folder of a repository, as the Hub lists it."""
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _blob(name.encode())}
    content = path.read_bytes()
    entry = {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
    if _is_large(name, len(content)):
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
        entry["oid"] = _blob(pointer.encode())
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return entry


def _is_large(name: str, size: int) -> bool:
    return size >= LARGE or name.endswith(LARGE_KINDS)


def _blob(content: bytes) -> str:
    """A content's name in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def write_file(folder: Path, name: str, content: bytes | None) -> None:
    """Put a file there, or take it away where it has no content."""
    path = folder / name
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
