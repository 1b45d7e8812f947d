"""Figures of a training and of several models side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from hf_distilhubert.curves import Entries, draw_loss, panels, points
from hf_distilhubert.figure_style import LIGHT, Theme, label_bars, label_ends, new_figure, save, styled
from hf_distilhubert.glyphs import legible
from model_card.wording import millions, percent

ERRORS = ("WER", "CER")


def draw_training(log: Entries, path: Path, theme: Theme = LIGHT) -> None:
    """Training loss and, where it was measured, the evaluation's loss, WER and CER against the step."""
    training, held_out = points(log, "loss"), points(log, "eval_loss")
    errors = {name: line for name in ERRORS if (line := points(log, f"eval_{name.lower()}"))}
    with styled(theme):
        figure, axes = panels(bool(training or held_out) + bool(errors))
        if training or held_out:
            draw_loss(axes[0], training, held_out, theme)
            axes[0].set(title="Training", xlabel="step", ylabel="CTC loss")
        ends = []
        for (name, line), colour in zip(errors.items(), theme.colours[1:], strict=False):
            steps, shares = zip(*line, strict=True)
            axes[-1].plot(steps, [100 * share for share in shares], "o-", ms=5, color=colour)
            ends.append((100 * shares[-1], f"{name} {percent(shares[-1])}", colour))
        if errors:
            axes[-1].set(title="Evaluation", xlabel="step", ylabel="error (%)")
            axes[-1].set_ylim(bottom=0)
            label_ends(axes[-1], ends)
        save(figure, path)


def draw_comparison(rows: Entries, path: Path, theme: Theme = LIGHT) -> None:
    """WER and CER of several models beside their numbers of parameters, one row a model."""
    names = [textwrap.fill(legible(str(row.get("model", ""))), 24) for row in rows]
    places = np.arange(len(rows))
    with styled(theme, names, axes__grid__axis="x", ytick__major__size=0):
        figure = new_figure(1.3 + 0.75 * len(rows))
        errors, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for name, colour, shift in zip(ERRORS, theme.colours[1:], (-0.19, 0.19), strict=False):
            shares = [row.get(name.lower()) for row in rows]
            bars = errors.barh(places + shift, [100 * (share or 0) for share in shares], 0.34, color=colour)
            label_bars(errors, bars, [f"{name} {percent(share)}" for share in shares], theme)
        counts = [row.get("num_parameters") for row in rows]
        bars = sizes.barh(places, [(number or 0) / 1e6 for number in counts], 0.5, color=theme.other)
        label_bars(sizes, bars, [millions(number) for number in counts], theme)
        errors.set(title="Error", xlabel="error (%), less is better", yticks=places, yticklabels=names)
        errors.tick_params(axis="y", labelcolor=theme.ink)
        errors.set_ylim(len(rows) - 0.5, -0.5)
        sizes.set(title="Size", xlabel="parameters (millions)")
        save(figure, path)
