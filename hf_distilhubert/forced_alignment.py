"""When each word of a known text is said: the best path through CTC's frames that reads exactly this text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_distilhubert.ctc_decoding import LogProbabilities, Span
from hf_distilhubert.errors import UserError
from hf_distilhubert.tokens import labels_of

Scores = npt.NDArray[np.float32]


def align_labels(log_probabilities: LogProbabilities, labels: Sequence[int], blank: int) -> list[Span]:
    """The frames of each label on the most probable path (Viterbi over labels with blanks between them).

    Args:
        log_probabilities: `(frame, token)`.
        labels: ids of at least one token, none of them `blank`.
        blank: id of the CTC blank.

    Returns:
        A span for each label, with no text yet; its confidence is the label's highest probability in it.

    Raises:
        UserError: the text needs more frames than there are.
    """
    repeats = sum(first == second for first, second in pairwise(labels))
    if len(labels) + repeats > len(log_probabilities):
        raise UserError(
            f"the text needs at least {len(labels) + repeats} frames and the audio has "
            f"{len(log_probabilities)}; give the text of this audio"
        )
    path = _best_path(log_probabilities, np.asarray(labels), blank)
    starts = np.searchsorted(path, 2 * np.arange(len(labels)) + 1, side="left")
    ends = np.searchsorted(path, 2 * np.arange(len(labels)) + 1, side="right")
    return [
        Span("", int(start), int(end), float(np.exp(log_probabilities[start:end, label].max())))
        for label, start, end in zip(labels, starts, ends, strict=True)
    ]


def _best_path(
    log_probabilities: LogProbabilities, labels: npt.NDArray[np.int64], blank: int
) -> npt.NDArray[np.int64]:
    """The state of each frame: 2i + 1 is label i, 2i the blank before it.

    Of the scores only every n-th frame's are kept (n about the root of the number of frames), and of the
    moves those of n frames, which are computed anew on the way back: an hour with its whole text fits.
    """
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    # A blank may be left out between two labels that differ.
    skip = np.full(len(states), -np.inf, np.float32)
    skip[3::2] = np.where(labels[1:] == labels[:-1], -np.inf, 0.0)
    stretch = isqrt(len(log_probabilities)) + 1
    scores = np.full(len(states), -np.inf, np.float32)
    scores[0] = 0.0  # before the first frame
    kept = []
    for frame, row in enumerate(log_probabilities):
        if frame % stretch == 0:
            kept.append(scores)
        scores = _step(scores, row[states], skip)[0]
    path = np.empty(len(log_probabilities), np.int64)
    state = len(states) - 1 - int(scores[-2] > scores[-1])
    for number in reversed(range(len(kept))):
        first = number * stretch
        moves, scores = [], kept[number]
        for row in log_probabilities[first : first + stretch]:
            scores, move = _step(scores, row[states], skip)
            moves.append(move)
        for frame in reversed(range(len(moves))):
            path[first + frame] = state
            state -= int(moves[frame][state])
    return path


def _step(scores: Scores, emitted: Scores, skip: Scores) -> tuple[Scores, npt.NDArray[np.int8]]:
    """Scores after one more frame, and by how many states the best way to each moved on: 0, 1 or 2."""
    best, moves = scores.copy(), np.zeros(len(scores), np.int8)
    for move, before in ((1, scores[:-1]), (2, scores[:-2] + skip[2:])):
        better = before > best[move:]
        best[move:][better] = before[better]
        moves[move:][better] = move
    # The best is kept at nought, where float32 is fine; a probability of nought is possible, if unlikely.
    best += np.maximum(emitted, np.float32(-1e4))
    return best - best.max(), moves


def spell(text: str, tokenizer: Any, normalise: Callable[[str], str]) -> list[list[int]]:
    """The ids of each word of a text; what the vocabulary lacks is left out.

    Args:
        text: any.
        tokenizer: a stock `Wav2Vec2CTCTokenizer`.
        normalise: brings a text to what the model writes.

    Raises:
        UserError: a word has no character of the vocabulary, or there is no word.
    """
    words = text.split()
    if not words:
        raise UserError("there is no word in the text; give what is said in the audio")
    unknown = tokenizer.unk_token_id
    spelled = [[id_ for id_ in labels_of(tokenizer, normalise(word)) if id_ != unknown] for word in words]
    for word, ids in zip(words, spelled, strict=True):
        if not ids:
            raise UserError(
                f"no character of {word!r} is in the vocabulary; write it as it is spoken, or leave it out"
            )
    return spelled
