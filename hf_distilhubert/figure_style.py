"""One look for all figures: colours, fonts, sizes, on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from hf_distilhubert.glyphs import families

# At 200 dots per inch twice the 800 px that a card is wide at most; shown 700 px wide, 11 points are 13 px.
WIDTH, DOTS = 8.0, 200
SMALL = 10.0  # points: figures beside bars and points
LETTERS = 60  # small ones that stand side by side in the panels of a figure
# Labels at the ends of lines: between two of them this share of the panel's height, and at most so many.
GAP, MOST = 0.085, 12


@dataclass(frozen=True)
class Theme:
    """Colours for a page.

    Attributes:
        background: of the page; that of the Hub.
        ink: text.
        faint: text beside the text.
        other: bars of what is not ours.
        grid: lines behind the curves.
        colours: of curves and bars. Any two differ by 35 (CIE 1976) for eyes of all kinds, by the matrices
            of Machado et al. (2009), and from the background by a contrast of 3.3 at least.
    """

    background: str
    ink: str
    faint: str
    other: str
    grid: str
    colours: tuple[str, ...]


LIGHT = Theme(
    background="#FFFFFF",
    ink="#222222",
    faint="#666666",
    other="#9A9A9A",
    grid="#E6E6E6",
    colours=("#173AB9", "#DC6700", "#159E77", "#A973BE", "#793716", "#382933"),
)
DARK = Theme(
    background="#0B0F19",
    ink="#E5E7EB",
    faint="#9CA3AF",
    other="#6B7280",
    grid="#2A3140",
    colours=("#5496E9", "#DF5F2C", "#1DFE99", "#C17692", "#FFE446", "#D4FFFF"),
)


@contextmanager
def styled(theme: Theme, texts: Iterable[str] = (), **more: Any) -> Iterator[None]:
    """Draw in a theme while the block lasts, whatever a notebook has set before.

    Args:
        theme: the colours.
        texts: that are drawn and may need other fonts than the first.
        more: settings of matplotlib, with `__` for each dot.
    """
    settings: dict[str, Any] = {
        "font.family": families(texts),
        "font.size": 11,
        "text.color": theme.ink,
        "text.parse_math": False,
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.titlesize": 12,
        "axes.titlelocation": "left",
        "axes.titlecolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "lines.linewidth": 2,
        "lines.solid_capstyle": "round",
    }
    settings |= {name.replace("__", "."): value for name, value in more.items()}
    with matplotlib.style.context(["default", settings]):
        yield


def new_figure(height: float) -> Figure:
    """A figure of a card's width, `height` inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=DOTS, metadata={"Software": None})


def label_bars(axis: Axes, bars: BarContainer, labels: Sequence[str], theme: Theme) -> None:
    """Write figures at the ends of horizontal bars, and make room for them."""
    axis.bar_label(bars, labels, padding=4, fontsize=SMALL, color=theme.ink)
    spec = axis.get_subplotspec()
    room = LETTERS / (spec.get_gridspec().ncols if spec else 1)
    shares = [min((len(label) + 1) / room, 0.75) for label in labels]
    values = [patch.get_width() for patch in bars.patches]
    longest = max(value / (1 - share) for value, share in zip(values, shares, strict=True))
    axis.set_xlim(0, max(axis.get_xlim()[1], longest, 1e-9))


def label_ends(axis: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right ends of lines, none over another; of very many, some.

    Args:
        axis: with everything drawn.
        ends: last value, name and colour of each line.
    """
    axis.autoscale_view()
    scale = axis.transScale + axis.transLimits
    left = axis.get_xlim()[0]
    ends = ends[:: -(-len(ends) // MOST) or 1]
    rows = sorted((float(scale.transform((left, value))[1]), name, colour) for value, name, colour in ends)
    for (_, name, colour), height in zip(rows, _apart([row[0] for row in rows]), strict=True):
        axis.text(1.02, height, name, color=colour, va="center", fontsize=SMALL, transform=axis.transAxes)


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights that rise, moved until `GAP` lies between any two, and none is above the panel."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + GAP) if places else height)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], 1 - GAP * (len(places) - 1 - index))
    return places
