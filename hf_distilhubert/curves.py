"""The curves of a training run as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_distilhubert.figure_style import LIGHT, Theme, label_ends, new_figure, save, styled

Entries = Sequence[Mapping[str, Any]]
Point = tuple[float, float]

# More points than this are drawn faint, with their running mean over a fortieth of them.
DENSE = 80


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]


def draw_distillation(log: Entries, path: str | Path, theme: Theme = LIGHT) -> None:
    """Loss and gradient norm, L1 and cosine of every predicted layer, against the step.

    Args:
        log: lines of a distillation's `log.jsonl`; circles are the held-out clips.
        path: of the PNG.
        theme: its colours.
    """
    held_out = [{"step": entry["step"], **entry["held_out"]} for entry in log if "held_out" in entry]
    with styled(theme):
        norms = points(log, "grad_norm")
        figure, axes = panels(3 + bool(norms))
        draw_loss(axes[0], points(log, "loss"), points(held_out, "loss"), theme)
        axes[0].set(title="Loss", xlabel="step", ylabel="L1 + cosine loss")
        if norms:
            curve(axes[1], norms, theme.colours[0])
            axes[1].set(title="Gradient norm, before it is clipped", xlabel="step", ylabel="norm")
        _layers(axes[-2], log, held_out, "l1", theme)
        axes[-2].set(title="L1 distance to the teacher", xlabel="step", ylabel="loss")
        _layers(axes[-1], log, held_out, "cosine", theme)
        axes[-1].set(title="Cosine loss, -log sigmoid(similarity)", xlabel="step", ylabel="loss")
        save(figure, path)


def draw_loss(axis: Axes, training: Sequence[Point], held_out: Sequence[Point], theme: Theme) -> None:
    """The loss of training as a line, of held-out speech as circles, each with its name."""
    ends = []
    if training:
        ends.append((curve(axis, training, theme.colours[0]), "training", theme.colours[0]))
    if held_out:
        ends.append((circles(axis, held_out, theme.colours[1]), "held out", theme.colours[1]))
    label_ends(axis, ends)


def _layers(axis: Axes, log: Entries, held_out: Entries, key: str, theme: Theme) -> None:
    """A curve for each predicted layer."""
    names = list(dict.fromkeys(name for entry in (*log, *held_out) for name in entry.get(key, {})))
    ends = []
    for place, name in enumerate(names):
        # Past the palette's end the colours begin again, with dashes.
        colour = theme.colours[place % len(theme.colours)]
        line, marks = _of_layer(log, key, name), _of_layer(held_out, key, name)
        heights = [circles(axis, marks, colour)] if marks else []
        if line:
            heights.append(curve(axis, line, colour, "--" if place >= len(theme.colours) else "-"))
        ends.append((heights[-1], f"layer {name}", colour))
    label_ends(axis, ends)


def _of_layer(log: Entries, key: str, name: str) -> list[Point]:
    return [(entry["step"], entry[key][name]) for entry in log if name in entry.get(key, {})]


def points(log: Entries, key: str) -> list[Point]:
    """`(step, value)` of the lines that have a figure of this name."""
    return [(entry["step"], entry[key]) for entry in log if key in entry]


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure of this many panels, at least one, two in a row."""
    columns = min(max(number, 1), 2)
    rows = math.ceil(max(number, 1) / columns)
    figure = new_figure(3.3 if rows == 1 else 2.9 * rows)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(max(number, 1))]
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return figure, axes


def curve(axis: Axes, line: Sequence[Point], colour: str, dashes: str = "-") -> float:
    """A line of at least one point; of dense ones the running mean, too. Its height at the end."""
    steps, values = np.array(line, dtype=float).T
    if len(line) > DENSE:
        axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
        window = len(line) // 40
        steps, values = steps[window - 1 :], np.convolve(values, np.ones(window) / window, mode="valid")
    axis.plot(steps, values, dashes, color=colour, marker="o" if len(line) == 1 else "")
    return float(values[-1])


def circles(axis: Axes, line: Sequence[Point], colour: str) -> float:
    """What was measured now and then, at least once; the last height."""
    steps, values = zip(*line, strict=True)
    axis.plot(steps, values, "o", ms=5, mfc=axis.get_facecolor(), color=colour)
    return float(values[-1])
