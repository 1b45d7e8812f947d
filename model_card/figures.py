"""Figures for a card, in the style of `curves.py`, readable 800 px wide."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_distilhubert.curves import (
    COLOURS,
    STYLE,
    WIDTH,
    Entries,
    curve,
    draw_distillation,
    panels,
    points,
    save,
)
from model_card.wording import NOT_MEASURED, millions, percent

ERRORS = {"WER": "#D55E00", "CER": "#009E73"}


def draw_training(log: Entries, path: str | Path) -> None:
    """Training loss and, where it was measured, the evaluation's WER and CER against the step."""
    losses = points(log, "loss")
    errors = {name: points(log, f"eval_{name.lower()}") for name in ERRORS}
    # One evaluation is a figure in the text, not a curve; two make one.
    errors = {name: line for name, line in errors.items() if len(line) > (1 if losses else 0)}
    with mpl.rc_context(STYLE):
        figure, axes = panels(bool(losses) + bool(errors))
        if losses:
            curve(axes[0], losses, COLOURS[0])
            axes[0].set(title="Training", xlabel="step", ylabel="CTC loss")
        if errors:
            for name, line in errors.items():
                steps, shares = zip(*line, strict=True)
                axes[-1].plot(
                    steps, [100 * share for share in shares], "o-", ms=4, color=ERRORS[name], label=name
                )
            axes[-1].set(title="Evaluation", xlabel="step", ylabel="error (%)")
            axes[-1].set_ylim(bottom=0)
            axes[-1].legend()
        save(figure, path)


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
        save(figure, path)


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


# By the name of the file; a figure takes lines of a log, or rows, and a path.
DRAWINGS: dict[str, Callable[[Entries, Path], None]] = {
    "comparison": draw_comparison,
    "losses": draw_distillation,
    "training": draw_training,
}
