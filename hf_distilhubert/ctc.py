"""What makes a model a recogniser: its processor, the settings of CTC, and a head that starts afresh."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_distilhubert.audio import feature_extractor
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.loading import load
from hf_distilhubert.provenance import write_json
from hf_distilhubert.students import NO_MASKING
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.tokens import rust_tokenizer

BLANK, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
# By what these tokens are known in a vocabulary that comes without a tokenizer: what they stand for, names.
SPECIAL = {
    "blank": ("the CTC blank", (BLANK, "[PAD]")),
    "unknown": ("unknown characters", (UNKNOWN, "[UNK]")),
    "delimiter": ("the space between words", (DELIMITER, " ")),
}
VOCABULARY, RUST_TOKENIZER = "vocab.json", "tokenizer.json"
EXPECTED = 'expected one object of tokens and ids, such as {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}'


# ----- the processor --------------------------------------------------------------------------------------


def ctc_processor(
    vocabulary: Mapping[str, int],
    *,
    do_normalize: bool,
    blank: str = BLANK,
    unknown: str = UNKNOWN,
    delimiter: str = DELIMITER,
) -> Any:
    """A stock `Wav2Vec2Processor` whose tokenizer has exactly the tokens of `vocabulary`.

    It knows no tokens for beginning and end: the stock ones would have ids without logits. Where the
    vocabulary holds them, they are ids like any other.

    Args:
        vocabulary: id of each token, 0 to n - 1.
        do_normalize: whether the model wants waveforms of zero mean and unit variance.
        blank: the token of the CTC blank, which is also the padding.
        unknown: the token for characters that the vocabulary lacks.
        delimiter: the token for the space between words; Transformers loads no other than `|` and the space.
    """
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, VOCABULARY)
        path.write_text(json.dumps(dict(vocabulary)), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(
            str(path),
            pad_token=blank,
            unk_token=unknown,
            word_delimiter_token=delimiter,
            bos_token=None,
            eos_token=None,
            clean_up_tokenization_spaces=False,
        )
    extractor = feature_extractor(do_normalize=do_normalize)
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)


def load_vocabulary(source: str | Path, *, do_normalize: bool = False) -> Any:
    """A stock `Wav2Vec2Processor` with a vocabulary that exists: the ids stay what they are.

    Args:
        source: a `vocab.json` (token to id), or a folder or Hub repository with a CTC tokenizer. Nothing in
            it is run, and its feature extractor is left aside: how waveforms are heard is the student's
            matter.
        do_normalize: whether the student wants waveforms of zero mean and unit variance.

    Raises:
        UserError: there is no such vocabulary, its ids are not 0 to n - 1, or a token that CTC needs is not
            in it.
    """
    file = _bare_file(Path(source))
    vocabulary, own = _tokenizer_vocabulary(source) if file is None else (_read_vocabulary(file), {})
    _check_ids(vocabulary, source)
    special = {role: _special_token(role, own.get(role), vocabulary, source) for role in SPECIAL}
    return ctc_processor(vocabulary, do_normalize=do_normalize, **special)


def save_processor(processor: Any, folder: Path, rules: TextRules) -> None:
    """Write what `AutoProcessor` reads, the text rules, and the files that other clients look for.

    Args:
        processor: of the recogniser.
        folder: where its weights lie.
        rules: what its texts were normalised with.
    """
    processor.save_pretrained(folder)
    # The processor's own file says the same, but transformers.js and older clients look for this one.
    processor.feature_extractor.save_pretrained(folder)
    # Transformers passes over it: its tokenizer for CTC is one in Python.
    write_json(folder / RUST_TOKENIZER, rust_tokenizer(processor.tokenizer))
    rules.save(folder)


# ----- the model ------------------------------------------------------------------------------------------


def ctc_settings(tokenizer: Any) -> dict[str, Any]:
    """What the model's config must say: the head from the tokenizer, and no setting that harms CTC.

    The sum over a batch would tie the learning rate to its size; LayerDrop and SpecAugment (which fails on
    clips under ten frames) take more from a model of two layers than they give.
    """
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "ctc_loss_reduction": "mean",
        "ctc_zero_infinity": True,
        **NO_MASKING,
    }


def reset_head(head: Any, deviation: float) -> None:
    """Start an output layer from nothing, also one of the right size that belongs to other characters."""
    import torch

    torch.nn.init.normal_(head.weight, std=deviation)
    torch.nn.init.zeros_(head.bias)


# ----- a vocabulary that was given ------------------------------------------------------------------------


def _bare_file(source: Path) -> Path | None:
    """The `vocab.json` that comes without a tokenizer's settings; None where a tokenizer has to be loaded."""
    if source.is_file():
        return source
    if source.suffix == ".json" and not source.is_dir():
        raise UserError(f"there is no file {source}; give a {VOCABULARY}, or a folder with a CTC tokenizer")
    if not source.is_dir():
        return None
    if not (source / VOCABULARY).is_file():
        raise UserError(f"{source} holds no {VOCABULARY}; give one, or a folder with a CTC tokenizer")
    return None if (source / "tokenizer_config.json").is_file() else source / VOCABULARY


def _read_vocabulary(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({one_line(error, 200)}); {EXPECTED}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; {EXPECTED}")
    languages = [name for name, part in value.items() if isinstance(part, dict)]
    if languages:
        raise UserError(
            f"{path} is nested by language, as that of MMS is (here {len(languages)}, such as "
            f"{languages[0]!r}); save the part of one language as a file of its own and give that"
        )
    return value


def _tokenizer_vocabulary(source: str | Path) -> tuple[dict[str, int], dict[str, str | None]]:
    """Every token of a tokenizer with its id, and its own names for the blank and for unknown characters."""
    from transformers import Wav2Vec2CTCTokenizer

    # Otherwise tokens for beginning and end are made up where the folder has none.
    tokenizer = load(Wav2Vec2CTCTokenizer, source, bos_token=None, eos_token=None)
    # Its word delimiter is not asked: Transformers 5 forgets one that is saved, and takes "|" again.
    return tokenizer.get_vocab(), {"blank": tokenizer.pad_token, "unknown": tokenizer.unk_token}


def _check_ids(vocabulary: Mapping[str, Any], source: str | Path) -> None:
    for token, number in vocabulary.items():
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise UserError(f"{source}: token {token!r} is half a character; {EXPECTED}")
        if type(number) is not int:
            raise UserError(f"{source}: token {token!r} has the id {number!r}; {EXPECTED}")
    size = len(vocabulary)
    missing = set(range(size)) - set(vocabulary.values())
    if missing:
        number, times = Counter(vocabulary.values()).most_common(1)[0]
        wrong = f"{times} have the id {number}" if times > 1 else f"none has the id {min(missing)}"
        raise UserError(
            f"{source}: {size} tokens need the ids 0 to {size - 1}, each once, but {wrong}; "
            "number them anew in the order of the model's outputs"
        )


def _special_token(role: str, own: str | None, vocabulary: Mapping[str, int], source: str | Path) -> str:
    meaning, names = SPECIAL[role]
    for name in (own, *names):
        if name is not None and name in vocabulary:
            return name
    raise UserError(f"{source} has no token for {meaning}; add {' or '.join(map(repr, names))}")
