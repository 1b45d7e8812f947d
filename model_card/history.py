"""How a model came about, stage by stage, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_distilhubert.errors import one_line
from model_card.facts import Facts
from model_card.wording import (
    cell,
    code,
    count,
    counted,
    duration,
    factor,
    given,
    listing,
    megabytes,
    millions,
    percent,
    scientific,
    series,
)

FORMATS = {
    "onnx": "an ONNX file in float32",
    "onnx-int8": "an ONNX file with its linear layers in 8 bits",
    "openvino": "an OpenVINO model in float32",
}


def stage_lines(facts: Facts) -> list[str]:
    """Every stage in a line, oldest first; what happened to the teacher is told apart."""
    lines = [stage_line(stage) for stage in facts.stages]
    return [f"{'The teacher: ' * (place < facts.teachers_stages)}{line}" for place, line in enumerate(lines)]


def stage_line(stage: Mapping[str, Any]) -> str:
    """What one stage did, with its key figures."""
    name = str(stage.get("stage", ""))
    source = given(stage, "source", lambda text: f" from {code(text)}") if stage.get("source") else ""
    data = given(stage, "data", lambda text: f" on {code(text)}")
    openings = {
        "convert": "**Converted** from S3PRL's format"
        + given(stage, "source", lambda text: f", {code(text)}"),
        "distill": _distilled_from(stage) + data,
        "finetune": f"**{'Fine-tuned' if source else 'Trained from random weights'}** with CTC{source}{data}",
        "export": f"**Exported**{source} as {FORMATS.get(str(stage.get('format')), 'a file')}",
    }
    details = {"convert": _converted, "distill": _distilled, "finetune": _finetuned, "export": _exported}
    opening = openings.get(name, f"**{cell(name.capitalize()) or 'A stage of no name'}**{source}{data}")
    sentences = [text for text in details[name](stage) if text] if name in details else []
    if not sentences:
        return f"{opening}."
    return f"{opening}: {'. '.join([sentences[0], *(text[0].upper() + text[1:] for text in sentences[1:])])}."


def _distilled_from(stage: Mapping[str, Any]) -> str:
    """The teacher, and what the student was before where that is not the teacher's lower part."""
    source, teacher = stage.get("source"), stage.get("teacher", stage.get("source"))
    start = f", going on with {code(source)}" if source and source != teacher else ""
    return f"**Distilled** from {code(teacher)}{start}" if teacher else "**Distilled**"


def _converted(stage: Mapping[str, Any]) -> list[str]:
    heads = given(stage, "keeps_heads", lambda kept: f"prediction heads {'kept' if kept else 'left out'}")
    step = given(stage, "step", lambda n: f"step {n:,}") if stage.get("step") else ""
    digest = given(stage, "sha256", lambda digest: f"SHA-256 of the checkpoint: {code(digest)}")
    return [listing(step, _size(stage), given(stage, "dtype", cell), heads), digest]


def _distilled(stage: Mapping[str, Any]) -> list[str]:
    layers = given(stage, "target_layers", _layers)
    teacher = given(stage, "teacher_parameters", lambda n: f"the teacher has {millions(n)}")
    return [
        listing(given(stage, "audio_hours", lambda hours: f"{duration(3600 * hours)} of audio"), layers),
        *_training(stage),
        _final_losses(stage.get("final", {})),
        _held_out(stage.get("held_out", {})),
        listing(_size(stage), teacher),
    ]


def _layers(numbers: Sequence[int]) -> str:
    return (
        f"predicting the teacher's layer{'s' if len(numbers) > 1 else ''} {series(numbers)}"
        if numbers
        else ""
    )


def _final_losses(final: Mapping[str, Any]) -> str:
    parts = []
    for key, name in (("l1", "L1"), ("cosine", "cosine")):
        if by_layer := final.get(key):
            values = (f"{factor(value)} (layer {cell(layer)})" for layer, value in by_layer.items())
            parts.append(f"{name} {' / '.join(values)}")
    total = given(final, "loss", factor)
    inner = f"({'; '.join(parts)})" if parts else ""
    return f"final loss {total} {inner}".rstrip() if total else ""


def _held_out(measured: Mapping[str, Any]) -> str:
    losses = [measured.get(when, {}).get("loss") for when in ("before", "after")]
    if None in losses:
        return ""
    return f"loss on held-out clips {factor(losses[0])} before, {factor(losses[1])} after"


def _finetuned(stage: Mapping[str, Any]) -> list[str]:
    measured = stage.get("eval", {})
    error = listing(*(f"{key.upper()} {percent(measured[key])}" for key in ("wer", "cer") if key in measured))
    data = listing(
        given(stage, "train_clips", lambda n: counted(n, "clip")),
        given(stage, "train_hours", lambda hours: f"{duration(3600 * hours)} of speech"),
        given(stage, "train_speakers", lambda n: counted(n, "speaker") if n else ""),
    )
    return [data, *_training(stage), f"evaluated in training at {error}" if error else "", _size(stage)]


def _exported(stage: Mapping[str, Any]) -> list[str]:
    off = stage.get("deviation", {})
    worst = [*off.get("alone", {}).values(), *(off[key] for key in ("batch",) if key in off)]
    most = f"off from PyTorch by at most {scientific(max(worst))} of the largest output" if worst else ""
    return [listing(given(stage, "bytes", megabytes), most)]


def _training(stage: Mapping[str, Any]) -> list[str]:
    """The figures that every training has: how it went, and what it took."""
    how = listing(
        given(stage, "steps", lambda n: counted(n, "step"))
        + given(stage, "earlier_steps", lambda n: f" after {count(n)} of an earlier training"),
        given(stage, "batch_size", lambda n: f"batch {n}"),
        given(stage, "batch_seconds", lambda n: f"batches of {n:g} s"),
        given(stage, "learning_rate", lambda rate: f"learning rate {rate:g}"),
        given(stage, "seed", lambda n: f"seed {n}"),
        given(stage, "skipped", lambda n: f"{counted(n, 'clip')} skipped" if n else ""),
    )
    took = given(stage, "seconds", lambda seconds: f"it took {duration(seconds)}")
    machine = _hardware(stage.get("hardware", {}))
    return [how, f"{took or 'it ran'}{machine}" if took or machine else ""]


def _hardware(machine: Mapping[str, Any]) -> str:
    """The device that computed, and how many processes shared the work."""
    cores = given(machine, "cores", lambda n: f" ({counted(n, 'core')})")
    name = machine.get("device_name") or machine.get("processor")
    if not name or machine.get("device", "cpu") not in ("cpu", "cuda"):
        name, cores = machine.get("device"), ""
    if not name:
        return ""
    processes = machine.get("processes", 1)
    shared = f" in {count(processes)} processes" if processes > 1 else ""
    return f" on {code(name)}{cores if 'device_name' not in machine else ''}{shared}"


def _size(stage: Mapping[str, Any]) -> str:
    return given(stage, "num_parameters", lambda n: f"{millions(n)} parameters")


def commands(facts: Facts) -> list[str]:
    """The command lines that were written down, oldest first, each in one line that cannot end its block."""
    lines = [one_line(stage["command"], 4_000) for stage in facts.stages if "command" in stage]
    return [line.replace("```", "'''") for line in lines]


def settings_line(name: str) -> str:
    """What a file of settings is good for; one that a `Trainer` left has some of them, and no data."""
    again = {"distill.yaml": "distilhubert distill", "finetune.yaml": "python -m finetune.train"}
    line = f"Settings of the last stage are in {code(name)}"
    if name not in again:
        return f"{line}."
    return f"{line}: `{again[name]} {name} --output_dir AGAIN` takes them up again."


def version_line(facts: Facts) -> str:
    """The versions that the last stage ran with; empty where none were written down."""
    versions = facts.stages[-1].get("versions", {}) if facts.stages else {}
    return listing(*(f"{cell(package)} {cell(version)}" for package, version in versions.items()))
