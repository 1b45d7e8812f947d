"""Figures for a card: one clean style, colours that colour-blind readers tell apart, readable 800 px wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_card.wording import NOT_MEASURED, millions, percent

Entries = Sequence[Mapping[str, Any]]
Point = tuple[float, float]

# Okabe and Ito's palette without its yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
ERRORS = {"WER": "#D55E00", "CER": "#009E73"}
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


def draw_losses(log: Entries, path: str | Path) -> None:
    """L1 and cosine loss of every predicted teacher layer against the step, from a distillation log."""
    with mpl.rc_context(STYLE):
        figure, axes = _panels(2)
        titles = {"l1": "L1 distance to the teacher", "cosine": "Cosine loss, -log sigmoid(similarity)"}
        for axis, (key, title) in zip(axes, titles.items(), strict=True):
            layers = sorted({layer for entry in log for layer in entry.get(key, {})}, key=int)
            for place, layer in enumerate(layers):
                points = [(entry["step"], entry[key][layer]) for entry in log if layer in entry.get(key, {})]
                # Past the palette's end the colours begin again, with dashes.
                dashes = "--" if place >= len(COLOURS) else "-"
                _curve(axis, points, COLOURS[place % len(COLOURS)], layer, dashes)
            axis.set(title=title, xlabel="step", ylabel="loss")
            axis.legend(title="teacher layer", ncols=math.ceil(len(layers) / 4))
        _save(figure, path)


def draw_training(log: Entries, path: str | Path) -> None:
    """Training loss and, where it was measured, the evaluation's WER and CER against the step."""
    losses = _points(log, "loss")
    errors = {name: _points(log, f"eval_{name.lower()}") for name in ERRORS}
    # One evaluation is a figure in the text, not a curve; two make one.
    errors = {name: points for name, points in errors.items() if len(points) > (1 if losses else 0)}
    with mpl.rc_context(STYLE):
        figure, axes = _panels(bool(losses) + bool(errors))
        if losses:
            _curve(axes[0], losses, COLOURS[0])
            axes[0].set(title="Training", xlabel="step", ylabel="CTC loss")
        if errors:
            for name, points in errors.items():
                steps, shares = zip(*points, strict=True)
                axes[-1].plot(
                    steps, [100 * share for share in shares], "o-", ms=4, color=ERRORS[name], label=name
                )
            axes[-1].set(title="Evaluation", xlabel="step", ylabel="error (%)")
            axes[-1].set_ylim(bottom=0)
            axes[-1].legend()
        _save(figure, path)


def draw_comparison(rows: Entries, path: str | Path) -> None:
    """WER and CER of several models beside their numbers of parameters, one row a model."""
    names = [textwrap.fill(str(row.get("model", "")), 24) for row in rows]
    places = np.arange(len(rows))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "ytick.major.size": 0}):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.75 * len(rows)), layout="constrained")
        errors, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for (name, colour), shift in zip(ERRORS.items(), (-0.19, 0.19), strict=True):
            shares = [row.get(name.lower()) for row in rows]
            labels = [percent(share) for share in shares]
            _bars(errors, places + shift, [100 * (share or 0) for share in shares], labels, colour, name)
        counts = [row.get("num_parameters") for row in rows]
        labels = [millions(number) for number in counts]
        _bars(sizes, places, [(number or 0) / 1e6 for number in counts], labels, "#777777")
        errors.set(title="Error", xlabel="error (%), less is better", yticks=places, yticklabels=names)
        errors.tick_params(axis="y", labelcolor="#222222")
        errors.set_ylim(len(rows) - 0.5, -0.5)
        errors.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        sizes.set(title="Size", xlabel="parameters (millions)")
        _save(figure, path)


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = [figure.add_subplot(1, max(number, 1), place + 1) for place in range(max(number, 1))]
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, axes


def _points(log: Entries, key: str) -> list[Point]:
    return [(entry["step"], entry[key]) for entry in log if key in entry]


def _curve(axis: Axes, points: Sequence[Point], colour: str, label: str = "_", dashes: str = "-") -> None:
    """A line; where points are dense a faint line, and its running mean over it."""
    steps, values = np.array(points, dtype=float).T
    if len(points) <= DENSE:
        axis.plot(steps, values, dashes, color=colour, label=label)
        return
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    window = len(points) // 40
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    axis.plot(steps[window - 1 :], mean, dashes, color=colour, label=label)


def _bars(
    axis: Axes, places: np.ndarray, lengths: Iterable[float], labels: list[str], colour: str, name: str = "_"
) -> None:
    """Horizontal bars with their figures at the end."""
    thickness = 0.34 if name != "_" else 0.5
    bars = axis.barh(places, list(lengths), height=thickness, color=colour, label=name)
    faint = [label == NOT_MEASURED for label in labels]
    for text, missing in zip(axis.bar_label(bars, labels, padding=4, fontsize=9), faint, strict=True):
        text.set_color("#999999" if missing else "#222222")
    # Room for the figures at the end of the longest bar.
    axis.set_xlim(0, 1.33 * max(axis.dataLim.x1, 1e-9))


def _save(figure: Figure, path: str | Path) -> None:
    figure.savefig(path, format="png", facecolor="white")
