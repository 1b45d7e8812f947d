"""Texts in a training run: broken tables, the report before it, and the rules that go with the model."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import LARGE, TINY

from finetune.arguments import CTCTrainingArguments
from finetune.data import ClipDataset
from finetune.score import score
from finetune.settings import FinetuneConfig
from finetune.train import FinetuneResult, train
from finetune.vocabulary import build_processor, decode_labels
from hf_distilhubert.errors import UserError
from hf_distilhubert.speech_data import Clip

# What training does with each case: a part of the one-line refusal; or the number of clips trained on, why
# others were left out, and characters of the vocabulary.
CASES: dict[str, str | tuple[int, str, str]] = {
    "good": (4, "", "ehinorstvxz"),
    "missing_file": (4, "no_such_clip.flac.*there is no", "ehinorstvxz"),
    "blank_transcription": "2 of 4 clips cannot be used.*0_george_12.flac: its transcript is empty",
    "missing_column": "no transcripts, which belong in a column .*its columns: file_name, speaker",
    "other_column_name": (4, "", "ehinorstvxz"),
    "duplicate_rows": (4, "7_jackson_12.flac .*listed twice with different texts", "ehinorstvxz"),
    "unlisted_file": (3, "", "ehnorstvz"),
    "bom_crlf": (4, "", "ehinorstvxz"),
    "latin1": "not UTF-8",
    "semicolon": "no column of file names.*its columns: file_name;transcription",
    "tab_separated": "no column of file names.*its columns: file_name\ttranscription",
    "quotes_newlines": (4, "", "'cdefhilnorstwx"),
    "odd_characters": (4, "", "'02335abcdefhijlmnoqrstuvwzéï"),
    "text_too_long": (3, "7_jackson_12.flac.*too short for its text", "..."),
    "numbers_only": (4, "", "01345789e"),
    "null_words": (4, "", "aelnou"),
    "path_escape": "2 of 4 clips cannot be used.*leads out of the data set's folder",
    "header_only": "no rows in it, so there are no clips",
    "zero_byte": "no rows in it, so there are no clips",
    "one_clip": (1, "", "ensv"),
    "all_bad_audio": "none of 2 clips can be used",
}


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("shape") / "config.json"
    # Twice as many frames as usual: the clips are digits, and some of the texts are sentences.
    strides = {"conv_stride": (5, 2, 2, 2, 2, 2, 1)}
    path.write_text(json.dumps(TINY | LARGE | strides | {"num_hidden_layers": 1}))
    return str(path)


def run(output: Path, data: Path, normalise: Any = None, **settings: Any) -> FinetuneResult:
    config = FinetuneConfig(data=str(data), eval_split="none", **settings)
    steps = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True}
    return train(config, CTCTrainingArguments(output_dir=str(output), **steps), normalise=normalise)


@pytest.mark.parametrize("case", CASES)
def test_training_does_with_broken_tables_what_a_careful_program_does(
    case: str, speech_dir: Path, shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output, expected = speech_dir / "broken" / "metadata_cases" / case, tmp_path / "run", CASES[case]
    if isinstance(expected, str):
        with pytest.raises(UserError, match=re.escape(expected).replace(r"\.\*", ".*")) as caught:
            run(output, data, from_scratch=shape)
        assert len(str(caught.value).splitlines()) == 1
        assert not output.exists()
        return
    clips, left_out, characters = expected
    result = run(output, data, from_scratch=shape)
    assert (result.train_clips, result.skipped) == (clips, int(bool(left_out)))
    if left_out:
        assert re.search(left_out, (output / "skipped.jsonl").read_text())
    vocabulary = json.loads((output / "results.json").read_text())["vocabulary"]
    assert characters == "..." or set(vocabulary[3:]) == set(characters)
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert all(0 < entry["loss"] < 1e4 for entry in log)
    said = capsys.readouterr().out
    for character in {"odd_characters": "%£😀—“”"}.get(case, ""):
        assert f"{character!r} 1 time (" in said


def test_no_case_is_forgotten(speech_dir: Path) -> None:
    with (speech_dir / "broken" / "metadata_cases" / "cases.csv").open(encoding="utf-8") as file:
        assert {row["case"] for row in csv.DictReader(file)} == set(CASES)


def spelled(text: str) -> str:
    return "".join(letter for letter in text.upper() if letter.isalpha())


def test_a_function_of_ones_own_is_asked_for_again(spoken: Path, shape: str, tmp_path: Path) -> None:
    run(tmp_path / "run", spoken, spelled, from_scratch=shape)
    rules = json.loads((tmp_path / "run" / "text.json").read_text())
    assert rules == {"text": "custom", "case": "keep", "name": f"{__name__}.spelled"}
    settings = yaml.safe_load((tmp_path / "run" / "finetune.yaml").read_text())
    with pytest.raises(UserError, match="'custom' stands for a function"):
        FinetuneConfig(text=settings["text"])
    model = str(tmp_path / "run")
    with pytest.raises(UserError, match=r"normalised by a function \(.*spelled\)"):
        score(model, str(spoken))
    with pytest.raises(UserError, match=r"normalised by a function \(.*spelled\)"):
        run(tmp_path / "more", spoken, model=model)
    assert not score(model, str(spoken), text=spelled).unknown_characters
    again = run(tmp_path / "again", spoken, spelled, model=model)
    assert again.vocabulary_size == len("EFHNORTUW") + 3


def test_fine_tuning_further_follows_the_rules_of_the_folder(
    spoken: Path, shape: str, tmp_path: Path
) -> None:
    run(tmp_path / "first", spoken, from_scratch=shape, text="english", case="upper", digraphs=["th", "ee"])
    run(tmp_path / "second", spoken, model=str(tmp_path / "first"))
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")
    )
    assert first["vocabulary"][3:] == ["E", "EE", "F", "N", "O", "R", "T", "TH", "U", "W"]
    assert second["vocabulary"] == first["vocabulary"]
    assert second["text"] == "english, upper case"
    settings = yaml.safe_load((tmp_path / "second" / "finetune.yaml").read_text())
    assert (settings["text"], settings["case"]) == ("english", "upper")
    assert not score(str(tmp_path / "second"), str(spoken)).unknown_characters


def test_items_carry_the_labels_of_their_whole_text() -> None:
    tokenizer = build_processor(["tooth the"], do_normalize=False, digraphs=["th"]).tokenizer
    item = ClipDataset([Clip("0", Path("none"), 4_000, "tooth the")], tokenizer)[0]
    assert decode_labels(tokenizer, item["labels"]) == "tooth the"
