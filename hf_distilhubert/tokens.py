"""What the ids of a CTC tokenizer mean: its tokens, the labels of a text, and a file for other clients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def tokens_of(tokenizer: Any) -> list[str]:
    """All tokens in the order of their ids."""
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def characters_of(tokenizer: Any) -> set[str]:
    """The characters that a tokenizer can write, the space among them; some may be several in one token."""
    delimiter = tokenizer.word_delimiter_token
    return {" " if token == delimiter else token for token in tokens_of(tokenizer)} - special_tokens(
        tokenizer
    )


def split_text(text: str, units: Iterable[str] = ()) -> list[str]:
    """Cut a text into characters; where one of `units` stands, the longest is one piece."""
    longest = sorted(units, key=len, reverse=True)
    return re.findall("|".join((*map(re.escape, longest), ".")), text, re.DOTALL) if longest else list(text)


def pieces_of(tokenizer: Any, text: str) -> list[str]:
    """Cut a text into what has a token each, or would need one."""
    text = text.upper() if tokenizer.do_lower_case else text
    # All tokens of several characters, names such as "<pad>" among them, are "added" to a stock tokenizer.
    units = set(tokenizer.added_tokens_encoder) - special_tokens(tokenizer) - {tokenizer.word_delimiter_token}
    return split_text(text, units)


def labels_of(tokenizer: Any, text: str) -> list[int]:
    """The ids that CTC is to write for a normalised text.

    A stock tokenizer, asked itself, takes "<pad>" in a text for the blank, and forgets the space beside a
    token of several characters.
    """
    unknown, delimiter = tokenizer.unk_token_id, tokenizer.word_delimiter_token
    ids = {" ": tokenizer.word_delimiter_token_id}
    ids |= dict.fromkeys(special_tokens(tokenizer) | ({delimiter} - {" "}), unknown)
    return [ids.get(piece, tokenizer.encoder.get(piece, unknown)) for piece in pieces_of(tokenizer, text)]


def rust_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """The content of a `tokenizer.json`, from which transformers.js and `tokenizers` decode ids.

    As transformers.js makes it of a wav2vec2 model (its `scripts/extra/wav2vec2.py`).
    """
    delimiter = tokenizer.word_delimiter_token
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "CTC",
            "pad_token": tokenizer.pad_token,
            "word_delimiter_token": delimiter,
            # Only then "|" becomes a space. A space that is a token itself must not be tidied away.
            "cleanup": bool(delimiter.strip()),
        },
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(tokens_of(tokenizer))},
            "unk_token": tokenizer.unk_token,
        },
    }


def special_tokens(tokenizer: Any) -> set[Any]:
    """Tokens that stand for no character: blank, unknown, beginning and end (None where there is none)."""
    return {tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token}
