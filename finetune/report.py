"""A score as one HTML page that needs nothing else: figures, confusions, every utterance with its sound."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from finetune.alignments import align
from finetune.groups import Rates
from hf_distilhubert.audio import SAMPLING_RATE

if TYPE_CHECKING:
    from finetune.comparison import Score, Utterance
    from hf_distilhubert.speech_data import Clip

TEMPLATE = "report.html"
MAX_LISTED = 1_000  # utterances: more make a browser slow
MAX_GROUPS = 50


def write_report(
    path: Path,
    score: Score,
    clips: Sequence[Clip],
    *,
    title: Mapping[str, str | None],
    embed_audio: int | None = None,
) -> None:
    """Write the page.

    Args:
        path: the file.
        score: what it shows; the page will lie in `score.folder`.
        clips: where the sound is.
        title: names of the `model`, the `data` and the `split`.
        embed_audio: put the sound of so many of the worst utterances into the page and refer to no file, so
            that it can be sent; None plays the files where they lie.
    """
    listed = worst_first(score.utterances)[:MAX_LISTED]
    sounds = _linked(clips, score.folder) if embed_audio is None else _embedded(clips, listed[:embed_audio])
    alignments = align([u.reference for u in listed], [u.hypothesis for u in listed])
    text = _template().render(
        score=score,
        title=title,
        tables={column: _table(groups, score.wer) for column, groups in score.groups.items()},
        max_groups=MAX_GROUPS,
        rows=[
            {"utterance": utterance, "steps": steps, "sound": sounds.get(utterance.clip)}
            for utterance, steps in zip(listed, alignments, strict=True)
        ],
    )
    path.write_text(text, encoding="utf-8", errors="replace")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "interval": _interval,
        "letters": _letters,
    }
    return environment.get_template(TEMPLATE)


def worst_first(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Utterances with most wrong words first; of equally many, those with most wrong characters."""
    return sorted(utterances, key=lambda u: (-u.errors, -u.character_errors, u.clip))


# ----- sound ----------------------------------------------------------------------------------------------


def _linked(clips: Sequence[Clip], folder: Path) -> dict[str, str]:
    """Addresses of the clips that are files, relative to the page."""
    here = folder.resolve()
    return {
        clip.clip_id: quote(os.fsencode(Path(os.path.relpath(clip.audio.resolve(), here)).as_posix()))
        for clip in clips
        if isinstance(clip.audio, Path)
    }


def _embedded(clips: Sequence[Clip], utterances: Sequence[Utterance]) -> dict[str, str]:
    """The clips themselves as FLAC, which every browser plays."""
    import soundfile

    wanted = {utterance.clip for utterance in utterances}
    sounds = {}
    for clip in clips:
        if clip.clip_id in wanted:
            file = io.BytesIO()
            soundfile.write(file, clip.read(), SAMPLING_RATE, format="FLAC", subtype="PCM_16")
            encoded = base64.b64encode(file.getvalue()).decode()
            sounds[clip.clip_id] = f"data:audio/flac;base64,{encoded}"
    return sounds


# ----- figures --------------------------------------------------------------------------------------------


def _table(groups: Mapping[str, Rates], wer: float) -> dict[str, Any]:
    """The groups, or the worst of them where there are too many to read, and the right end of their bars."""
    if len(groups) > MAX_GROUPS:
        groups = dict(sorted(groups.items(), key=lambda item: -item[1].wer)[:MAX_GROUPS])
    ends = [max(rates.wer_interval or (rates.wer,)) for rates in groups.values()]
    return {"groups": groups, "scale": max(0.01, wer, *ends)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    """A difference of percentages."""
    return f"{100 * difference:+.1f}"


def _interval(ends: tuple[float, float] | None, points: bool = False) -> str:
    if ends is None:
        return "not known"
    if points:
        return " to ".join(map(_points, ends))
    return f"{100 * ends[0]:.1f} to {_percent(ends[1])}"


def _letters(text: str) -> str:
    """A space that can be seen."""
    return text.replace(" ", "␣")
