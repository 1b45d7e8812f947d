"""From the probabilities of CTC's frames to characters with frames and confidence.

A decoder is built from a tokenizer and called with the log-probabilities of one clip, in blocks of frames as
they come, so that the length of a clip costs it no more memory than it wants to spend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LogProbabilities = npt.NDArray[np.float32]  # (frame, token)


@dataclass(frozen=True)
class Span:
    """A character and the frames that it was read from, `start` to `end` (exclusive)."""

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True)
class Decoded:
    """What one clip says, as the tokenizer writes it and character by character, spaces among them."""

    text: str
    spans: tuple[Span, ...]


Decoder = Callable[[Iterable[LogProbabilities]], Decoded]


class GreedyDecoder:
    """The most probable token of each frame; repeats become one, blanks go (CTC's best path).

    Text and characters are those of the stock tokenizer, so `pipeline("automatic-speech-recognition")` says
    the same.

    Args:
        tokenizer: a stock `Wav2Vec2CTCTokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, blocks: Iterable[LogProbabilities]) -> Decoded:
        """Decode the log-probabilities of one clip; only token and probability of each frame are kept."""
        best = [(block.argmax(-1), np.exp(block.max(-1))) for block in blocks]
        tokens, probabilities = (np.concatenate(parts) for parts in zip(*best, strict=True))
        decoded = self.tokenizer.decode(tokens.tolist(), output_char_offsets=True)
        spans = (
            Span(
                offset["char"].lower() if self.tokenizer.do_lower_case else offset["char"],
                int(offset["start_offset"]),
                int(offset["end_offset"]),
                float(probabilities[offset["start_offset"] : offset["end_offset"]].max()),
            )
            for offset in decoded.char_offsets
        )
        return Decoded(decoded.text, tuple(spans))
