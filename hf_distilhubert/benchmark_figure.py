"""Size against speed against error, a row for each way."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from hf_distilhubert.figure_style import LIGHT, SMALL, Theme, label_bars, new_figure, save, styled
from hf_distilhubert.glyphs import legible

SECONDS = 5.0  # the clip whose speed is drawn, or the one nearest to it


def draw_speed(benchmark: Mapping[str, Any], path: str | Path, theme: Theme = LIGHT) -> None:
    """Draw seconds of sound per second, size and error of each way, the fastest first.

    Args:
        benchmark: what `benchmark.json` holds.
        path: of the PNG.
        theme: its colours.
    """
    work, mixed = drawn_work(benchmark)
    ways = fastest_first(benchmark)
    names = [textwrap.fill(legible(way["name"]), 20) for way in ways]
    # The model's own ways are those that the others are compared with.
    colours = [theme.colours[0] if way["name"] in benchmark["ratios"] else theme.other for way in ways]
    threads = benchmark["machine"]["threads"]
    with styled(theme, names, axes__grid__axis="x", ytick__major__size=0):
        figure = new_figure(1.5 + 0.42 * len(ways))
        speed, size, error = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 3))
        speeds = [speed_of(way, benchmark) for way in ways]
        bars = speed.barh(range(len(ways)), speeds, height=0.6, color=colours)
        label_bars(speed, bars, [f"{value:.0f}" for value in speeds], theme)
        speed.set(
            title=f"Speed, {work} clip", xlabel=f"s of speech per s, {threads:g} thread{'s' * (threads > 1)}"
        )
        sizes = [(way.get("file_bytes") or 0) / 1e6 for way in ways]
        bars = size.barh(range(len(ways)), sizes, height=0.6, color=colours)
        label_bars(size, bars, [f"{value:.3g}" if value else "not known" for value in sizes], theme)
        size.set(title="Size", xlabel="file in MB")
        _errors(error, [[way["deviations"].get(name) for way in ways] for name in (work, mixed)], theme)
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=SMALL, handletextpad=0.1)
        speed.set(yticks=range(len(ways)), yticklabels=names)
        speed.tick_params(axis="y", labelcolor=theme.ink)
        speed.set_ylim(len(ways) - 0.5, -0.5)
        save(figure, path)


def drawable(benchmark: Mapping[str, Any]) -> bool:
    """Whether a `benchmark.json`, perhaps of another version, holds all that the figure needs."""
    ways = benchmark.get("ways", [])
    if not ways or not {"name", "times", "audio", "deviations"} <= set.intersection(*map(set, ways)):
        return False
    if not {"clock", "ratios"} <= set(benchmark) or "threads" not in benchmark.get("machine", {}):
        return False
    if len(ways[0]["times"]) < 2:
        return False
    work, clock = drawn_work(benchmark)[0], benchmark["clock"]
    return all(way["audio"].get(work) and way["times"].get(work, {}).get(clock) for way in ways)


def drawn_work(benchmark: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the clip and of the mixed batch that the figure shows."""
    *works, mixed = benchmark["ways"][0]["times"]
    return min(works, key=lambda name: abs(float(name.split()[0]) - SECONDS)), mixed


def fastest_first(benchmark: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The ways in the order of the figure."""
    return sorted(benchmark["ways"], key=lambda way: -speed_of(way, benchmark))


def speed_of(way: Mapping[str, Any], benchmark: Mapping[str, Any]) -> float:
    """Seconds of speech that a way takes in a second, of the clip that the figure shows."""
    work, _ = drawn_work(benchmark)
    return float(way["audio"][work] / way["times"][work][benchmark["clock"]])


def _errors(axis: Axes, errors: Sequence[Sequence[float | None]], theme: Theme) -> None:
    """Dots on a logarithmic axis, of a clip alone and of the worst in a batch; 0 is at its left end."""
    known = [value for values in errors for value in values if value]
    left, right = min(known, default=1e-6) / 3, 3 * max(known, default=1.0)
    marks = (("o", theme.colours[0], "clip alone"), ("D", theme.colours[1], "in a batch"))
    for values, (marker, colour, label) in zip(errors, marks, strict=True):
        rows = [(max(value, left), row) for row, value in enumerate(values) if value is not None]
        if rows:
            axis.plot(
                *zip(*rows, strict=True), marker, ms=6, color=colour, label=label, clip_on=False, alpha=0.85
            )
    for row, value in enumerate(errors[0]):
        if value is None:
            place: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "ha": "center", "va": "center"}
            axis.text(0.5, row, "not compared", fontsize=SMALL, color=theme.faint, **place)
    axis.set(title="Error", xscale="log", xlabel="off from HubertModel", xlim=(left, right))
    axis.xaxis.set_major_locator(LogLocator(numticks=4))
    axis.xaxis.set_major_formatter("{x:.0e}")
    axis.xaxis.set_minor_locator(NullLocator())
