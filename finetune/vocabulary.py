"""Text normalisation, and the character vocabulary of normalised texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hf_distilhubert.ctc import BLANK, DELIMITER, UNKNOWN, characters_of, ctc_processor

APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc`\u00b4\uff07", "'"))


def normalise_text(text: str, keep_case: bool = False) -> str:
    """Bring a transcript to what a recogniser writes: NFKC, lower case, one space between words.

    Dashes and underscores part words and become spaces; other punctuation, symbols and invisible characters
    go; apostrophes (straightened), digits, letters and combining marks stay.

    Args:
        text: a transcript.
        keep_case: leave upper case as it is.
    """
    text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES))
    text = text if keep_case else text.lower()
    # Once more, since lower case and removal can leave letters and accents that belong together.
    text = unicodedata.normalize("NFKC", "".join(_kept(character) for character in text))
    return " ".join(text.split())


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() or category in {"Pd", "Pc"}:
        return " "
    return character if character == "'" or category[0] not in "PSC" else ""


def build_processor(texts: Iterable[str], *, do_normalize: bool) -> Any:
    """A stock `Wav2Vec2Processor` whose tokenizer has the characters of `texts` and nothing else.

    Id 0 is the CTC blank and the padding, 1 stands for unknown characters, 2 parts words, and the characters
    follow in code point order. There are no tokens for beginning and end: they would have ids without logits.

    Args:
        texts: normalised transcripts of the training split.
        do_normalize: whether the model wants waveforms of zero mean and unit variance.
    """
    characters = sorted(set().union(*texts) - {" "})
    tokens = [BLANK, UNKNOWN, DELIMITER, *characters]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return ctc_processor(vocabulary, do_normalize=do_normalize)


def unknown_characters(texts: Iterable[str], tokenizer: Any) -> dict[str, int]:
    """Characters of `texts` that the tokenizer lacks, with their counts, most frequent first."""
    counts = Counter(character for text in texts for character in text)
    known = characters_of(tokenizer)
    return {character: count for character, count in counts.most_common() if character not in known}


def decode_labels(tokenizer: Any, labels: Iterable[int]) -> str:
    """The text of label ids with repeated letters; padding (-100) is left out, unknown ones are `�`."""
    tokens = tokenizer.convert_ids_to_tokens([label for label in labels if label >= 0])
    replaced = {tokenizer.word_delimiter_token: " ", tokenizer.unk_token: "\N{REPLACEMENT CHARACTER}"}
    return "".join(replaced.get(token, token) for token in tokens)
