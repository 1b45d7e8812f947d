"""Live input: blocks of audio in, text out while it is being said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from hf_distilhubert.audio import MIN_SAMPLES, SAMPLING_RATE, Waveform, resampler

if TYPE_CHECKING:
    from hf_distilhubert.ctc_decoding import LogProbabilities
    from hf_distilhubert.transcriber import Transcriber

PAUSE = 0.8  # seconds without a character that end an utterance


@dataclass(frozen=True)
class Partial:
    """What has been said since the last pause.

    Attributes:
        text: as it looks now.
        settled: what it is without the last seconds, which may still change.
        start: where the utterance begins, in seconds since the beginning of the audio.
        end: how far the audio has been heard, likewise.
        final: whether a pause or the end of the audio ends the utterance; the next `Partial` begins anew.
    """

    text: str
    settled: str
    start: float
    end: float
    final: bool


def listen(
    transcriber: Transcriber,
    blocks: Iterable[Waveform],
    sampling_rate: int,
    *,
    step: float,
    margin: float,
    context: float,
) -> Iterator[Partial]:
    """See `Transcriber.stream`."""
    utterance, convert = _Utterance(transcriber, margin, context), resampler(sampling_rate)
    waiting = np.zeros(0, np.float32)
    for block, last in chain(((block, False) for block in blocks), [(waiting, True)]):
        waiting = np.concatenate([waiting, convert(block, last)])
        if last or len(waiting) >= step * SAMPLING_RATE:
            yield from utterance.hear(waiting, last)
            waiting = np.zeros(0, np.float32)


class _Utterance:
    """What is kept between two looks; positions are frames since the beginning of the audio.

    Attributes:
        held: the last samples.
        origin: the frame that begins with them.
        settled: the first frame that may still change.
        first: the first frame of the utterance.
        rows: log-probabilities from there on that do not change any more.
    """

    def __init__(self, transcriber: Transcriber, margin: float, context: float) -> None:
        self.acoustic, self.decode = transcriber.acoustic, transcriber.decode
        tokenizer = transcriber.processor.tokenizer
        self.silent = [transcriber.model.config.pad_token_id, tokenizer.word_delimiter_token_id]
        step = self.acoustic.frame_seconds
        self.margin, self.context, self.pause = (round(s / step) for s in (margin, context, PAUSE))
        self.held = np.zeros(0, np.float32)
        self.origin = self.settled = self.first = 0
        self.rows: list[LogProbabilities] = []

    def hear(self, sound: Waveform, last: bool) -> Iterator[Partial]:
        """Look at what is held with `sound` behind it; nothing comes of less than a frame."""
        self.held = np.concatenate([self.held, sound])
        if len(self.held) < MIN_SAMPLES:
            return
        [(_, found)] = self.acoustic.clips([self.held], 1)
        heard = np.concatenate(list(found))
        end = self.origin + len(heard)
        until = end if last else max(self.settled, end - self.margin)
        self.rows.append(heard[self.settled - self.origin : until - self.origin])
        settled, text = (
            self.decode(self.rows).text,
            self.decode([*self.rows, heard[until - self.origin :]]).text,
        )
        quiet = last or self._is_quiet()
        final = quiet and (last or bool(settled))
        step = self.acoustic.frame_seconds
        yield Partial(settled if final else text, settled, self.first * step, end * step, final)
        if quiet:
            self.rows, self.first = [], until
        self._forget(until)

    def _is_quiet(self) -> bool:
        """Whether the settled part ends in a pause."""
        best = np.concatenate([row.argmax(-1) for row in self.rows])
        return len(best) >= self.pause and bool(np.isin(best[-self.pause :], self.silent).all())

    def _forget(self, until: int) -> None:
        drop = max(until - self.context - self.origin, 0)
        self.held, self.origin = self.held[drop * self.acoustic.stride :], self.origin + drop
        self.settled = until
