"""Text becomes labels and comes back the same, whatever its script."""

from __future__ import annotations

import string
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, Wav2Vec2CTCTokenizer

from finetune.vocabulary import build_processor, decode_labels, normalise_text, unknown_characters
from hf_distilhubert.ctc import keeps_case, save_processor, tokens_of

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SENTENCES = [
    "don't tell the bookkeeper",
    "été à zürich",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีครับ",
    "I\u0307stanbul \u0131ss\u0131z",
    "xin chào thế giới",
    "room 1100",
]


def processor_of(texts: list[str]) -> Any:
    return build_processor(texts, do_normalize=False)


def ctc_path(ids: list[int]) -> list[int]:
    """A path that CTC may write `ids` on: each label twice, blanks between."""
    return [token for label in ids for token in (0, label, label, 0)]


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT, st.booleans())
def test_normal_form_is_stable_and_holds_no_punctuation(text: str, keep_case: bool) -> None:
    normal = normalise_text(text, keep_case=keep_case)
    assert normalise_text(normal, keep_case=keep_case) == normal
    assert normal == " ".join(normal.split(" ")) == normal.strip()
    assert unicodedata.is_normalized("NFKC", normal)
    assert all(c in "' " or unicodedata.category(c)[0] not in "PSCZ" for c in normal)
    assert keep_case or normal == normal.lower()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Don\u2019t  tell,\n\u201cJohn\u201d!", "don't tell john"),
        ("twenty-one \u2013 or so", "twenty one or so"),
        ("No. 1,100 \uff21", "no 1100 a"),
        ("\u2026?!", ""),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("cafe\u200d\u0301", "caf\u00e9"),  # composed only once the joiner is gone
    ],
)
def test_punctuation_goes_and_apostrophes_digits_and_accents_stay(text: str, normal: str) -> None:
    assert normalise_text(text) == normal


def test_case_is_kept_on_request() -> None:
    assert normalise_text("Mc'Donald, Ltd.", keep_case=True) == "Mc'Donald Ltd"


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_labels_decode_into_the_text_they_were_made_of(texts: list[str]) -> None:
    texts = [normal for text in texts if (normal := normalise_text(text))]
    tokenizer = processor_of(texts).tokenizer
    assert unknown_characters(texts, tokenizer) == {}
    for text in texts:
        ids = tokenizer(text).input_ids
        assert not {tokenizer.pad_token_id, tokenizer.unk_token_id} & set(ids)
        assert tokenizer.decode(ids, group_tokens=False) == text
        assert decode_labels(tokenizer, [*ids, -100, -100]) == text
        assert tokenizer.decode(ctc_path(ids)) == text


@pytest.mark.parametrize("sentence", SENTENCES)
def test_scripts_and_repeated_letters_survive(sentence: str) -> None:
    text = normalise_text(sentence)
    tokenizer = processor_of([text]).tokenizer
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ctc_path(ids)) == text


def test_ids_are_stable_and_blank_is_padding() -> None:
    texts = ["seven two", "don't", "été"]
    tokenizer = processor_of(texts).tokenizer
    assert isinstance(tokenizer, Wav2Vec2CTCTokenizer)
    assert tokens_of(tokenizer)[:3] == ["<pad>", "<unk>", "|"]
    assert tokens_of(tokenizer) == tokens_of(processor_of(texts[::-1]).tokenizer)
    assert tokens_of(tokenizer)[3:] == sorted(tokens_of(tokenizer)[3:])
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    assert tokenizer.bos_token is None
    assert tokenizer.eos_token is None
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


@pytest.mark.parametrize("do_normalize", [False, True])
def test_auto_processor_loads_the_folder(tmp_path: Path, do_normalize: bool) -> None:
    processor = build_processor(["seven two", "n't 's"], do_normalize=do_normalize)
    save_processor(processor, tmp_path, keep_case=False)
    assert (tmp_path / "preprocessor_config.json").is_file()
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert len(loaded.tokenizer) == len(processor.tokenizer)
    assert loaded.tokenizer.bos_token is None
    assert loaded.tokenizer.eos_token is None
    assert loaded.feature_extractor.do_normalize is do_normalize
    assert loaded.feature_extractor.return_attention_mask is True
    # The stock clean-up would pull " n't" and " 's" to the word before.
    text = "seven n't 's"
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids, group_tokens=False) == text


def test_characters_without_a_token_are_counted() -> None:
    tokenizer = processor_of(["abc d"]).tokenizer
    assert unknown_characters(["xa xb", "xy"], tokenizer) == {"x": 3, "y": 1}
    assert decode_labels(tokenizer, tokenizer("axb").input_ids) == "a\N{REPLACEMENT CHARACTER}b"


def test_references_keep_the_case_that_training_kept(tmp_path: Path) -> None:
    lower, upper = processor_of(["abc"]), processor_of(["ABC"])
    assert not keeps_case(tmp_path, lower.tokenizer)
    assert keeps_case(tmp_path, upper.tokenizer)
    save_processor(lower, tmp_path, keep_case=True)
    assert keeps_case(tmp_path, lower.tokenizer)
    assert set(string.ascii_lowercase[:3]) <= set(tokens_of(lower.tokenizer))
