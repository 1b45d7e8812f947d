"""A model folder as the Hub gets it: its card's code names the repository, its settings no folder of here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from model_card.body import usage
from model_card.facts import SETTINGS, read_facts
from model_card.files import publishable
from model_card.sections import read_card, rewritten, section
from model_card.selection import File, Selection, select

USAGE = "usage"


def for_the_hub(model_dir: str | Path, repo_id: str, aside: Path) -> Selection:
    """Which files are sent, some of them as copies that say otherwise; the folder itself stays as it is.

    Args:
        model_dir: a folder with a model and its card.
        repo_id: where the files will be, which the card's code then loads.
        aside: an empty folder for the copies.

    Raises:
        UserError: there is no such folder, or what the card is made of cannot be read.
    """
    selection = select(model_dir)
    files = []
    for file in selection.files:
        text, note = None, ""
        if file.name == "README.md":
            text, note = _card(Path(model_dir), repo_id), "its code names the repository"
        elif file.name in (f"{stage}.yaml" for stage in SETTINGS):
            text, note = _settings(file.path), "folders of this machine cut down to their names"
        files.append(file if text is None else _copied(file, text, note, aside))
    return Selection(files, selection.left_out)


def _copied(file: File, text: str, note: str, aside: Path) -> File:
    content = text.encode()
    if content == file.path.read_bytes():
        return file
    (aside / file.name).write_bytes(content)
    return replace(file, path=aside / file.name, size=len(content), note=note)


def _card(folder: Path, repo_id: str) -> str | None:
    """The card with code that loads from the repository; None for one that a person wrote."""
    path = folder / "README.md"
    _, body = read_card(path)
    if not section(body, USAGE):
        return None
    text = path.read_bytes().decode()
    return text.removesuffix(body) + rewritten(body, USAGE, usage(read_facts(folder), repo_id))


def _settings(path: Path) -> str | None:
    """The settings of a stage without absolute paths; None where it has none, or holds no settings."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    if not isinstance(values, dict):
        return None
    public = {key: _public(value) for key, value in values.items()}
    return None if public == values else yaml.safe_dump(public, sort_keys=False, allow_unicode=True)


def _public(value: Any) -> Any:
    """Without folders of this machine."""
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name  # blanks and commas in it, too
    return publishable(value)
