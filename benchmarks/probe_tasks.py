"""What the probes are asked about real speech: which word is it (content), and whose voice (speaker)?"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.probes import Split
from hf_distilhubert.errors import UserError
from hf_distilhubert.speech_data import Clip, load_clips

FOLDS = 5


@dataclass(frozen=True)
class Task:
    """Something that is to be told from a clip.

    Attributes:
        name: as the table has it.
        kind: `content` or `speaker`.
        data: name of the recordings; the same for tasks on the same ones.
        clips: the recordings.
        labels: the answers.
        splits: which clips probes learn from, and which count.
    """

    name: str
    kind: str
    data: str
    clips: list[Clip]
    labels: list[str]
    splits: list[Split]

    @property
    def test_clips(self) -> int:
        """How many clips count."""
        return sum(len(split.test) for split in self.splits)

    @property
    def chance(self) -> float:
        """What guessing names right: the classes have equally many clips."""
        return 1 / len(set(self.labels))


def load_tasks(speech: Path, limit: int | None = None) -> list[Task]:
    """The tasks on `keywords`, `fsdd_digits` and the ten speakers of `librispeech_mini/sid_split.csv`.

    Args:
        speech: the folder of these sets.
        limit: at most so many clips for each answer (and voice), in each part of a set; None takes all.

    Raises:
        UserError: a set is not there.
    """
    words, word_parts = _labelled(speech / "keywords", limit)
    digits, digit_parts = _labelled(speech / "fsdd_digits", limit)
    readers, reader_parts = _readers(speech / "librispeech_mini", limit)
    spoken = [str(clip.text) for clip in words]
    said, voices = [str(clip.text) for clip in digits], [str(clip.speaker) for clip in digits]
    names = [str(clip.speaker) for clip in readers]
    content, speaker = ("content", "speaker")
    return [
        Task("keywords", content, "keywords", words, spoken, [_as_given(word_parts)]),
        Task("digits", content, "digits", digits, said, [_as_given(digit_parts)]),
        Task("digits, other voice", content, "digits", digits, said, _other_voices(digit_parts, voices)),
        Task("speakers", speaker, "readers", readers, names, [_as_given(reader_parts)]),
        Task("speakers, 5 folds", speaker, "readers", readers, names, _folds(names)),
        Task("voices of the digits", speaker, "digits", digits, voices, [_as_given(digit_parts)]),
    ]


def _labelled(folder: Path, limit: int | None) -> tuple[list[Clip], list[str]]:
    """The training and test clips of a set, and which they are."""
    clips: list[Clip] = []
    parts: list[str] = []
    for part in ("train", "test"):
        found = load_clips(folder, part, need_text=True).clips
        chosen = _first(found, [(clip.text, clip.speaker) for clip in found], limit)
        clips += chosen
        parts += [part] * len(chosen)
    return clips, parts


def _first(clips: Sequence[Clip], groups: Sequence[object], limit: int | None) -> list[Clip]:
    """The first clips of every group."""
    seen: Counter[object] = Counter()
    chosen = []
    for clip, group in zip(clips, groups, strict=True):
        seen[group] += 1
        if limit is None or seen[group] <= limit:
            chosen.append(clip)
    return chosen


def _readers(folder: Path, limit: int | None) -> tuple[list[Clip], list[str]]:
    """The clips of `sid_split.csv`, and which part each is in."""
    table = folder / "sid_split.csv"
    if not table.is_file():
        raise UserError(f"there is no {table}; give the folder that holds librispeech_mini")
    with table.open(encoding="utf-8", newline="") as file:
        parts = {row["file_name"]: row["sid_split"] for row in csv.DictReader(file)}
    found = [clip for clip in load_clips(folder, "test").clips if clip.clip_id in parts]
    clips = _first(found, [(clip.speaker, parts[clip.clip_id]) for clip in found], limit)
    return clips, [parts[clip.clip_id] for clip in clips]


def _as_given(parts: Sequence[str]) -> Split:
    """The set's own split; its validation clips stay out of it."""
    return Split(*([i for i, given in enumerate(parts) if given == part] for part in ("train", "test")))


def _other_voices(parts: Sequence[str], voices: Sequence[str]) -> list[Split]:
    """For each voice: learn from the training clips of the others, count on its test clips."""
    given = _as_given(parts)
    return [
        Split([i for i in given.train if voices[i] != voice], [i for i in given.test if voices[i] == voice])
        for voice in sorted(set(voices))
    ]


def _folds(names: Sequence[str]) -> list[Split]:
    """Every fifth clip of each speaker counts, the others are learned from; so in turn all count."""
    seen: Counter[str] = Counter()
    folds = []
    for name in names:
        folds.append(seen[name] % FOLDS)
        seen[name] += 1
    everyone = range(len(names))
    return [
        Split([i for i in everyone if folds[i] != fold], [i for i in everyone if folds[i] == fold])
        for fold in range(FOLDS)
    ]
