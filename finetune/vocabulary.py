"""Text normalisation, the character vocabulary, and the processor that carries both."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_distilhubert.audio import feature_extractor
from hf_distilhubert.provenance import write_json

BLANK, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc`\u00b4\uff07", "'"))
TEXT_RULES = "text.json"


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
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

    characters = sorted(set().union(*texts) - {" "})
    vocabulary = {token: index for index, token in enumerate([BLANK, UNKNOWN, DELIMITER, *characters])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.json")
        path.write_text(json.dumps(vocabulary), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(
            str(path),
            pad_token=BLANK,
            unk_token=UNKNOWN,
            word_delimiter_token=DELIMITER,
            bos_token=None,
            eos_token=None,
            clean_up_tokenization_spaces=False,
        )
    extractor = feature_extractor(do_normalize=do_normalize)
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)


def tokens_of(tokenizer: Any) -> list[str]:
    """All tokens in the order of their ids."""
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def characters_of(tokenizer: Any) -> set[str]:
    """The characters that a tokenizer can write, the space among them."""
    special = {tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token}
    return {" " if t == tokenizer.word_delimiter_token else t for t in tokens_of(tokenizer)} - special


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


def save_processor(processor: Any, folder: Path, *, keep_case: bool) -> None:
    """Write what `AutoProcessor` reads, `preprocessor_config.json` for other clients, and the text rules."""
    processor.save_pretrained(folder)
    # The processor's own file says the same, but transformers.js and older clients look for this one.
    processor.feature_extractor.save_pretrained(folder)
    write_json(folder / TEXT_RULES, {"keep_case": keep_case})


def keeps_case(folder: str | Path, tokenizer: Any) -> bool:
    """Whether references are to keep their case: as at training, or else as the vocabulary has it."""
    path = Path(folder) / TEXT_RULES
    if path.is_file():
        return bool(json.loads(path.read_text(encoding="utf-8"))["keep_case"])
    return any(character.isupper() for character in characters_of(tokenizer))
