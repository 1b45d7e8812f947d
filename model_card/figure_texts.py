"""What each figure shows, in words and numbers, for those who do not see it; plain text, not Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_distilhubert.benchmark_figure import drawn_work, fastest_first, speed_of
from hf_distilhubert.curves import Entries, Point, points
from hf_distilhubert.glyphs import code_point, is_mark
from model_card.figures_scores import NAMED, Rates, confused
from model_card.wording import (
    count,
    counted,
    error_rate,
    factor,
    megabytes,
    millions,
    percent,
    rounded_down,
    scientific,
)

SHOWN = 3  # confusions of each kind


def losses(log: Entries) -> str:
    """Of a distillation's curves."""
    held_out = [{"step": entry["step"], **entry["held_out"]} for entry in log if "held_out" in entry]
    parts = [_course("loss", points(log, "loss")), _course("held-out loss", points(held_out, "loss"))]
    parts += [_layers(name, log, key) for key, name in (("l1", "L1 distance"), ("cosine", "cosine loss"))]
    return _sentence("Curves of the distillation", parts)


def _layers(name: str, log: Entries, key: str) -> str:
    """First and last height of each layer's curve, of very many of some."""
    rows = [entry for entry in log if entry.get(key)]
    if not rows:
        return ""
    first, last = rows[0], rows[-1]
    layers = list(last[key])
    heights = [
        f"{layer} {factor(first[key].get(layer))} to {factor(last[key][layer])}"
        for layer in layers[:: -(-len(layers) // 6)]
    ]
    return f"{name} by layer, step {count(first['step'])} to {count(last['step'])}: {', '.join(heights)}"


def training(log: Entries) -> str:
    """Of a fine-tuning's curves."""
    parts = [
        _course("training loss", points(log, "loss")),
        _course("held-out loss", points(log, "eval_loss")),
    ]
    parts += [
        _course(f"{key.upper()} in evaluation", points(log, f"eval_{key}"), percent) for key in ("wer", "cer")
    ]
    return _sentence("Curves of the training", parts)


def _course(name: str, line: Sequence[Point], form: Callable[[float], str] = factor) -> str:
    """First and last height of a curve."""
    if not line:
        return ""
    (first, start), (last, end) = line[0], line[-1]
    if len(line) == 1:
        return f"{name} {form(end)} at step {count(last)}"
    return f"{name} from {form(start)} at step {count(first)} to {form(end)} at step {count(last)}"


def _sentence(opening: str, parts: Sequence[str]) -> str:
    return f"{opening}: {'; '.join(part for part in parts if part)}."


def groups(score: Rates, column: str, rated: Mapping[str, Rates]) -> str:
    """Of the error rates of a split's parts."""
    opening = f"Word error rate by {column} on {score['split']}, with 95 % intervals"
    if len(rated) <= NAMED:
        parts = [f"{name} {error_rate(rates, 'wer')}" for name, rates in rated.items()]
    else:
        rates = list(rated.values())
        places = {"lowest": 0, "median": len(rates) // 2, "highest": -1}
        parts = [f"{len(rates)} of them"]
        parts += [f"{name} {percent(rates[place]['wer'])}" for name, place in places.items()]
    return _sentence(opening, [*parts, f"all {error_rate(score, 'wer')}"])


def confusions(score: Rates) -> str:
    """Of the characters that are mistaken."""
    found = score["character_confusions"]
    parts = []
    for kind, name in (
        ("substitutions", "written for another"),
        ("deletions", "left out"),
        ("insertions", "added"),
    ):
        entries = [
            f"{confused(entry, _named)} {counted(entry['count'], 'time')}"
            for entry in found.get(kind, [])[:SHOWN]
        ]
        parts.append(f"{name}: {', '.join(entries)}" if entries else "")
    return _sentence(f"Characters most often mistaken on {score['split']}", parts)


def _named(character: str) -> str:
    """A character that can stand by itself, or its number."""
    return character if character.isprintable() and not is_mark(character) else code_point(character)


def speed(benchmark: Mapping[str, Any]) -> str:
    """Of speed, size and error of the ways to run the model."""
    work, _ = drawn_work(benchmark)
    threads = counted(benchmark["machine"]["threads"], "thread")
    parts = []
    for way in fastest_first(benchmark):
        facts = [megabytes(way["file_bytes"])] if "file_bytes" in way else []
        facts += [f"off by {scientific(way['deviations'][work])}"] if work in way["deviations"] else []
        own = f" ({', '.join(facts)})" if facts else ""
        parts.append(f"{way['name']} {rounded_down(speed_of(way, benchmark), 1)}{own}")
    return _sentence(
        f"Seconds of speech that each way takes in a second, of a clip of {work} on {threads}", parts
    )


def comparison(rows: Entries) -> str:
    """Of several models' errors and sizes."""
    parts = [
        f"{row.get('model', '')}: WER {percent(row.get('wer'))}, CER {percent(row.get('cer'))}, "
        f"parameters {millions(row.get('num_parameters'))}"
        for row in rows
    ]
    return _sentence("Errors and sizes of the models", parts)
