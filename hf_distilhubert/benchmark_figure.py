"""Size against speed against error, a row for each way, in the style of `curves.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_distilhubert.benchmark import BenchmarkResult
from hf_distilhubert.benchmark_ways import FAST
from hf_distilhubert.curves import COLOURS, STYLE, WIDTH, save

OURS, OTHERS, ALONE, IN_BATCH = COLOURS[0], "#999999", COLOURS[0], COLOURS[1]
SECONDS = 5.0  # the clip whose speed is drawn, or the one nearest to it


def draw_speed(result: BenchmarkResult, path: str | Path) -> None:
    """Draw seconds of sound per second, size and error of each way, the fastest first.

    Args:
        result: what was measured.
        path: of the PNG.
    """
    *works, mixed = result.ways[0].times
    work = min(works, key=lambda name: abs(float(name.split()[0]) - SECONDS))
    ways = sorted(result.ways, key=lambda way: way.real_time_factor(work, result.clock))
    colours = [OURS if way.name in FAST else OTHERS for way in ways]
    threads = result.machine.threads
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "ytick.major.size": 0}):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.38 * len(ways)), layout="constrained")
        speed, size, error = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 3))
        speeds = [1 / way.real_time_factor(work, result.clock) for way in ways]
        _bars(speed, speeds, [f"{value:.0f}" for value in speeds], colours)
        speed.set(
            title=f"Speed, {work} clip", xlabel=f"s of speech per s, {threads} thread{'s' * (threads > 1)}"
        )
        sizes = [(way.file_bytes or 0) / 1e6 for way in ways]
        _bars(size, sizes, [f"{value:.0f}" if value else "not known" for value in sizes], colours)
        size.set(title="Size", xlabel="file in MB")
        _errors(error, [[way.deviations.get(name) for way in ways] for name in (work, mixed)])
        speed.set(yticks=range(len(ways)), yticklabels=[textwrap.fill(way.name, 22) for way in ways])
        speed.tick_params(axis="y", labelcolor="#222222")
        speed.set_ylim(len(ways) - 0.5, -0.5)
        save(figure, path)


def _bars(axis: Axes, values: Sequence[float], labels: Sequence[str], colours: Sequence[str]) -> None:
    bars = axis.barh(range(len(values)), values, height=0.6, color=colours)
    axis.bar_label(bars, labels, padding=3, fontsize=9, color="#222222")
    axis.set_xlim(0, 1.25 * max(*values, 1e-9))


def _errors(axis: Axes, errors: Sequence[Sequence[float | None]]) -> None:
    """Dots on a logarithmic axis, of a clip alone and of the worst in a batch; 0 is at its left end."""
    known = [value for values in errors for value in values if value]
    left, right = min(known, default=1e-6) / 3, 3 * max(known, default=1.0)
    marks = (("o", ALONE, "alone"), ("D", IN_BATCH, "in a batch"))
    for values, (marker, colour, label) in zip(errors, marks, strict=True):
        rows = [(max(value, left), row) for row, value in enumerate(values) if value is not None]
        if rows:
            axis.plot(
                *zip(*rows, strict=True), marker, ms=6, color=colour, label=label, clip_on=False, alpha=0.85
            )
    for row, value in enumerate(errors[0]):
        if value is None:
            place: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "ha": "center", "va": "center"}
            axis.text(0.5, row, "not compared", fontsize=9, color="#777777", **place)
    axis.set(title="Error", xscale="log", xlabel="off from HubertModel", xlim=(left, right))
    legend = axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.04, 1.0),
        ncols=2,
        fontsize=9,
        borderaxespad=0.1,
        handletextpad=0.1,
        columnspacing=0.8,
    )
    legend.set_in_layout(False)  # it stands beside the title, where there is room
