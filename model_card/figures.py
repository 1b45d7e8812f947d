"""The figures of a card: which there is something to draw for, each on a light and on a dark page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hf_distilhubert.benchmark_figure import draw_speed, drawable
from hf_distilhubert.curves import draw_distillation
from hf_distilhubert.figure_style import DARK, LIGHT, Theme
from model_card import figure_texts as texts
from model_card.facts import Facts
from model_card.figures_models import draw_comparison, draw_training
from model_card.figures_scores import draw_confusions, draw_groups, drawn_score, rated_groups

FOLDER = "figures"
# The parts of a split that are drawn, by the name of the figure.
GROUPS = {"wer_by_length": "clip length", "wer_by_speaker": "speaker"}
Draw = Callable[[Path, Theme], None]


@dataclass(frozen=True)
class Figure:
    """A figure as a card refers to it.

    Attributes:
        light: the PNG for a light page, relative to the card.
        dark: the PNG for a dark page.
        alt: what it shows, in words and numbers; plain text.
    """

    light: str
    dark: str
    alt: str


def draw_figures(facts: Facts, folder: Path) -> dict[str, Figure]:
    """Draw what there is data for into `folder/figures`; the same facts give the same bytes.

    Args:
        facts: of the model.
        folder: where the card lies. All files are drawn aside first: an error leaves those that were there.

    Returns:
        By name: `losses` (of a distillation), `training` (of a fine-tuning), `wer_by_length`,
        `wer_by_speaker`, `confusions`, `speed`, `comparison`.

    Raises:
        OSError: a file cannot be written.
    """
    found: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix=".figures.", dir=folder) as scratch:
        for name, draw, alt in _drawings(facts):
            light, dark = f"{name}.png", f"{name}-dark.png"
            draw(Path(scratch, light), LIGHT)
            draw(Path(scratch, dark), DARK)
            found[name] = Figure(f"{FOLDER}/{light}", f"{FOLDER}/{dark}", alt)
        if found:
            (folder / FOLDER).mkdir(exist_ok=True)
        for path in sorted(Path(scratch).iterdir()):
            path.replace(folder / FOLDER / path.name)
    return found


def _drawings(facts: Facts) -> Iterator[tuple[str, Draw, str]]:
    """Name, how it is drawn, and what it shows, of every figure that there is data for."""
    log, score, benchmark = facts.log, drawn_score(facts.scores), facts.benchmark
    if any(entry.get("l1") or entry.get("cosine") for entry in log):
        yield "losses", partial(draw_distillation, log), texts.losses(log)
    elif any({"loss", "eval_loss", "eval_wer", "eval_cer"} & set(entry) for entry in log):
        yield "training", partial(draw_training, log), texts.training(log)
    for name, column in GROUPS.items():
        if groups := rated_groups(score, column):
            yield name, partial(draw_groups, score, column), texts.groups(score, column, groups)
    if any(score.get("character_confusions", {}).values()):
        yield "confusions", partial(draw_confusions, score), texts.confusions(score)
    if drawable(benchmark):
        yield "speed", partial(draw_speed, benchmark), texts.speed(benchmark)
    if rows := facts.comparison.get("rows"):
        yield "comparison", partial(draw_comparison, rows), texts.comparison(rows)
