"""What every stage leaves beside its result: its settings, its figures, and how the model came about."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from hf_distilhubert.machine import command_line

PACKAGES = ("hf-distilhubert", "torch", "transformers", "accelerate", "datasets")


def record(
    folder: str | Path,
    stage: str,
    settings: Any,
    results: Mapping[str, Any],
    source: str | Path | None = None,
) -> None:
    """Write `STAGE.yaml` (the settings), `results.json` (the figures) and `lineage.json` into `folder`.

    Args:
        folder: where the stage's result lies.
        stage: what was done, e.g. `distill`.
        settings: a dataclass or mapping; a training command takes `STAGE.yaml` again.
        results: figures and names, plain values only.
        source: the folder or repository that the stage started from; its `lineage.json` comes first in ours,
            which also has the versions of the packages and, where there is one, the command line.
    """
    folder = Path(folder)
    values = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else dict(settings)
    values.pop("overwrite", None)  # taken up again, the settings should not replace anything unasked
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (folder / f"{stage}.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "results.json", {"stage": stage, **results})
    lineage = read_lineage(source) if source is not None else []
    entry = {"stage": stage, "source": short_name(source), **results, "versions": versions()}
    command = command_line()
    lineage.append(entry | ({"command": command} if command else {}))
    write_json(folder / "lineage.json", lineage)


def read_lineage(folder: str | Path) -> list[dict[str, Any]]:
    """The stages that a folder went through, oldest first; empty where none can be read."""
    path = Path(folder) / "lineage.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [stage for stage in found if isinstance(stage, dict)] if isinstance(found, list) else []


def short_name(source: object) -> str | None:
    """A name that can be published: the last part of a path of this machine, a Hub name as it is."""
    if source is None:
        return None
    return Path(str(source)).absolute().name if Path(str(source)).exists() else str(source)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: str | Path, value: Any) -> None:
    """Write indented UTF-8 JSON that ends in a newline; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
