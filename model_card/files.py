"""The files that the stages left in a folder: read, checked, and freed of what must not be published."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hf_distilhubert.errors import UserError
from model_card.forms import Form, complaint

Json = TypeVar("Json", dict[str, Any], list[dict[str, Any]])

# An absolute path of two or more parts, of any system; the address of a page is none, that of a file is one.
ABSOLUTE_PATH = re.compile(r"(?:(?<![\w/:.])|(?<=file://))(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\,;'\"`]+){2,}[/\\]?")
LARGEST = 1e30  # nothing that a stage counts or measures is larger


def read_json(path: Path, kind: type[Json], form: Form) -> Json:
    """The object or the list of objects in a file; an empty one where there is no file.

    Raises:
        UserError: the file is not JSON, or of another form.
    """
    text = _read(path)
    if text is None:
        return kind()
    value: Json = _parse(text, path)
    _check(value, form, path)
    return value


def read_lines(path: Path, form: Form) -> list[dict[str, Any]]:
    """The objects of a file with one of them a line; none where there is no file.

    Raises:
        UserError: a line is not JSON, or of another form.
    """
    entries = [_parse(line, path) for line in (_read(path) or "").splitlines() if line.strip()]
    _check(entries, [form], path)
    return entries


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path` and rename it: `path` is the old file or the new one, never half of it."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        write(Path(temporary) / path.name)
        (Path(temporary) / path.name).replace(path)


def publishable(value: Any) -> Any:
    """The same value, with every absolute path cut down to its last part and nothing that is None.

    Text is text that UTF-8 can hold, which that of JSON need not be.
    """
    if isinstance(value, str):
        text = value.encode("utf-8", errors="replace").decode("utf-8")
        return ABSOLUTE_PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)
    if isinstance(value, Mapping):
        return {publishable(key): publishable(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [publishable(item) for item in value]
    return value


def _read(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {_remedy(path)}") from error


def _parse(text: str, path: Path) -> Any:
    """JSON without paths of this machine; NaN and infinity are nothing that was measured."""
    try:
        found = json.loads(
            text,
            parse_constant=lambda _: None,
            parse_float=_float,
            parse_int=lambda digits: int(digits) if len(digits) <= len(f"{LARGEST:.0f}") else None,
        )
        return publishable(found)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {_remedy(path)}") from error


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) and abs(number) <= LARGEST else None


def _check(value: Any, form: Form, path: Path) -> None:
    if wrong := complaint(value, form):
        raise UserError(f"{path}: {wrong}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    """What to do about a file that cannot be used; a model without `config.json` would be none."""
    return "write it again by its stage" + (", or take it away" if path.name != "config.json" else "")
