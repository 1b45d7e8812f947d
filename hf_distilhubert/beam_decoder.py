"""Beam search as a decoder of `Transcriber`: its characters have frames and confidence too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_distilhubert.beam_search import BeamSearch, BeamSettings
from hf_distilhubert.ctc_decoding import Decoded, LogProbabilities, Span
from hf_distilhubert.errors import UserError
from hf_distilhubert.language_model import SPACE, read_language_model
from hf_distilhubert.tokens import special_tokens, tokens_of

HOT_WORD_BONUS = 5.0


class BeamDecoder:
    """The most probable text, not the text of the most probable tokens.

        Transcriber("runs/recogniser", decoder=partial(BeamDecoder, settings=BeamSettings(hot_words={…})))

    Args:
        tokenizer: a stock `Wav2Vec2CTCTokenizer`.
        settings: how to search.

    Raises:
        UserError: a hot word, or the whole language model, is in letters that the tokenizer lacks.
    """

    def __init__(self, tokenizer: Any, settings: BeamSettings) -> None:
        silent = special_tokens(tokenizer)
        written = ["" if token in silent else token for token in tokens_of(tokenizer)]
        if tokenizer.do_lower_case:
            written = [token.lower() for token in written]
        written[tokenizer.word_delimiter_token_id] = " "
        _refuse_others(set("".join(written)), settings)
        self._numbers = {token: number for number, token in enumerate(written) if token}
        self._search = BeamSearch(written, tokenizer.pad_token_id, settings)

    def __call__(self, blocks: Iterable[LogProbabilities]) -> Decoded:
        """Decode the log-probabilities of one clip; they are kept in float16 until it ends."""
        kept: list[LogProbabilities] = []
        found = self._search(_frames(blocks, kept))
        heard = np.concatenate(kept) if kept else np.zeros((0, 1), np.float16)
        best, spans = heard.argmax(-1), []
        ends = (*found.frames, len(heard))[1:]
        for token, start, limit in zip(found.tokens, found.frames, ends, strict=True):
            number, end = self._numbers[token], start + 1
            while end < limit and best[end] == number:
                end += 1
            confidence = np.exp(heard[start:end, number].astype(np.float32).max())
            spans.append(Span(token, start, end, float(confidence)))
        return Decoded(found.text, tuple(spans))


def _refuse_others(characters: set[str], settings: BeamSettings) -> None:
    """Refuse words in letters that are never written: upper case instead of lower, as a rule."""
    letters = "".join(sorted(characters)).strip()
    for word in settings.hot_words:
        if not set(word) <= characters:
            raise UserError(f"the hot word {word!r} cannot be written; this recogniser writes {letters}")
    model = settings.language_model
    if model and not any(set(word.replace(SPACE, " ")) <= characters for word in model.words):
        raise UserError(
            f"no word of the language model can be written; this recogniser writes {letters}: build one for "
            "it with finetune.language_model --model"
        )


def _frames(blocks: Iterable[LogProbabilities], kept: list[LogProbabilities]) -> Iterator[LogProbabilities]:
    for block in blocks:
        kept.append(block.astype(np.float16))
        yield from block.astype(np.float64)


def beam_decoder(
    *,
    language_model: str | Path | None = None,
    hot_words: Sequence[str] = (),
    **settings: Any,
) -> Callable[[Any], BeamDecoder]:
    """What `Transcriber` takes as its `decoder`.

    Args:
        language_model: an ARPA file.
        hot_words: words or phrases that are likely here; each may end in `:BONUS`.
        **settings: other fields of `BeamSettings`.

    Raises:
        UserError: the language model cannot be read, or a bonus is no number.
    """
    model = read_language_model(language_model) if language_model is not None else None
    hot = dict(_hot_word(word) for word in hot_words)
    chosen = BeamSettings(language_model=model, hot_words=hot, **settings)
    return partial(BeamDecoder, settings=chosen)


def _hot_word(given: str) -> tuple[str, float]:
    word, colon, bonus = given.rpartition(":")
    try:
        found = (word, float(bonus)) if colon else (given, HOT_WORD_BONUS)
    except ValueError:
        raise UserError(f"the bonus of the hot word {given!r} is no number; give WORD or WORD:5") from None
    if not found[0] or not math.isfinite(found[1]):
        raise UserError(f"{given!r} is no hot word; give WORD or WORD:5")
    return found
