"""Figures of a score: error rates of the parts of a split with their intervals, characters mistaken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hf_distilhubert.figure_style import LIGHT, SMALL, Theme, label_bars, label_ends, new_figure, save, styled
from hf_distilhubert.glyphs import legible
from model_card.wording import count, counted, error_rate, percent

Rates = Mapping[str, Any]
NAMED = 16  # more parts than this are drawn in the order of their rates, without names
CONFUSED = 8  # of each kind
LONGEST = 24  # letters of a name
KINDS = {
    "substitutions": "Said → written",
    "deletions": "Left out",
    "insertions": "Added",
}
RATE = "word error rate (%), lines: 95 % intervals"


def drawn_score(scores: Mapping[str, Rates]) -> Rates:
    """The score that figures are drawn of: that of a test split, or else the one on the most words."""
    ranked = sorted(scores, key=lambda split: ("test" in split, scores[split].get("words", 0)))
    return {"split": ranked[-1], **scores[ranked[-1]]} if ranked else {}


def rated_groups(score: Rates, column: str) -> dict[str, Rates]:
    """The parts of a split that have a word error rate; none where there are not two to compare."""
    groups = {
        name: rates for name, rates in score.get("groups", {}).get(column, {}).items() if "wer" in rates
    }
    if column == "speaker":
        groups = dict(sorted(groups.items(), key=lambda item: (item[1]["wer"], item[0])))
    return groups if len(groups) > 1 else {}


def draw_groups(score: Rates, column: str, path: Path, theme: Theme = LIGHT) -> None:
    """Word error rates of the parts of a split, with 95 % intervals, and of the whole."""
    groups = rated_groups(score, column)
    if len(groups) > NAMED:
        _draw_ranks(list(groups.values()), score, column, path, theme)
        return
    title = f"Word error rate by {column} ({score['split']})"
    rows = [*groups.items(), ("all", score)]
    names = [f"{_short(legible(name))} ({_clips(rates)})" for name, rates in rows]
    with styled(theme, [*names, title], axes__grid__axis="x", ytick__major__size=0):
        figure = new_figure(1.1 + 0.34 * len(rows))
        axis = figure.subplots()
        for row, (_, rates) in enumerate(rows):
            _row(axis, row, rates, theme.ink if rates is score else theme.colours[0], theme)
        axis.set(title=legible(title), xlabel=RATE, yticks=range(len(rows)), yticklabels=names)
        axis.tick_params(axis="y", labelcolor=theme.ink, pad=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(left=0)
        save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _clips(rates: Rates) -> str:
    return (
        counted(rates["utterances"], "clip")
        if "utterances" in rates
        else counted(rates.get("words", 0), "word")
    )


def _row(axis: Axes, row: int, rates: Rates, colour: str, theme: Theme) -> None:
    """A dot on its interval, and the figures beside it."""
    if "wer" not in rates:
        return
    if len(ends := rates.get("wer_interval", [])) == 2:
        axis.hlines(row, 100 * ends[0], 100 * ends[1], color=colour, alpha=0.45, linewidth=5)
    axis.plot(100 * rates["wer"], row, "o", ms=8, color=colour, clip_on=False, zorder=3)
    place: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center"}
    axis.text(1.02, row, error_rate(rates, "wer"), fontsize=SMALL, color=theme.ink, **place)


def _draw_ranks(groups: Sequence[Rates], score: Rates, column: str, path: Path, theme: Theme) -> None:
    """Very many parts: a dot for each, the lowest rate first."""
    values = [100 * rates["wer"] for rates in groups]
    title = f"Word error rate of {len(groups)} {column}s ({score['split']})"
    with styled(theme, [title], axes__grid__axis="y"):
        figure = new_figure(3.3)
        axis = figure.subplots()
        ends = [rates.get("wer_interval", [rates["wer"]] * 2) for rates in groups]
        low, high = ([100 * end for end in side] for side in zip(*ends, strict=True))
        places = range(1, len(groups) + 1)
        axis.vlines(places, low, high, color=theme.colours[0], alpha=0.35, linewidth=1.5)
        axis.plot(places, values, "o", ms=3.5, color=theme.colours[0])
        labels = [(values[-1], f"highest {percent(groups[-1]['wer'])}", theme.colours[0])]
        if "wer" in score:
            axis.axhline(100 * score["wer"], color=theme.ink, linestyle="--", linewidth=1.2)
            labels.append((100 * score["wer"], f"all {percent(score['wer'])}", theme.ink))
        axis.set(
            title=legible(title),
            xlabel=f"{column}s in the order of their rates",
            ylabel=RATE.replace(", ", ",\n"),
        )
        axis.set_ylim(bottom=0)
        label_ends(axis, labels)
        save(figure, path)


def draw_confusions(score: Rates, path: Path, theme: Theme = LIGHT) -> None:
    """The characters that are most often taken for others, left out, or written without being said."""
    found = score["character_confusions"]
    kinds = {kind: found[kind][:CONFUSED] for kind in KINDS if found.get(kind)}
    texts = [
        entry.get(side, "")
        for entries in kinds.values()
        for entry in entries
        for side in ("reference", "hypothesis")
    ]
    with styled(theme, texts, axes__grid__axis="x", ytick__major__size=0):
        rows = max(map(len, kinds.values()))
        figure = new_figure(1.2 + 0.32 * rows)
        for axis, (kind, entries) in zip(
            figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
        ):
            names = [confused(entry) for entry in entries]
            bars = axis.barh(
                range(len(names)), [entry["count"] for entry in entries], 0.6, color=theme.colours[0]
            )
            label_bars(axis, bars, [_times(entry) for entry in entries], theme)
            axis.set(title=KINDS[kind], xlabel="times", yticks=range(len(names)), yticklabels=names)
            axis.tick_params(axis="y", labelcolor=theme.ink, labelsize="large")
            axis.set_ylim(rows - 0.5, -0.5)
            axis.xaxis.set_major_locator(MaxNLocator(2, integer=True, min_n_ticks=1))
        save(figure, path)


def confused(entry: Rates, form: Callable[[str], str] = legible) -> str:
    """`a → e`, or the one character that is there."""
    sides = [entry.get(side, "") for side in ("reference", "hypothesis")]
    return " → ".join("space" if side == " " else form(side) for side in sides if side)


def _times(entry: Rates) -> str:
    said = f" of {count(entry['said'])}" if entry.get("said") else ""
    return f"{count(entry['count'])}{said}"
