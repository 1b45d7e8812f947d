"""One normal form for training and scoring: what is heard stays, in every script; the choice is saved."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.vocabulary import build_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.text import CASES, basic, english, plain
from hf_distilhubert.text_rules import TextRules, chosen_rules, read_text_rules, text_rules

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def tokenizer_of(text: str) -> Any:
    return build_processor([text], do_normalize=False).tokenizer


# ----- normal forms ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT, st.sampled_from(CASES), st.sampled_from([basic, english]))
@example("a\N{ZANABAZAR SQUARE SUBJOINER}\N{COMBINING GRAVE ACCENT}", "lower", english)
def test_normal_form_is_stable_and_holds_no_punctuation(text: str, case: str, form: Any) -> None:
    normal = form(text, case)
    assert form(normal, case) == normal
    assert normal == " ".join(normal.split(" ")) == normal.strip()
    categories = [unicodedata.category(character) for character in normal.replace("'", "")]
    assert all(c == "Zs" or c[0] in "LN" or c in {"Mn", "Mc"} for c in categories)
    assert case != "lower" or normal == normal.lower()
    assert form != english or not any("\u00c0" <= c <= "\u017f" for c in unicodedata.normalize("NFC", normal))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Don\u2019t  tell,\n\u201cJohn\u201d!", "don't tell john"),
        ("twenty-one \u2013 or so", "twenty one or so"),
        ("No. 1,100 \uff21", "no 1100 a"),
        ("3.14 at 10:30", "3 14 at 10 30"),
        ("U.S.A., and/or R&D\u2026wait", "usa and or r d wait"),
        ("\u2026?!", ""),
        ("hi\U0001f600there 1\ufe0f\u20e3 \u2764\ufe0f", "hi there 1"),
        ("cafe\u200d\u0301", "caf\u00e9"),  # composed only once the joiner is gone
        ("\u00a8 \u0301a", "a"),  # a mark without a letter
        ("\u0149", "'n"),  # an apostrophe that only NFKC shows
        ("col\u00b7legi \u05e6\u05d4\u05f4\u05dc", "collegi \u05e6\u05d4\u05dc"),
    ],
)
def test_punctuation_goes_and_words_stay_apart(text: str, normal: str) -> None:
    assert basic(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("\u0130stanbul \u0131ss\u0131z", "istanbul \u0131ss\u0131z"),  # Turkish: no stray dot
        ("Stra\u00dfe", "stra\u00dfe"),
        ("Vie\u0323\u0302t Nam", "vi\u1ec7t nam"),
        ("\u0645\u0640\u0640\u0631\u064e\u062d\u0628\u0627\u061f", "\u0645\u0631\u064e\u062d\u0628\u0627"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947\u0964", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("\u0e19\u0e49\u0e33", "\u0e19\u0e49\u0e33"),  # Thai keeps the vowel that NFKC takes apart
        ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"),
        ("\u1230\u120b\u121d\u1361\u1208\u12d3\u1208\u121d", "\u1230\u120b\u121d \u1208\u12d3\u1208\u121d"),
        ("\u041c'\u044f\u0442\u0430", "\u043c'\u044f\u0442\u0430"),
    ],
    ids=["turkish", "german", "vietnamese", "arabic", "hindi", "thai", "chinese", "amharic", "ukrainian"],
)
def test_each_script_keeps_what_is_spoken(text: str, normal: str) -> None:
    assert basic(text) == normal


def test_case_is_lower_upper_or_left_alone() -> None:
    assert [basic("Mc'Donald, Stra\u00dfe", case) for case in CASES] == [
        "mc'donald stra\u00dfe",
        "MC'DONALD STRASSE",
        "Mc'Donald Stra\u00dfe",
    ]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Na\u00efve caf\u00e9 \u2014 \u201cquoted\u201d \u2019tis", "naive cafe quoted 'tis"),
        ("25% of R&D", "25 percent of r and d"),
        ("the 'word' ' of the boys'", "the word of the boys'"),
        ("\u00c6sop, \u00d8re, \u01fd, Stra\u00dfe", "aesop ore ae strasse"),
    ],
)
def test_english_is_written_in_a_to_z(text: str, normal: str) -> None:
    assert english(text) == normal


def test_none_leaves_all_but_white_space_alone() -> None:
    assert plain("  It\u2019s \uff21,\t1.5 \n") == "It\u2019s \uff21, 1.5"
    assert text_rules("none")("A  b!") == "A b!"


# ----- the choice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [text_rules(), text_rules("english", "upper"), text_rules("none")], ids=str)
def test_saved_rules_are_read_back(rules: TextRules, tmp_path: Path) -> None:
    rules.save(tmp_path)
    assert read_text_rules(tmp_path, tokenizer_of("Abc")) == rules


def shouted(text: str) -> str:
    return text.upper() + " "


def test_a_function_is_used_named_and_never_replaced_in_silence(tmp_path: Path) -> None:
    rules = text_rules(shouted)
    assert (rules("a  b"), str(rules)) == ("A B", f"{__name__}.shouted")
    rules.save(tmp_path)
    read = read_text_rules(tmp_path, tokenizer_of("abc"))
    assert (read.text, read.name, read.function) == ("custom", f"{__name__}.shouted", None)
    with pytest.raises(UserError, match=r"normalised by a function \(.*shouted\).*--text"):
        read("a")
    assert chosen_rules(read, shouted)("a") == "A"
    assert chosen_rules(read, "basic")("A") == "a"
    with pytest.raises(UserError, match="has to return a str"):
        text_rules(lambda text: None)("a")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(("keep", "case"), [(True, "keep"), (False, "lower")])
def test_rules_of_older_folders_are_read(keep: bool, case: str, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text(json.dumps({"keep_case": keep}))
    assert read_text_rules(tmp_path, tokenizer_of("ABC")) == TextRules("basic", case)


@pytest.mark.parametrize(
    ("text", "case"), [("abc", "lower"), ("ABC", "upper"), ("aBC", "keep"), ("مر", "lower")]
)
def test_without_rules_the_vocabulary_tells_the_case(text: str, case: str, tmp_path: Path) -> None:
    assert read_text_rules(tmp_path, tokenizer_of(text)) == TextRules("basic", case)


@pytest.mark.parametrize("content", ["[]", "{", '{"text": "klingon", "case": "lower"}', '{"text": "basic"}'])
def test_damaged_rules_are_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text(content)
    with pytest.raises(UserError, match=r"text.json: expected .*mend it or take it away") as caught:
        read_text_rules(tmp_path, tokenizer_of("a"))
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_goes_over_what_the_recogniser_has() -> None:
    own = TextRules("english", "upper")
    assert chosen_rules(own) == own
    assert chosen_rules(own, case="lower") == TextRules("english", "lower")
    assert chosen_rules(own, "basic") == TextRules("basic", "upper")
    assert chosen_rules(own, "none") == TextRules("none", "keep")
    assert chosen_rules(None) == TextRules("basic", "lower")
    with pytest.raises(UserError, match="the function sees to the case"):
        chosen_rules(own, shouted, "lower")


@pytest.mark.parametrize(("text", "case"), [("klingon", None), ("basic", "title"), ("custom", None)])
def test_unknown_rules_are_one_line(text: str, case: str | None) -> None:
    with pytest.raises(UserError, match="basic, english, none"):
        text_rules(text, case)


def test_rules_on_the_hub_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the client keeps what it has fetched.
    snapshot = tmp_path / "models--owner--english" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    text_rules("english", "upper").save(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert read_text_rules("owner/english", tokenizer_of("a")) == TextRules("english", "upper")
    assert read_text_rules("owner/other", tokenizer_of("a")) == TextRules("basic", "lower")
