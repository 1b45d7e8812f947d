"""Two models on the same speech: how far their word error rates differ, and whether that is chance."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.alignments import align, error_counts
from finetune.intervals import Interval, Units, paired_p_value, rate_interval
from hf_distilhubert.errors import UserError

if TYPE_CHECKING:
    from finetune.comparison import Utterance

RESULTS, UTTERANCES = "results.json", "utterances.csv"


@dataclass(frozen=True)
class OtherScore:
    """What `finetune.score` wrote about another model.

    Attributes:
        name: where it was read.
        model: its name.
        texts: reference and hypothesis of each clip.
    """

    name: str
    model: str
    texts: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Difference:
    """A model against another one, on the utterances that both have heard.

    Attributes:
        model: the other one.
        utterances: that both have, by clip and reference.
        words: of their references.
        wer: of this model on them.
        other_wer: of the other one.
        difference: `wer - other_wer`; below 0, this model is the better one.
        interval: both ends of its 95 % interval (paired bootstrap); None where no spread is seen.
        p_value: of approximate randomisation, two-sided.
        resampled: what is drawn, `speakers` or `utterances`.
        only_here: clips that the other one has not, or with another reference.
        only_there: clips of the other one that are not here, or with another reference.
    """

    model: str
    utterances: int
    words: int
    wer: float
    other_wer: float
    difference: float
    interval: Interval | None
    p_value: float
    resampled: str
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]


def read_other(path: str | Path) -> OtherScore:
    """Read an earlier score.

    Args:
        path: its folder, or the `results.json` in it.

    Raises:
        UserError: there is no such score, or it is damaged.
    """
    folder = Path(path).parent if Path(path).name == RESULTS else Path(path)
    if not (folder / RESULTS).is_file() or not (folder / UTTERANCES).is_file():
        raise UserError(
            f"--against {path}: no {RESULTS} with an {UTTERANCES} beside it; give what finetune.score wrote"
        )
    try:
        figures = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        texts = _read_texts(folder / UTTERANCES)
        if len(texts) != figures["utterances"]:
            raise ValueError(f"{len(texts)} of {figures['utterances']} utterances are there")
        return OtherScore(str(path), str(figures["model"]), texts)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"--against {path}: damaged ({error!r}); score that model again") from error


def _read_texts(path: Path) -> dict[str, tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    if any(None in row.values() for row in rows):
        raise ValueError("a row is cut off")
    return {row["clip"]: (row["reference"], row["hypothesis"]) for row in rows}


def difference(utterances: Sequence[Utterance], other: OtherScore) -> Difference:
    """Compare on the utterances that both have.

    Raises:
        UserError: there are none.
    """
    both = [u for u in utterances if other.texts.get(u.clip, ("", ""))[0] == u.reference]
    if not both:
        raise UserError(
            f"--against {other.name}: no clip with the same reference in both; give a score on the same data "
            "and split, with the same rules for texts"
        )
    shared = {utterance.clip for utterance in both}
    # Counted anew, so that both are counted alike.
    steps = align([u.reference for u in both], [other.texts[u.clip][1] for u in both])
    others = [error_counts(alignment).errors for alignment in steps]
    errors, words = [u.errors for u in both], [u.words for u in both]
    apart = [ours - theirs for ours, theirs in zip(errors, others, strict=True)]
    units = Units.of([u.speaker for u in both])
    return Difference(
        model=other.model,
        utterances=len(both),
        words=sum(words),
        wer=sum(errors) / sum(words),
        other_wer=sum(others) / sum(words),
        difference=sum(apart) / sum(words),
        interval=rate_interval(apart, words, units),
        p_value=paired_p_value(apart, units),
        resampled=units.kind,
        only_here=tuple(u.clip for u in utterances if u.clip not in shared),
        only_there=tuple(clip for clip in other.texts if clip not in shared),
    )
