"""Subtitles: words gathered into cues that can be read, as SRT and WebVTT."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from hf_distilhubert.transcripts import Transcript, Word, join_word

# What subtitlers keep to (the BBC's and Netflix's guidelines are close to it).
LINE, LINES, LONGEST, SHORTEST = 42, 2, 7.0, 1.0
PAUSE = 0.8  # seconds without a word that end a cue


@dataclass(frozen=True)
class Cue:
    """What is shown from `start` to `end`, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Iterable[Word]) -> list[Cue]:
    """Gather words: a new cue after a pause, after 7 seconds, and where two lines of 42 characters are full.

    A cue stays for a second at least, if the next one lets it. A word that is longer than a line (in writing
    without spaces) is cut at the line's end.
    """
    groups: list[list[Word]] = []
    for word in (piece for whole in words for piece in _pieces(whole)):
        group = groups[-1] if groups else []
        if group and _fits(group, word):
            group.append(word)
        else:
            groups.append([word])
    found = [Cue(group[0].start, group[-1].end, _lines(group)) for group in groups]
    starts = [*(cue.start for cue in found[1:]), float("inf")]
    return [
        replace(cue, end=max(cue.end, min(cue.start + SHORTEST, following)))
        for cue, following in zip(found, starts, strict=False)
    ]


def _pieces(word: Word) -> Iterator[Word]:
    if len(word.text) <= LINE:
        yield word
        return
    for first in range(0, len(word.characters), LINE):
        yield join_word(list(word.characters[first : first + LINE]))


def _fits(group: Sequence[Word], word: Word) -> bool:
    return (
        word.start - group[-1].end <= PAUSE
        and word.end - group[0].start <= LONGEST
        and len(_lines([*group, word])) <= LINES
    )


def _lines(group: Sequence[Word]) -> tuple[str, ...]:
    text = " ".join(word.text for word in group)
    return tuple(textwrap.wrap(text, LINE, break_on_hyphens=False))


def srt(transcript: Transcript) -> str:
    """The subtitles of one file as SubRip."""
    return "".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_text(cue)}\n\n"
        for number, cue in enumerate(cues(transcript.words), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """The subtitles of one file as WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{escape(_text(cue), quote=False)}\n\n"
        for cue in cues(transcript.words)
    )


def _text(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
