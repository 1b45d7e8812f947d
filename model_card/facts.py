"""What a model folder says about itself: read, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hf_distilhubert.errors import UserError

Json = TypeVar("Json", dict[str, Any], list[dict[str, Any]])

# An absolute path of two or more parts, of any system; the address of a page is none.
ABSOLUTE_PATH = re.compile(r"(?<![\w/:.])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\,;'\"`]+){2,}[/\\]?")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Facts:
    """The files of a model folder, as far as they are there.

    Attributes:
        name: the folder's own name.
        config: `config.json`.
        preprocessor: `preprocessor_config.json`, or that part of `processor_config.json`.
        stages: how the model came about, oldest first (`lineage.json`, or the last stage's own results).
        scores: name of the split -> `scores/SPLIT/results.json`.
        comparison: `comparison.json`, several models on the same speech.
        examples: `examples.json`, transcripts beside their references.
        log: the lines of `log.jsonl`.
    """

    name: str
    config: dict[str, Any]
    preprocessor: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        """The class that the weights were saved from; plain `HubertModel` where the config is silent."""
        return str((self.config.get("architectures") or ["HubertModel"])[0])

    @property
    def recognises(self) -> bool:
        """Whether the model gives text (a CTC head) rather than features."""
        return self.architecture.endswith("ForCTC")

    @property
    def mixes_layers(self) -> bool:
        """Whether it loads with this package alone (`hf_distilhubert.layer_sum`)."""
        return self.config.get("model_type") == "hubert-layer-sum"

    @property
    def num_parameters(self) -> int | None:
        """The number of parameters as the last stage, or the scoring, counted it."""
        for entry in [*reversed(self.stages[-1:]), *self.scores.values()]:
            if entry.get("num_parameters") is not None:
                return int(entry["num_parameters"])
        return None

    def stage(self, name: str) -> dict[str, Any]:
        """The newest stage of this name; empty where there was none."""
        return next((entry for entry in reversed(self.stages) if entry.get("stage") == name), {})


def read_facts(model_dir: str | Path) -> Facts:
    """Read what the stages left in `model_dir`.

    Raises:
        UserError: there is no such folder, it holds no `config.json`, or a file is not what it should be.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise UserError(f"there is no folder {model_dir}; give a folder that holds a model")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{model_dir} holds no config.json; give a folder that a stage or save_pretrained wrote"
        )
    processor = read_json(folder / "processor_config.json", dict)
    return Facts(
        name=folder.resolve().name,
        config=read_json(folder / "config.json", dict),
        preprocessor=read_json(folder / "preprocessor_config.json", dict)
        or processor.get("feature_extractor", {}),
        stages=_stages(folder),
        scores={
            path.parent.name: read_json(path, dict) for path in sorted(folder.glob("scores/*/results.json"))
        },
        comparison=read_json(folder / "comparison.json", dict),
        examples=read_json(folder / "examples.json", list),
        log=_read_log(folder / "log.jsonl"),
    )


def _stages(folder: Path) -> list[dict[str, Any]]:
    """The lineage with the folder's own results in its last stage, or these results alone."""
    stages = read_json(folder / "lineage.json", list)
    own = read_json(folder / "results.json", dict)
    if not own.get("stage"):
        return stages
    if stages and stages[-1].get("stage") == own["stage"]:
        return [*stages[:-1], {**stages[-1], **own}]
    return [*stages, own]


def read_json(path: Path, kind: type[Json]) -> Json:
    """The object or the list of objects in a file; an empty one where there is no file.

    Raises:
        UserError: the file is not JSON, or of another kind.
    """
    if not path.is_file():
        return kind()
    value = _parse(path.read_text(encoding="utf-8", errors="replace"), path)
    items = value if isinstance(value, list) else [value]
    if not isinstance(value, kind) or not all(isinstance(item, dict) for item in items):
        expected = "an object" if kind is dict else "a list of objects"
        raise UserError(f"{path} is not {expected}; write it again by its stage, or take it away")
    return value


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one of them a line, in the order of their steps."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [_parse(line, path) for line in lines if line.strip()]
    if not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path} does not hold one object a line; write it again by its stage, or take it away"
        )
    return sorted(
        (entry for entry in entries if entry.get("step") is not None), key=lambda entry: entry["step"]
    )


def _parse(text: str, path: Path) -> Any:
    """JSON without paths of this machine; NaN and infinity are nothing that was measured."""
    try:
        return publishable(json.loads(text, parse_constant=lambda _: None))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON ({error}); write it again by its stage, or take it away"
        ) from error


def publishable(value: Any) -> Any:
    """The same value, with every absolute path cut down to its last part and nothing that is None."""
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], value)
    if isinstance(value, Mapping):
        return {key: publishable(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [publishable(item) for item in value]
    return value


def hub_data_set(data: object) -> str | None:
    """The data set's name on the Hub for the data argument `hub:NAME[:CONFIG][:SPLIT]`, else None."""
    text = str(data or "")
    return text.removeprefix("hub:").split(":")[0] if text.startswith("hub:") else None


def hub_model(source: object) -> str | None:
    """A stage's source where it is the name of a repository on the Hub, else None."""
    return str(source) if source and HUB_NAME.fullmatch(str(source)) else None
