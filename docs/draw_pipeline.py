"""Draw `docs/pipeline.svg` and `.png`: the way from a checkpoint or a teacher to a model card.

python docs/draw_pipeline.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

DOCS = Path(__file__).resolve().parent
INK, FAINT, LINE = "#1F2D3A", "#55636F", "#6B7986"
Point = tuple[float, float]
# Width and height of the picture and of a box, in inches.
SIZE = (12.2, 3.62)
BOX = (1.42, 0.98)


class Look(NamedTuple):
    """How a kind of box is drawn."""

    fill: str
    edge: str
    font: str


THING = Look("#FFFFFF", "#9AA7B2", "sans-serif")  # lies on a disk or the Hub
COMMAND = Look("#E1EFF9", "#0072B2", "monospace")  # makes one thing of another

TOP, MIDDLE, BOTTOM = 3.06, 1.81, 0.56

# name: centre in inches, title, what it is, look
BOXES = {
    "checkpoint": ((0.85, TOP), "S3PRL\ncheckpoint", "a .ckpt file", THING),
    "teacher": ((0.85, BOTTOM), "any speech\nteacher", "HuBERT, …", THING),
    "conversion": ((2.6, TOP), "conversion/", "both ways,\nbit for bit", COMMAND),
    "distill": ((2.6, BOTTOM), "distilhubert\ndistill", "layer by layer", COMMAND),
    "student": ((4.35, MIDDLE), "student\nfolder", "HubertModel", THING),
    "finetune": ((6.1, MIDDLE), "finetune/", "CTC on\ntranscripts", COMMAND),
    "recogniser": ((7.85, MIDDLE), "recogniser\nfolder", "HubertForCTC", THING),
    "transcribe": ((7.85, TOP), "distilhubert\ntranscribe", "speech to text", COMMAND),
    "score": ((7.85, BOTTOM), "finetune/\nscore", "WER, CER, speed", COMMAND),
    "card": ((9.6, MIDDLE), "model_card/", "what was made\nand measured", COMMAND),
    "readme": ((11.35, MIDDLE), "README\nof the model", "and figures", THING),
}
# From, to, arrow heads.
ARROWS = (
    ("checkpoint", "conversion", "<|-|>"),
    ("teacher", "distill", "-|>"),
    ("conversion", "student", "<|-|>"),
    ("distill", "student", "-|>"),
    ("student", "finetune", "-|>"),
    ("finetune", "recogniser", "-|>"),
    ("recogniser", "transcribe", "-|>"),
    ("recogniser", "score", "-|>"),
    ("recogniser", "card", "-|>"),
    ("score", "card", "-|>"),
    ("card", "readme", "-|>"),
)


def draw() -> Figure:
    """The whole picture, one unit an inch."""
    figure = Figure(figsize=SIZE)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axis.set_axis_off()
    for start, end, heads in ARROWS:
        _arrow(axis, BOXES[start][0], BOXES[end][0], heads)
    for centre, title, note, look in BOXES.values():
        _box(axis, centre, title, note, look)
    return figure


def _box(axis: Axes, centre: Point, title: str, note: str, look: Look) -> None:
    x, y = centre
    corner = (x - BOX[0] / 2, y - BOX[1] / 2)
    shape = "round,pad=0,rounding_size=0.1"
    axis.add_patch(FancyBboxPatch(corner, *BOX, boxstyle=shape, fc=look.fill, ec=look.edge, lw=1.4))
    # Title and note stand as one block of three lines in the middle of the box.
    lines = title.count("\n") + 1
    top = y + 0.335
    text: dict[str, Any] = {"ha": "center", "va": "top", "linespacing": 1.2}
    axis.text(x, top, title, fontsize=11.5, weight="bold", color=INK, family=look.font, **text)
    axis.text(x, top - 0.235 * lines, note, fontsize=10, color=FAINT, **text)


def _arrow(axis: Axes, start: Point, end: Point, heads: str) -> None:
    """Straight within a row or a column, otherwise out at the side and round one corner."""
    (x0, y0), (x1, y1) = start, end
    up = BOX[1] / 2 if y1 > y0 else -BOX[1] / 2
    leave = (x0, y0 + up) if x0 == x1 else (x0 + BOX[0] / 2, y0)
    enter = (x1 - BOX[0] / 2, y1) if y0 == y1 else (x1, y1 - up)
    straight = x0 == x1 or y0 == y1
    arrow = FancyArrowPatch(
        leave,
        enter,
        arrowstyle=heads,
        connectionstyle="arc3" if straight else "angle,angleA=0,angleB=90,rad=10",
        mutation_scale=13,
        color=LINE,
        lw=1.5,
        shrinkA=3,
        shrinkB=3,
    )
    axis.add_patch(arrow)


def main() -> None:
    """Write both pictures, the same bytes every time."""
    style: dict[Any, Any] = {"svg.hashsalt": "pipeline", "svg.fonttype": "path"}
    with mpl.rc_context(style):
        figure = draw()
        figure.savefig(DOCS / "pipeline.svg", facecolor="white", metadata={"Date": None})
        figure.savefig(DOCS / "pipeline.png", facecolor="white", dpi=140, metadata={"Software": None})


if __name__ == "__main__":
    main()
