"""Text becomes labels and comes back the same, whatever its script; what is left unknown is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import LARGE, save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoProcessor, AutoTokenizer, Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from finetune.recogniser import Recogniser, fresh_recogniser, load_recogniser, rules_for
from finetune.settings import FinetuneConfig
from finetune.text_report import text_report
from finetune.vocabulary import build_processor, decode_labels, unknown_characters
from hf_distilhubert.ctc import load_vocabulary, save_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.text_rules import TextRules, text_rules
from hf_distilhubert.tokens import labels_of, tokens_of

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SENTENCES = [
    "don't tell the bookkeeper",
    "été à zürich",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีครับ น้ำ",
    "i\u0307stanbul \u0131ss\u0131z",
    "xin chào thế giới",
    "room 1100",
    "schach ch ich tisch sch",
    "c\u0301h c\u0301 qa\u0303",
    "n't 's it's",
    "a , b . c ! <pad> <unk> x<pad>y",
]


def processor_of(texts: list[str], **alphabet: Any) -> Any:
    return build_processor(texts, do_normalize=False, **alphabet)


def ctc_path(ids: list[int]) -> list[int]:
    """A path that CTC may write `ids` on: each label twice, blanks between."""
    return [token for label in ids for token in (0, label, label, 0)]


# ----- there and back -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ANY_TEXT, min_size=1, max_size=4), st.sampled_from(["basic", "english", "none"]), st.booleans()
)
def test_labels_decode_into_the_text_they_were_made_of(texts: list[str], form: str, graphemes: bool) -> None:
    rules = text_rules(form)
    texts = [normal for text in texts if (normal := rules(text.replace("|", "")))]
    tokenizer = processor_of(texts, graphemes=graphemes, digraphs=["00"]).tokenizer
    assert unknown_characters(texts, tokenizer) == {}
    for text in texts:
        ids = labels_of(tokenizer, text)
        assert not {tokenizer.pad_token_id, tokenizer.unk_token_id} & set(ids)
        assert tokenizer.decode(ids, group_tokens=False) == text
        assert decode_labels(tokenizer, [*ids, -100, -100]) == text
        assert tokenizer.decode(ctc_path(ids)) == text


@pytest.mark.parametrize(
    "alphabet", [{}, {"digraphs": ["ch", "sch"], "graphemes": True}], ids=["plain", "units"]
)
def test_every_script_is_decoded_alike_by_transformers_and_by_tokenizers(
    alphabet: dict[str, Any], tmp_path: Path
) -> None:
    save_processor(processor_of(SENTENCES, **alphabet), tmp_path, TextRules())
    loaded = AutoProcessor.from_pretrained(tmp_path).tokenizer
    rust = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert rust.get_vocab() == loaded.get_vocab()
    for text in SENTENCES:
        path = ctc_path(labels_of(loaded, text))
        assert loaded.decode(path) == text
        assert rust.decode(path) == text
        assert rust.decode([loaded.word_delimiter_token_id, *path]).strip() == text


def test_a_text_of_letters_is_labelled_as_a_stock_tokenizer_does() -> None:
    tokenizer = processor_of(SENTENCES[:8]).tokenizer
    for text in SENTENCES[:8]:
        assert labels_of(tokenizer, text) == tokenizer(text).input_ids


def test_letters_of_several_characters_are_one_label() -> None:
    tokenizer = processor_of(["schach tisch dach", "sc"], digraphs=["ch", "sc", "sch"]).tokenizer
    assert tokenizer.convert_ids_to_tokens(labels_of(tokenizer, "schach dach")) == [
        *("sch", "a", "ch", "|", "d", "a", "ch")
    ]
    # A stock tokenizer needs the delimiter in place of the space.
    assert tokenizer("schach|dach").input_ids == labels_of(tokenizer, "schach dach")
    tokenizer = processor_of(["नमस्ते"], graphemes=True).tokenizer
    assert set(tokens_of(tokenizer)[3:]) == {"न", "म", "स्", "ते"}


def test_lower_casing_tokenizers_get_the_labels_that_they_have(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "A": 3}')
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), do_lower_case=True)
    assert labels_of(tokenizer, "a a") == [3, 2, 3]
    assert unknown_characters(["a a"], tokenizer) == {}


# ----- the folder -----------------------------------------------------------------------------------------


def test_ids_are_stable_and_blank_is_padding() -> None:
    texts = ["seven two", "don't", "été"]
    tokenizer = processor_of(texts).tokenizer
    assert isinstance(tokenizer, Wav2Vec2CTCTokenizer)
    assert tokens_of(tokenizer)[:3] == ["<pad>", "<unk>", "|"]
    assert tokens_of(tokenizer) == tokens_of(processor_of(texts[::-1]).tokenizer)
    assert tokens_of(tokenizer)[3:] == sorted(tokens_of(tokenizer)[3:])
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, None)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


@pytest.mark.parametrize("do_normalize", [False, True])
def test_auto_classes_load_the_folder_as_if_tokenizer_json_were_not_there(
    tmp_path: Path, do_normalize: bool
) -> None:
    processor = build_processor(["seven two", "n't 's"], do_normalize=do_normalize)
    save_processor(processor, tmp_path, TextRules())
    assert {"preprocessor_config.json", "tokenizer.json", "text.json"} <= {p.name for p in tmp_path.iterdir()}
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is Wav2Vec2Processor
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is type(loaded.tokenizer) is Wav2Vec2CTCTokenizer
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert len(loaded.tokenizer) == len(processor.tokenizer)
    assert (loaded.tokenizer.bos_token, loaded.tokenizer.eos_token) == (None, None)
    assert loaded.feature_extractor.do_normalize is do_normalize
    assert loaded.feature_extractor.return_attention_mask is True
    # The stock clean-up would pull " n't" and " 's" to the word before.
    text = "seven n't 's"
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids, group_tokens=False) == text
    assert tokens_of(load_vocabulary(tmp_path).tokenizer) == tokens_of(processor.tokenizer)


# ----- what is left unknown -------------------------------------------------------------------------------


def test_characters_without_a_token_are_counted() -> None:
    tokenizer = processor_of(["abc d"]).tokenizer
    assert unknown_characters(["xa xb", "xy|"], tokenizer) == {"x": 3, "y": 1, "|": 1}
    decoded = decode_labels(tokenizer, labels_of(tokenizer, "axb|"))
    assert decoded == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_rare_characters_are_cut_and_the_delimiter_is_none() -> None:
    texts = ["abba|", "cab"]
    assert tokens_of(processor_of(texts, min_count=2).tokenizer)[3:] == ["a", "b"]
    assert tokens_of(processor_of(texts).tokenizer)[3:] == ["a", "b", "c"]


def test_report_names_what_is_taken_out_unknown_and_rare_with_an_example() -> None:
    written = ["IT COSTS 25% MORE, i.e. £3.50", "costs more, it is more \N{ZERO WIDTH SPACE}it is"]
    rules = text_rules()
    texts = [rules(text) for text in written]
    fresh = Recogniser(None, processor_of(texts, min_count=2), new_head=True)
    vocabulary, removed, unknown, rare = text_report(rules, written, texts, fresh)
    assert vocabulary == "text: basic, lower case; 9 characters: 5 c e i m o r s t"
    assert removed.startswith("not in that text: '.' 3 times (…' 25% MORE, i.e. £3.50'), ',' 2 times (")
    assert "'%' 1 time ('IT COSTS 25% MORE, i.e. '…), '£' 1 time (…' MORE, i.e. £3.50'), " in removed
    assert "'\\u200b' 1 time (…' it is more \\u200bit is')" in removed
    assert unknown.startswith(
        "unknown, learned as <unk>: '2' 1 time ('it costs 25 more ie 3 '…), '3' 1 time ("
    )
    assert rare.startswith("rare: '5' 2 times (")
    assert rare.endswith("; --min_count 3 gives them no tokens")
    # A vocabulary that was there before is not to be cut.
    (*_, unknown) = text_report(rules, written, texts, replace(fresh, new_head=False))
    assert unknown.endswith("; --new_head true gives them tokens")


@pytest.fixture(scope="module")
def upper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of capital letters, as the published ones are, without text rules."""
    folder = save_recogniser(tmp_path_factory.mktemp("upper"), **LARGE)
    for name in ("vocab.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        for letter in "efhnorstuvw":
            text = text.replace(f'"{letter}"', f'"{letter.upper()}"')
        (folder / name).write_text(text)
    return folder


def test_a_recogniser_is_trained_on_in_its_own_case_and_normal_form(upper: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(model=str(upper))
    assert rules_for(config) == TextRules("basic", "upper")
    assert load_recogniser(str(upper), [rules_for(config)("Two, one!")]).new_head is False
    saved = save_recogniser(tmp_path, **LARGE)
    text_rules("english", "keep").save(saved)
    assert rules_for(FinetuneConfig(model=str(saved))) == TextRules("english", "keep")
    assert rules_for(FinetuneConfig(model=str(saved), case="lower")) == TextRules("english", "lower")
    assert rules_for(FinetuneConfig(model=str(saved)), str.lower).text == "custom"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["two three"],
            r"lacks 89% .*at most 5% .*such as t e w o h r; they differ in case: give --case upper",
        ),
        (["ÜBER ÄLTERE"], r"lacks 36% .*give --new_head true"),
    ],
)
def test_training_on_unknown_characters_is_refused_with_the_remedy(
    upper: Path, texts: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_recogniser(str(upper), texts)
    assert load_recogniser(str(upper), texts, new_head=True).new_head is True


def test_a_few_unknown_characters_leave_the_head_as_it_is(upper: Path) -> None:
    assert load_recogniser(str(upper), ["TWO THREE " * 4 + "Ä"]).new_head is False


def test_a_cut_that_takes_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="67% of the characters .* would be unknown .*lower --min_count"):
        fresh_recogniser(tmp_path / "unread.json", ["abb", "cde"], min_count=2)


def test_settings_for_a_new_vocabulary_are_not_passed_over_in_silence(upper: Path) -> None:
    with pytest.raises(UserError, match="has a vocabulary of its own.*--new_head true"):
        load_recogniser(str(upper), ["TWO"], min_count=2, digraphs=[], graphemes=False)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"min_count": 0}, "--min_count 0"),
        ({"text": "klingon"}, "no text 'klingon'.*basic, english, none"),
        ({"case": "title"}, "case 'title'.*lower, upper, keep"),
        ({"text": "custom"}, "'custom' stands for a function"),
        ({"digraphs": ["x"]}, "--digraphs 'x'"),
        ({"digraphs": ["a b"]}, "--digraphs 'a b'"),
    ],
)
def test_wrong_settings_are_one_line(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FinetuneConfig(**setting)
