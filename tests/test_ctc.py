"""A vocabulary that was given keeps its ids, gets no token more, and stays through fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from transformers import AutoProcessor, HubertConfig, HubertForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from finetune.recogniser import load_recogniser
from hf_distilhubert.ctc import ctc_processor, ctc_settings, load_vocabulary, save_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.text_rules import TextRules, read_text_rules
from hf_distilhubert.tokens import tokens_of

NUMBERS = ["<pad>", "<unk>", "|", *"efhnorstuvwxz"]
VOCABULARIES = {
    "wav2vec2": ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETNO'W"],
    "blank last": [*"wot ne", "[UNK]", "[PAD]"],
    "both kinds of names": ["[PAD]", "[UNK]", " ", *"wotne", "<pad>", "<unk>", "|"],
    "tokens of several letters": ["<pad>", "<unk>", "|", "tw", *"otne", "ö", "\u0301"],
}


def write_vocabulary(path: Path, tokens: list[str]) -> Path:
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    return path


def write_tokenizer(folder: Path, tokens: list[str], **settings: Any) -> Path:
    """A tokenizer as other projects save it: with tokens for beginning and end."""
    folder.mkdir()
    file = write_vocabulary(folder / "vocab.json", tokens)
    Wav2Vec2CTCTokenizer(str(file), **settings).save_pretrained(folder)
    return folder


def decoded(tokenizer: Any, text: str) -> str:
    return str(tokenizer.decode(tokenizer(text).input_ids, group_tokens=False))


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_a_vocabulary_keeps_its_ids_and_gets_no_token_more(kind: str, tmp_path: Path) -> None:
    tokens = VOCABULARIES[kind]
    processor = load_vocabulary(write_vocabulary(tmp_path / "vocab.json", tokens))
    save_processor(processor, tmp_path / "saved", TextRules())
    text = "TWO TEN" if "T" in tokens else "two ten"
    for found in (processor, AutoProcessor.from_pretrained(tmp_path / "saved")):
        assert type(found) is Wav2Vec2Processor
        assert tokens_of(found.tokenizer) == tokens
        assert len(found.tokenizer) == len(tokens)
        assert (found.tokenizer.bos_token, found.tokenizer.eos_token) == (None, None)
        assert decoded(found.tokenizer, text) == text
        assert found.tokenizer("q").input_ids == [found.tokenizer.unk_token_id]
    model = HubertForCTC(HubertConfig(**TINY | {"num_hidden_layers": 1} | ctc_settings(processor.tokenizer)))
    with torch.inference_mode():
        logits = model(torch.randn(1, 4_000)).logits
    assert logits.shape[-1] == len(processor.tokenizer)
    assert tokens[model.config.pad_token_id] == processor.tokenizer.pad_token


def test_blank_unknown_and_delimiter_are_known_by_their_usual_names(tmp_path: Path) -> None:
    tokenizer = load_vocabulary(write_vocabulary(tmp_path / "v", VOCABULARIES["blank last"])).tokenizer
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("[PAD]", "[UNK]")
    assert tokenizer(" ").input_ids == [3]
    tokenizer = load_vocabulary(
        write_vocabulary(tmp_path / "v", VOCABULARIES["both kinds of names"])
    ).tokenizer
    assert (tokenizer.pad_token, tokenizer.unk_token, tokenizer.word_delimiter_token) == (
        "<pad>",
        "<unk>",
        "|",
    )


def test_a_tokenizer_of_a_folder_keeps_its_ids_and_its_own_names(tmp_path: Path) -> None:
    names = {"pad_token": "<blank>", "unk_token": "<?>"}
    folder = write_tokenizer(tmp_path / "theirs", ["|", "<?>", *"nowte", "<blank>"][::-1], **names)
    theirs = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    ours = load_vocabulary(folder).tokenizer
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == max(theirs.get_vocab().values()) + 1
    assert (ours.pad_token, ours.unk_token, ours.word_delimiter_token) == ("<blank>", "<?>", "|")
    assert decoded(ours, "two ten") == "two ten"


def test_tokens_for_beginning_and_end_are_not_made_up(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    write_vocabulary(bare / "vocab.json", VOCABULARIES["blank last"])
    assert tokens_of(load_vocabulary(bare).tokenizer) == VOCABULARIES["blank last"]
    (bare / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "unk_token": "[UNK]"}')
    (bare / "vocab.json").write_text(json.dumps({"[PAD]": 0, "[UNK]": 1, "|": 2, "a": 3}))
    assert tokens_of(load_vocabulary(bare).tokenizer) == ["[PAD]", "[UNK]", "|", "a"]


def test_one_language_of_a_nested_tokenizer_is_taken(tmp_path: Path) -> None:
    tokens = {token: number for number, token in enumerate(NUMBERS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"abc": {"<pad>": 0}, "eng": tokens}))
    (tmp_path / "tokenizer_config.json").write_text('{"target_lang": "eng"}')
    assert tokens_of(load_vocabulary(tmp_path).tokenizer) == NUMBERS


def test_nothing_of_a_folder_is_run_and_normalisation_is_the_students(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    processor = ctc_processor({token: i for i, token in enumerate(NUMBERS)}, do_normalize=True)
    save_processor(processor, folder, TextRules())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["theirs.Tokenizer", None], "AutoProcessor": "theirs.Processor"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    found = load_vocabulary(folder)
    assert type(found.tokenizer) is Wav2Vec2CTCTokenizer
    assert not (tmp_path / "ran").exists()
    assert found.feature_extractor.do_normalize is False
    assert found.feature_extractor.return_attention_mask is True
    assert load_vocabulary(folder, do_normalize=True).feature_extractor.do_normalize is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .*expected one object of tokens and ids"),
        ("\udc80", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["<pad>", "a"]', "holds a list; expected"),
        ('{"eng": {"a": 0}, "deu": {"a": 0}}', "nested by language, as that of MMS is .*2, such as 'eng'"),
        ('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 4}', "ids 0 to 3, each once, but none has the id 3"),
        ('{"<pad>": 1, "<unk>": 2, "|": 3}', "none has the id 0"),
        ('{"<pad>": 0, "<unk>": 1, "|": 1, "a": 3}', "2 have the id 1; number them anew"),
        ('{"<pad>": 0, "<unk>": 1, "|": 2.0}', r"token '\|' has the id 2.0; expected"),
        ('{"<pad>": 0, "<unk>": true, "|": 2}', "token '<unk>' has the id True"),
        ('{"<unk>": 0, "|": 1}', r"no token for the CTC blank; add '<pad>' or '\[PAD\]'"),
        ('{"<pad>": 0, "|": 1}', r"no token for unknown characters; add '<unk>' or '\[UNK\]'"),
        ('{"<pad>": 0, "<unk>": 1}', r"no token for the space between words; add '\|' or ' '"),
        ("{}", "no token for the CTC blank"),
        ('{"\\ud800": 0}', "is half a character"),
    ],
)
def test_a_wrong_vocabulary_is_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.json", "there is no file .*gone.json; give a vocab.json, or a folder"),
        ("empty", "holds no vocab.json; give one, or a folder with a CTC tokenizer"),
        ("gone", "there is no folder"),
    ],
)
def test_a_missing_vocabulary_is_named_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        load_vocabulary(tmp_path / name)


def test_fine_tuning_keeps_the_vocabulary_of_a_model_with_a_fresh_head(tmp_path: Path) -> None:
    processor = load_vocabulary(write_vocabulary(tmp_path / "vocab.json", [*NUMBERS, "<s>", "</s>"]))
    shape = TINY | {"num_hidden_layers": 1} | ctc_settings(processor.tokenizer)
    model = HubertForCTC(HubertConfig(**shape))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    save_processor(processor, folder, TextRules())
    recogniser = load_recogniser(str(folder), ["one two", "seven"])
    assert recogniser.new_head is False
    assert tokens_of(recogniser.processor.tokenizer) == [*NUMBERS, "<s>", "</s>"]
    assert torch.equal(recogniser.model.lm_head.weight, model.lm_head.weight)
    assert recogniser.processor.feature_extractor.do_normalize is False
    # Texts that it does not cover need other outputs.
    assert load_recogniser(str(folder), ["large"], new_head=True).new_head is True


def test_case_is_that_of_the_vocabulary_unless_the_folder_says_otherwise(tmp_path: Path) -> None:
    small = load_vocabulary(write_vocabulary(tmp_path / "small", ["[CLS]", "[PAD]", *NUMBERS])).tokenizer
    large = load_vocabulary(write_vocabulary(tmp_path / "large", VOCABULARIES["wav2vec2"])).tokenizer
    assert [read_text_rules(tmp_path, tokenizer).case for tokenizer in (small, large)] == ["lower", "upper"]
    TextRules(case="keep").save(tmp_path)
    assert read_text_rules(tmp_path, large).case == "keep"
