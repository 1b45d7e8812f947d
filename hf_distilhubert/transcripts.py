"""What was heard: words and characters with their times, as text, JSON lines or a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from statistics import fmean


@dataclass(frozen=True)
class Character:
    """One token of a word.

    Times are those of the CTC frames that it was read from, one every 20 ms: from the beginning of the first
    to the end of the last, in seconds. CTC says where a character was recognised, which is inside its sound
    or a little beside it; it does not say where the sound begins and ends, and often sets the end too early.

    Attributes:
        text: what it writes.
        start: seconds from the beginning of the audio.
        end: likewise.
        confidence: the highest probability that it has in one of its frames, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Word:
    """Characters between two spaces; from the first to the last, with the mean of their confidences."""

    text: str
    start: float
    end: float
    confidence: float
    characters: tuple[Character, ...]


@dataclass(frozen=True)
class Transcript:
    """What is said in one file.

    Attributes:
        audio: name of the file.
        text: as the model's tokenizer writes it.
        seconds: length of the audio.
        words: the same with times and confidence.
    """

    audio: str
    text: str
    seconds: float
    words: tuple[Word, ...] = ()


def group_words(characters: Iterable[Character]) -> Iterator[Word]:
    """Words out of characters, some of which are white space."""
    word: list[Character] = []
    for character in characters:
        if not character.text.isspace():
            word.append(character)
        elif word:
            yield join_word(word)
            word = []
    if word:
        yield join_word(word)


def join_word(characters: list[Character], text: str | None = None) -> Word:
    """One word of its characters, written as `text` if that is given."""
    return Word(
        text="".join(character.text for character in characters) if text is None else text,
        start=characters[0].start,
        end=characters[-1].end,
        confidence=fmean(character.confidence for character in characters),
        characters=tuple(characters),
    )


# ----- ways to write a transcript -------------------------------------------------------------------------

TABLE_HEADER = "audio\tstart\tend\tword\tconfidence\n"


def json_line(transcript: Transcript) -> str:
    """All that is known, as one line of JSON."""
    return f"{json.dumps(_rounded(asdict(transcript)), ensure_ascii=False)}\n"


def table_rows(transcript: Transcript) -> str:
    """A line for each word (see `TABLE_HEADER`), separated by tabs."""
    return "".join(
        f"{transcript.audio}\t{word.start:.2f}\t{word.end:.2f}\t{word.text}\t{word.confidence:.4f}\n"
        for word in transcript.words
    )


def _rounded(value: object) -> object:
    """Times are multiples of a frame, and no confidence has more than four digits that mean something."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
