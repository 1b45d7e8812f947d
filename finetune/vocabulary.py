"""The character vocabulary of normalised texts, and what of a text it leaves unknown."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hf_distilhubert.ctc import BLANK, DELIMITER, UNKNOWN, ctc_processor
from hf_distilhubert.tokens import characters_of, pieces_of, split_text


def build_processor(
    texts: Iterable[str],
    *,
    do_normalize: bool,
    min_count: int = 1,
    digraphs: Sequence[str] = (),
    graphemes: bool = False,
) -> Any:
    """A stock `Wav2Vec2Processor` whose tokenizer has the characters of `texts` and nothing else.

    Id 0 is the CTC blank and the padding, 1 stands for unknown characters, 2 parts words, and the characters
    follow in code point order. There are no tokens for beginning and end: they would have ids without logits.

    Characters of several code points are decoded by plain Transformers and transformers.js like any other.
    Labels are another matter: `hf_distilhubert.tokens.labels_of` makes them, while a stock tokenizer loses
    the space beside such a token unless the text has "|" in its place.

    Args:
        texts: normalised transcripts of the training split.
        do_normalize: whether the model wants waveforms of zero mean and unit variance.
        min_count: characters that the texts have fewer times than this get no token of their own.
        digraphs: letters of several characters that get one token each, such as "ch" and "dž".
        graphemes: give a letter and its combining marks one token together.
    """
    found: Counter[str] = Counter()
    for text in texts:
        found.update(characters(text, digraphs=digraphs, graphemes=graphemes))
    # The delimiter itself cannot be told from a space.
    kept = sorted(c for c, count in found.items() if count >= min_count and c not in {" ", DELIMITER})
    tokens = [BLANK, UNKNOWN, DELIMITER, *kept]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return ctc_processor(vocabulary, do_normalize=do_normalize)


def characters(text: str, *, digraphs: Sequence[str] = (), graphemes: bool = False) -> list[str]:
    """Cut a text into what gets a token each; see `build_processor`."""
    pieces = split_text(text, digraphs)
    if not graphemes:
        return pieces
    whole: list[str] = []
    for piece in pieces:
        if whole and whole[-1] != " " and unicodedata.category(piece[0])[0] == "M":
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole


def unknown_characters(texts: Iterable[str], tokenizer: Any) -> dict[str, int]:
    """Characters of `texts` that the tokenizer lacks, with their counts, most frequent first."""
    counts = Counter(piece for text in texts for piece in pieces_of(tokenizer, text))
    known = characters_of(tokenizer)
    return {character: count for character, count in counts.most_common() if character not in known}


def unknown_share(texts: Sequence[str], tokenizer: Any) -> float:
    """The part of all characters that the tokenizer lacks, 0.05 = 5 %."""
    total = sum(len(pieces_of(tokenizer, text)) for text in texts)
    return sum(unknown_characters(texts, tokenizer).values()) / max(total, 1)


def decode_labels(tokenizer: Any, labels: Iterable[int]) -> str:
    """The text of label ids with repeated letters; padding (-100) is left out, unknown ones are `�`."""
    tokens = tokenizer.convert_ids_to_tokens([label for label in labels if label >= 0])
    replaced = {tokenizer.word_delimiter_token: " ", tokenizer.unk_token: "\N{REPLACEMENT CHARACTER}"}
    return "".join(replaced.get(token, token) for token in tokens)
