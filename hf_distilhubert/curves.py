"""The curves of a training run as a picture, in colours that colour-blind readers tell apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Entries = Sequence[Mapping[str, Any]]
Point = tuple[float, float]

# Okabe and Ito's palette without its yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
WIDTH = 8.0  # inches; at 200 dots per inch twice the 800 px of a card, for sharp text on dense screens
STYLE: dict[Any, Any] = {
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
# More points than this are drawn faint, with their running mean over a fortieth of them.
DENSE = 80


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]


def draw_distillation(log: Entries, path: str | Path) -> None:
    """Loss and gradient norm, L1 and cosine of every predicted layer, against the step.

    Args:
        log: lines of a distillation's `log.jsonl`; circles are the held-out clips.
        path: of the PNG.
    """
    held_out = [{"step": entry["step"], **entry["held_out"]} for entry in log if "held_out" in entry]
    with mpl.rc_context(STYLE):
        figure, axes = panels(4)
        curve(axes[0], points(log, "loss"), COLOURS[0], "training")
        _circles(axes[0], points(held_out, "loss"), COLOURS[0], "held out")
        axes[0].set(title="Loss", xlabel="step", ylabel="L1 + cosine loss")
        axes[0].legend()
        curve(axes[1], points(log, "grad_norm"), COLOURS[0])
        axes[1].set(title="Gradient norm, before it is clipped", xlabel="step", ylabel="norm")
        _layers(axes[2], log, held_out, "l1")
        axes[2].set(title="L1 distance to the teacher", xlabel="step", ylabel="loss")
        _layers(axes[3], log, held_out, "cosine")
        axes[3].set(title="Cosine loss, -log sigmoid(similarity)", xlabel="step", ylabel="loss")
        save(figure, path)


def _layers(axis: Axes, log: Entries, held_out: Entries, key: str) -> None:
    """A curve for each predicted layer."""
    names = list(dict.fromkeys(name for entry in (*log, *held_out) for name in entry.get(key, {})))
    for place, name in enumerate(names):
        # Past the palette's end the colours begin again, with dashes.
        colour, dashes = COLOURS[place % len(COLOURS)], "--" if place >= len(COLOURS) else "-"
        curve(axis, _of_layer(log, key, name), colour, name, dashes)
        _circles(axis, _of_layer(held_out, key, name), colour)
    if names:
        axis.legend(title="teacher layer", ncols=math.ceil(len(names) / 4))


def _of_layer(log: Entries, key: str, name: str) -> list[Point]:
    return [(entry["step"], entry[key][name]) for entry in log if name in entry.get(key, {})]


def points(log: Entries, key: str) -> list[Point]:
    """`(step, value)` of the lines that have a figure of this name."""
    return [(entry["step"], entry[key]) for entry in log if key in entry]


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure of this many panels, at least one, two in a row."""
    columns = min(max(number, 1), 2)
    rows = math.ceil(max(number, 1) / columns)
    figure = Figure(figsize=(WIDTH, 3.3 if rows == 1 else 2.9 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(max(number, 1))]
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, axes


def curve(axis: Axes, line: Sequence[Point], colour: str, label: str = "_", dashes: str = "-") -> None:
    """A line; where points are dense a faint line, and its running mean over it."""
    if not line:
        return
    steps, values = np.array(line, dtype=float).T
    if len(line) <= DENSE:
        axis.plot(steps, values, dashes, color=colour, label=label)
        return
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    window = len(line) // 40
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    axis.plot(steps[window - 1 :], mean, dashes, color=colour, label=label)


def _circles(axis: Axes, line: Sequence[Point], colour: str, label: str = "_") -> None:
    if line:
        steps, values = zip(*line, strict=True)
        axis.plot(steps, values, "o", ms=5, mfc="white", color=colour, label=label)


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG on white."""
    figure.savefig(path, format="png", facecolor="white")
