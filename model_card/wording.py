"""Facts become sentences. Errors, speed and size are rounded up, never in a model's favour."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from model_card.facts import Facts

NOT_MEASURED = "not measured"
ERROR_KINDS = ("substitutions", "deletions", "insertions")


def rounded_up(value: float, digits: int) -> str:
    """A number with so many decimals, rounded up; the inner rounding only takes off the noise of floats."""
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:.{digits}f}"


def percent(share: float | None) -> str:
    """0.1234 -> `12.4 %`."""
    return NOT_MEASURED if share is None else f"{rounded_up(100 * share, 1)} %"


def millions(count: float | None) -> str:
    """1234567 -> `1.24 M`."""
    return NOT_MEASURED if count is None else f"{rounded_up(count / 1e6, 2)} M"


def factor(value: float | None) -> str:
    """0.01234 -> `0.013`."""
    return NOT_MEASURED if value is None else rounded_up(value, 3)


def count(value: float | None) -> str:
    """12345 -> `12,345`."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def counted(value: float, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{value:,.0f} {noun}" if value == 1 else f"{value:,.0f} {noun}s"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def cell(value: object) -> str:
    """Any text as it stands, safe inside Markdown and its tables."""
    return re.sub(r"([\\`*\[\]|<>])", r"\\\1", " ".join(str(value).split()))


def code(value: object) -> str:
    """Any text as a Markdown code span."""
    return f"`{' '.join(str(value).replace('`', chr(39)).split())}`"


def given(entry: Mapping[str, Any], key: str, form: Callable[[Any], str]) -> str:
    """`form(entry[key])`, or nothing where the stage did not say."""
    return form(entry[key]) if key in entry else ""


def listing(*parts: str) -> str:
    """The parts that say something, with commas."""
    return ", ".join(part for part in parts if part)


def what_it_is(facts: Facts) -> str:
    """One paragraph: kind, size and shape."""
    config = facts.config
    kind = "A speech recogniser" if facts.recognises else "A speech encoder, from sound to features"
    layers = given(config, "num_hidden_layers", lambda n: counted(n, "Transformer layer"))
    width = given(config, "hidden_size", lambda n: f" of width {n}") if layers else ""
    front = given(
        config, "conv_stride", lambda strides: counted(len(strides), "convolution") + " before them"
    )
    rate = facts.preprocessor.get("sampling_rate")
    frame = f"one frame every {1000 * math.prod(config['conv_stride']) / rate:g} ms" if rate and front else ""
    size = facts.num_parameters
    parameters = f"{millions(size)} parameters ({size:,})" if size is not None else f"size {NOT_MEASURED}"
    shape = listing(parameters, layers + width, front, frame)
    return f"{kind} (`{facts.architecture}`): {shape}."


def stage_line(stage: Mapping[str, Any]) -> str:
    """What one stage did, with its key figures."""
    name = str(stage.get("stage", ""))
    source = given(stage, "source", lambda text: f" from {code(text)}")
    data = given(stage, "data", lambda text: f" on {code(text)}")
    openings = {
        "convert": "**Converted** from S3PRL's format"
        + given(stage, "source", lambda text: f", {code(text)}"),
        "distill": f"**Distilled**{source}{data}",
        "finetune": f"**{'Fine-tuned' if source else 'Trained from random weights'}** with CTC{source}{data}",
    }
    details = {"convert": _converted, "distill": _distilled, "finetune": _finetuned}
    opening = openings.get(name, f"**{name.capitalize()}**{source}{data}")
    figures = details[name](stage) if name in details else ""
    return f"{opening}: {figures}." if figures else f"{opening}."


def _converted(stage: Mapping[str, Any]) -> str:
    heads = given(stage, "keeps_heads", lambda kept: f"prediction heads {'kept' if kept else 'left out'}")
    return listing(given(stage, "step", lambda n: f"step {n:,}"), _size(stage), heads)


def _distilled(stage: Mapping[str, Any]) -> str:
    layers = given(stage, "target_layers", lambda ids: f"predicting the teacher's layers {_series(ids)}")
    teacher = given(stage, "teacher_parameters", lambda n: f"the teacher has {millions(n)}")
    return listing(
        given(stage, "audio_hours", lambda hours: f"{duration(3600 * hours)} of audio"),
        layers,
        *_training(stage),
        _final_losses(stage.get("final", {})),
        _size(stage),
        teacher,
    )


def _final_losses(final: Mapping[str, Any]) -> str:
    parts = []
    for key, name in (("l1", "L1"), ("cosine", "cosine")):
        if by_layer := final.get(key):
            values = (f"{factor(value)} (layer {layer})" for layer, value in by_layer.items())
            parts.append(f"{name} {' / '.join(values)}")
    total = given(final, "loss", factor)
    inner = f"({'; '.join(parts)})" if parts else ""
    return f"final loss {total} {inner}".rstrip() if total else ""


def _finetuned(stage: Mapping[str, Any]) -> str:
    measured = stage.get("eval", {})
    error = listing(*(f"{key.upper()} {percent(measured[key])}" for key in ("wer", "cer") if key in measured))
    return listing(
        given(stage, "train_clips", lambda n: counted(n, "clip")),
        given(stage, "train_hours", lambda hours: f"{duration(3600 * hours)} of speech"),
        given(stage, "train_speakers", lambda n: counted(n, "speaker")),
        *_training(stage),
        f"evaluated in training at {error}" if error else "",
        _size(stage),
    )


def _training(stage: Mapping[str, Any]) -> list[str]:
    """The figures that every training has."""
    return [
        given(stage, "skipped", lambda n: f"{counted(n, 'clip')} skipped"),
        given(stage, "steps", lambda n: counted(n, "step")),
        given(stage, "batch_size", lambda n: f"batch {n}"),
        given(stage, "batch_seconds", lambda n: f"batches of {n:g} s"),
        given(stage, "learning_rate", lambda rate: f"learning rate {rate:g}"),
        given(stage, "seed", lambda n: f"seed {n}"),
        given(stage, "seconds", lambda seconds: f"took {duration(seconds)}"),
    ]


def _size(stage: Mapping[str, Any]) -> str:
    return given(stage, "num_parameters", lambda n: f"{millions(n)} parameters")


def _series(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values)


def error_line(split: str, score: Mapping[str, Any]) -> str:
    """What kinds of word errors a split has, and how the time was taken; empty where nothing was counted."""
    kinds = listing(*(f"{score[kind]:,} {kind}" for kind in ERROR_KINDS if kind in score))
    device = score.get("device", "cpu")
    threads = given(score, "threads", lambda n: f"timed on {counted(n, 'thread')}")
    facts = listing(kinds, threads if device == "cpu" else f"timed on {code(device)}")
    return f"- {code(score.get('split', split))}: {facts}." if facts else ""


def version_line(facts: Facts) -> str:
    """The versions that the last stage ran with; empty where none were written down."""
    versions = facts.stages[-1].get("versions", {}) if facts.stages else {}
    return listing(*(f"{package} {version}" for package, version in versions.items()))
