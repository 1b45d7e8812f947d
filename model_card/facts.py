"""What a model folder says about itself: read, never guessed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError
from model_card import forms
from model_card.files import read_json, read_lines

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MIXES_LAYERS = "hubert-layer-sum"  # `hf_distilhubert.layer_sum.MODEL_TYPE`, whose import takes long
SETTINGS = ("convert", "distill", "finetune")


@dataclass(frozen=True)
class Facts:
    """The files of a model folder, as far as they are there.

    Attributes:
        folder: where they lie.
        name: the folder's own name.
        config: `config.json`.
        preprocessor: `preprocessor_config.json`, or that part of `processor_config.json`.
        stages: how the model came about, oldest first (`lineage.json`, or the last stage's own results;
            of an export, what it was made of and the export).
        scores: name of the split -> `scores/SPLIT/results.json`.
        comparison: `comparison.json`, several models on the same speech.
        examples: `examples.json`, transcripts beside their references.
        log: the lines of `log.jsonl`.
        conversion: `conversion.json`.
        export: `export.json`.
        benchmark: `benchmark.json`.
        text: `text.json`, the normal form of the transcripts.
        vocabulary: the tokens of `vocab.json`, or those of the last training or of the exported file.
        settings: the settings that lie in the folder, e.g. `distill.yaml`.
        weights: number of values in the safetensors files; None where there are none.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    preprocessor: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    conversion: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    benchmark: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    vocabulary: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    weights: int | None = None

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
        return self.config.get("model_type") == MIXES_LAYERS

    @property
    def num_parameters(self) -> int | None:
        """The number of parameters as the last stage counted it, or the scoring, or else by the weights."""
        trained = [stage for stage in self.stages if stage.get("stage") != "export"]
        counts = [entry.get("num_parameters") for entry in (*trained[-1:], *self.scores.values())]
        return next((int(count) for count in counts if count is not None), self.weights)

    @property
    def untrained(self) -> bool:
        """Whether its CTC head was made by the conversion and has learned nothing since."""
        return self.recognises and bool(self.stages) and self.stages[-1].get("stage") == "convert"

    @property
    def teachers_stages(self) -> int:
        """How many of the stages are its teacher's: those before the last distillation that began with it."""
        begun = [
            place
            for place, stage in enumerate(self.stages)
            if stage.get("stage") == "distill"
            and stage.get("source") == stage.get("teacher", stage.get("source"))
        ]
        return begun[-1] if begun else 0

    @property
    def tuned(self) -> dict[str, Any]:
        """The newest training with transcripts that was its own, not its teacher's."""
        own = self.stages[self.teachers_stages :]
        return next((stage for stage in reversed(own) if stage.get("stage") == "finetune"), {})

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
    processor = read_json(folder / "processor_config.json", dict, forms.PROCESSOR)
    export = read_json(folder / "export.json", dict, forms.EXPORT)
    stages = _stages(folder, export)
    log = read_lines(folder / "log.jsonl", forms.LOG)
    return Facts(
        folder=folder,
        name=folder.resolve().name,
        config=read_json(folder / "config.json", dict, forms.CONFIG),
        preprocessor=read_json(folder / "preprocessor_config.json", dict, forms.EXTRACTOR)
        or processor.get("feature_extractor", {}),
        stages=stages,
        scores={
            path.parent.name: read_json(path, dict, forms.SCORE)
            for path in sorted(folder.glob("scores/*/results.json"))
        },
        comparison=read_json(folder / "comparison.json", dict, forms.COMPARISON),
        examples=read_json(folder / "examples.json", list, forms.EXAMPLES),
        log=sorted((entry for entry in log if "step" in entry), key=lambda entry: entry["step"]),
        conversion=read_json(folder / "conversion.json", dict, forms.CONVERSION),
        export=export,
        benchmark=read_json(folder / "benchmark.json", dict, forms.BENCHMARK),
        text=read_json(folder / "text.json", dict, forms.TEXT),
        vocabulary=_vocabulary(folder, stages),
        settings=[f"{name}.yaml" for name in SETTINGS if (folder / f"{name}.yaml").is_file()],
        weights=_count_weights(folder),
    )


def _stages(folder: Path, export: dict[str, Any]) -> list[dict[str, Any]]:
    """The lineage with the folder's own results in its last stage, or these results alone."""
    stages = read_json(folder / "lineage.json", list, [forms.STAGE])
    own = read_json(folder / "results.json", dict, forms.STAGE)
    if export:
        return [*export.get("lineage", []), {**export, "stage": "export", "source": export.get("model", "")}]
    if not own.get("stage"):
        return stages
    if stages and stages[-1].get("stage") == own["stage"]:
        return [*stages[:-1], {**stages[-1], **own}]
    return [*stages, own]


def _vocabulary(folder: Path, stages: list[dict[str, Any]]) -> list[str]:
    """Tokens in the order of their numbers."""
    numbers = read_json(folder / "vocab.json", dict, forms.VOCABULARY)
    if numbers:
        return sorted(numbers, key=numbers.__getitem__)
    return next((stage["vocabulary"] for stage in reversed(stages) if "vocabulary" in stage), [])


def _count_weights(folder: Path) -> int | None:
    """By the heads of the files alone; a damaged one counts for nothing here."""
    from safetensors import SafetensorError, safe_open

    total = None
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        total = (total or 0) + sum(map(math.prod, shapes))
    return total


def hub_data_set(data: object) -> str | None:
    """The data set's name on the Hub for the data argument `hub:NAME[:CONFIG][:SPLIT]`, else None."""
    text = str(data or "")
    return text.removeprefix("hub:").split(":")[0] if text.startswith("hub:") else None


def hub_model(source: object) -> str | None:
    """The repository on the Hub that a stage started from: `OWNER/NAME`, or that of `hub:OWNER/NAME/FILE`."""
    text = str(source or "")
    if text.startswith("hub:"):
        text = "/".join(text.removeprefix("hub:").split("/")[:2])
    return text if HUB_NAME.fullmatch(text) else None
