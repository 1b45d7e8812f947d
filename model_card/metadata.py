"""The head of the card, which the Hub reads: what follows from the folder, and what a person set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_distilhubert.errors import UserError, one_line
from model_card.facts import Facts, hub_data_set, hub_model
from model_card.wording import rounded_up

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

WRITTEN = re.compile(r"([\w-]+)=([0-9a-f]{8})")
GONE = "00000000"  # for a key that a person took out
FIRST = ("language", "license", "data_license", "library_name", "pipeline_tag", "tags", "base_model")
SPEECH_RECOGNITION = "automatic-speech-recognition"


def derived(facts: Facts) -> dict[str, Any]:
    """What the folder says, key by key as the Hub has them; what it does not say is not there."""
    from huggingface_hub import ModelCardData

    results = [result for split, score in facts.scores.items() for result in _eval_results(split, score)]
    base_model = _base_model(facts)
    data = ModelCardData(
        model_name=facts.name if results else None,
        library_name=library(facts),
        pipeline_tag=SPEECH_RECOGNITION if facts.recognises else "feature-extraction",
        tags=_tags(facts),
        base_model=base_model,
        base_model_relation=_relation(facts) if base_model else None,
        datasets=_data_sets(facts) or None,
        metrics=sorted({result.metric_type for result in results}, reverse=True) or None,
        eval_results=results or None,
    )
    return dict(data.to_dict())


def library(facts: Facts) -> str:
    """What loads the model: of an exported one the library that reads its file."""
    if not facts.export:
        return "transformers"
    return "openvino" if facts.export.get("format") == "openvino" else "transformers.js"


def _tags(facts: Facts) -> list[str]:
    kind = str(facts.config.get("model_type", "hubert"))
    file_format = str(facts.export.get("format", ""))
    distilled = any(facts.stage(name) for name in ("convert", "distill"))
    tags = {"speech": True, kind: True, "distilhubert": distilled, "ctc": facts.recognises}
    tags |= {"onnx": file_format.startswith("onnx"), "openvino": file_format == "openvino"}
    return [tag for tag, said in (tags | {"int8": file_format.endswith("int8")}).items() if said]


def _base_model(facts: Facts) -> str | None:
    """The repository that the newest stage with one started from; before that are local names alone."""
    sources = [name for stage in reversed(facts.stages) if (name := hub_model(stage.get("source")))]
    return next(iter(sources), None)


def _relation(facts: Facts) -> str | None:
    """The Hub's word for what was done to the base model; None where it has none.

    It knows `finetune`, `quantized`, `adapter` and `merge`. A student that begins as the lower layers of its
    teacher and goes on learning is nearest to the first, in 8 bits too: those are not the base model's own
    weights. The same weights in another format are none of them.
    """
    newest = max(place for place, stage in enumerate(facts.stages) if hub_model(stage.get("source")))
    if {"distill", "finetune"} & {str(stage.get("stage")) for stage in facts.stages[newest:]}:
        return "finetune"
    return "quantized" if str(facts.export.get("format", "")).endswith("int8") else None


def _data_sets(facts: Facts) -> list[str]:
    """Those on the Hub that any stage learned from."""
    names = [name for stage in facts.stages if (name := hub_data_set(stage.get("data")))]
    return list(dict.fromkeys(names))


def _eval_results(split: str, score: dict[str, Any]) -> list[EvalResult]:
    """WER and CER of one split, in percent, for the Hub's model-index."""
    from huggingface_hub import EvalResult

    data = str(score.get("data", split))
    return [
        EvalResult(
            task_type=SPEECH_RECOGNITION,
            task_name="Speech recognition",
            dataset_type=hub_data_set(data) or data,
            dataset_name=hub_data_set(data) or data,
            dataset_split=score.get("split", split),
            metric_type=key,
            metric_name=f"{key.upper()} (%)",
            metric_value=float(rounded_up(100 * score[key], 1)),
        )
        for key in ("wer", "cer")
        if key in score
    ]


def parse(head: str, path: Path) -> dict[str, Any]:
    """The metadata of a card.

    Raises:
        UserError: it is not YAML, or no mapping.
    """
    try:
        found = yaml.safe_load(head) or {}
        json.dumps(found, default=str)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"the metadata of {path} is not YAML ({one_line(error, 200)}); mend it, or take the file away"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"the metadata of {path} holds no keys; write lines of `name: value` between the ---")
    metadata = {str(key): value for key, value in found.items()}
    if "language" in metadata:
        metadata["language"] = _language(metadata["language"])
    return metadata


def _language(value: Any) -> Any:
    """YAML takes `language: no`, which is Norwegian, for "false"."""
    if value is False:
        return "no"
    return [_language(item) for item in value] if isinstance(value, list) else value


def combined(
    found: Mapping[str, Any], written: str, own: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of the new card.

    Args:
        found: of the card that is there.
        written: the `note` in that card, which tells what of `found` is ours.
        own: what the folder says now.
        given: what the user says now, None where nothing; it goes before all else.
    """
    ours = dict(WRITTEN.findall(written))
    kept = {key: value for key, value in found.items() if ours.get(key) != _digest(value)}
    # A key that we wrote and that is gone was taken out by a person.
    gone = ours.keys() - found.keys()
    fresh = {key: value for key, value in own.items() if key not in gone}
    if "base_model" in kept.keys() | gone or given.get("base_model"):
        fresh.pop("base_model_relation", None)  # it belongs to the base model that the folder names
    return fresh | kept | {key: value for key, value in given.items() if value is not None}


def note(metadata: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Which values of the metadata are ours, so that the next rendering knows them from a person's."""
    marks = {key: _digest(value) if key in metadata else GONE for key, value in own.items()}
    return " ".join(
        f"{key}={mark}" for key, mark in marks.items() if mark == GONE or metadata[key] == own[key]
    )


def as_yaml(metadata: Mapping[str, Any]) -> str:
    """The head of the card, with what people look for first."""
    ordered = {key: metadata[key] for key in sorted(metadata, key=_place)}
    # As they are, YAML takes some characters (U+0085 for one) for line breaks.
    plain = _text(ordered).isprintable()
    return str(yaml.safe_dump(ordered, sort_keys=False, allow_unicode=plain, width=1_000))


def _place(key: str) -> int:
    return FIRST.index(key) if key in FIRST else len(FIRST)


def _digest(value: Any) -> str:
    return hashlib.sha256(_text(value).encode(errors="replace")).hexdigest()[:8]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
