"""The card tells what the folder holds, all of it, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cards import (
    BENCHMARK,
    CONVERT,
    DISTILL,
    FINETUNE,
    LETTERS,
    SCORE,
    headings,
    make_bare,
    make_recogniser,
    make_student,
    prose,
    save_weights,
    tiny_config,
    write,
)
from conftest import ROOT
from huggingface_hub import ModelCard

from hf_distilhubert.errors import UserError
from model_card import measured, wording
from model_card.files import publishable
from model_card.render import render

# Every number that the full card may show: what the stages wrote, in the card's own words.
SHOWN = """
    1.24 1,238,021 1 3 5 16 2 20 16000 16,000 0
    23.50 200,017
    78.6 2 4 6 611 7 131 12.2 0.902 0.412 0.512 0.352 0.362 1.99
    1,489 25.6 17 13 409 24 0.0005 137 97 22.4 8.8
    157 463 4 25.2 9.2 0.013 71 29 11 2 19 95 22.1 29.0 7.1 11.5
    101 293 23.2 8.9 56 170 28.7 20.1 36.3
    149 25.7 31.7 5.9 8.2 3.9 0.014
    8 9 2.13.0 30 0.54 5.0 21.4 94.38 0.0431 0.0265 0.1551 0.1023 3.5 3.8
    8.3 3.1 0.032 104.1 71.1 53 59
    3.11 2.13.0 5.23
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than all the rest; where a test is about the figures, they are drawn."""
    if "figure" not in request.node.name:
        monkeypatch.setattr("model_card.figures.draw_figures", lambda facts, folder: {})


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    return make_recogniser(tmp_path / "recogniser")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return make_student(tmp_path / "student")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return make_bare(tmp_path / "bare")


def test_card_shows_every_number_it_was_given_and_no_other(recogniser: Path) -> None:
    # After a letter a digit is part of a name (L1, S3PRL).
    shown = re.findall(r"(?<![A-Za-z])\d+(?:,\d{3})*(?:\.\d+)*", prose(render(recogniser)))
    assert sorted(set(shown)) == sorted(set(SHOWN.split()))


def test_errors_speed_and_size_are_never_rounded_in_favour_of_the_model() -> None:
    assert wording.percent(0.2501) == "25.1 %"
    assert wording.percent(0.29) == "29.0 %"  # 0.29 * 100 is 28.999999999999996
    assert wording.percent(0.07) == "7.0 %"  # 0.07 * 100 is 7.000000000000001
    assert wording.millions(1_230_001) == "1.24 M"
    assert wording.factor(0.0121) == "0.013"
    assert wording.scientific(3.11e-7) == "3.2e-07"
    assert wording.scientific(9.91e-8) == "1.0e-07"
    assert wording.error_rate({"wer": 0.1, "wer_interval": [0.0519, 0.1511]}, "wer") == "10.0 % [5.1, 15.2]"
    assert [wording.signed(value, 1) for value in (-0.26, 0.21, 0)] == ["-0.2", "+0.3", "+0.0"]


def test_time_is_told_with_what_it_was_taken_on() -> None:
    assert "timed on 2 threads" in measured.error_line("test", SCORE | {"device": "cpu"})
    line = measured.error_line("test", SCORE | {"device": "cuda:0"})
    assert "timed on `cuda:0`" in line
    assert "thread" not in line


def test_a_ratio_that_the_benchmark_doubts_is_doubted_on_the_card() -> None:
    works = BENCHMARK["ratios"]["FastEncoder float32"]["teacher"]
    doubted = {"1 s": works["1 s"], "5 s": works["5 s"] | {"believed": False}}
    ratios = {"FastEncoder float32": {"teacher": works}, "FastEncoder int8": {"teacher": doubted}}
    first, second = measured.ratios(BENCHMARK | {"ratios": ratios})
    assert "disagree" not in first
    assert second.endswith("3.5 to 3.8 times as fast as `teacher` (the clocks disagree).")


def test_what_is_missing_is_left_out(bare: Path) -> None:
    card = render(bare)
    assert card.figures == []
    assert not re.search(r"\b(none|nan|null|undefined)\b", card.text, flags=re.IGNORECASE)
    assert headings(card) == [
        "How to use it",
        "Results",
        "Hidden states",
        "Limitations",
        "Input and text",
        "Licence",
    ]
    assert "WER and CER: not measured." in card.text
    assert "license:" not in card.text
    assert "Weights: not stated." in card.text
    assert "eval_results" not in ModelCard.load(card.path).data.to_dict()


def test_what_was_not_measured_is_said_so_and_never_nan(bare: Path) -> None:
    (bare / "scores/test").mkdir(parents=True)
    (bare / "scores/test/results.json").write_text(
        '{"wer": NaN, "cer": 0.5, "words": null, "seconds": 1e999}'
    )
    write(bare, "comparison.json", {"rows": [{"model": "teacher"}]})
    write(bare, "benchmark.json", {"ways": [{"name": "hf"}]})
    card = render(bare)
    assert not re.search(r"\b(none|nan|null|inf)\b", card.text, flags=re.IGNORECASE)
    row = next(line for line in card.text.splitlines() if "50.0 %" in line)
    assert row.split(" | ")[2:6] == ["not measured"] * 4


def test_parameters_are_counted_where_no_stage_did(tmp_path: Path, weights: Path) -> None:
    from transformers import HubertForCTC

    folder = tmp_path / "from-elsewhere"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((weights / name).read_bytes())
    assert f"({HubertForCTC(tiny_config()).num_parameters():,})" in render(folder).text


def test_card_of_a_student_promises_features_and_no_text(student: Path) -> None:
    card = render(student)
    assert ModelCard.load(card.path).data.pipeline_tag == "feature-extraction"
    assert "It gives features, not text" in card.text
    assert "WER" not in card.text


def test_a_head_that_learned_nothing_is_no_recogniser_yet(bare: Path) -> None:
    write(bare, "lineage.json", [CONVERT | {"model_class": "HubertForCTC", "vocabulary": LETTERS}])
    card = render(bare)
    assert "A speech recogniser that is still to be trained" in card.text
    assert "python -m finetune.train --model bare --data RECORDINGS" in card.text
    assert "until it is fine-tuned, it writes nonsense" in card.text
    assert not {"Results"} & set(headings(card))


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"processor": "P", "cores": 2, "device": "cpu", "processes": 1}, "It took 97 s on `P` (2 cores)."),
        ({"processor": "P", "cores": 2, "device": "mps", "processes": 1}, "It took 97 s on `mps`."),
        (
            {"processor": "P", "cores": 2, "device": "cuda", "device_name": "G", "processes": 4},
            "It took 97 s on `G` in 4 processes.",
        ),
        ({}, "It took 97 s."),
    ],
    ids=["CPU", "other", "GPUs", "not recorded"],
)
def test_duration_is_told_with_the_hardware(machine: dict[str, Any], words: str, bare: Path) -> None:
    write(bare, "lineage.json", [FINETUNE | {"hardware": machine}])
    assert words in render(bare).text


def test_what_happened_to_the_teacher_is_told_apart(student: Path) -> None:
    write(student, "lineage.json", [FINETUNE, DISTILL])
    text = render(student).text
    assert "1. The teacher: **Fine-tuned** with CTC from `student`" in text
    assert "2. **Distilled** from `someone/small-teacher`" in text
    # Neither the teacher's transcripts nor its letters are the student's.
    assert "transcribed speech" not in text
    assert "Vocabulary" not in text
    going_on = DISTILL | {"source": "first-student", "teacher": "someone/small-teacher"}
    write(student, "lineage.json", [DISTILL, going_on])
    text = render(student).text
    assert "1. **Distilled** from `someone/small-teacher`" in text
    assert "2. **Distilled** from `someone/small-teacher`, going on with `first-student`" in text


def test_card_holds_no_path_of_this_machine(recogniser: Path) -> None:
    write(
        recogniser, "results.json", {**FINETUNE, "source": str(recogniser), "data": "C:\\Users\\me\\numbers"}
    )
    text = render(recogniser).text
    assert not re.search(r"(?<![\w.:/-])/(home|tmp|root|work|private|Users)|[A-Z]:\\", text)
    assert str(recogniser.parent) not in text
    assert "Teacher read from teacher; same steps" in text


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/a/b", "a/b and/or c", "hub:a/b:c", "10 words/s", "no / one"]
)
def test_addresses_and_fractions_are_not_taken_for_paths(text: str) -> None:
    assert publishable({"note": [text]}) == {"note": [text]}


def test_transcripts_cannot_break_their_table(recogniser: Path) -> None:
    text = render(recogniser).text
    assert r"| clip_53.wav | two ten | two \| tne |" in text
    assert "| clip_59.wav | one | (nothing) |" in text


def test_very_many_groups_are_folded_and_cut(recogniser: Path) -> None:
    speakers = {f"speaker {n}": {"utterances": 1, "words": 200 - n, "wer": 0.1} for n in range(100)}
    write(recogniser, "scores/test/results.json", SCORE | {"groups": {"speaker": speakers}})
    text = render(recogniser).text
    assert "<summary>test by speaker, 60 rows</summary>\n\n|  |" in text
    assert "40 more, with fewer words, are in `scores/`." in text
    assert "`speaker 59`" in text
    assert "`speaker 60`" not in text


@pytest.mark.parametrize("kind", ["recogniser", "student"])
def test_every_figure_that_was_drawn_is_shown_on_light_and_dark_pages(
    kind: str, request: pytest.FixtureRequest
) -> None:
    card = render(request.getfixturevalue(kind))
    assert card.figures
    for figure in card.figures:
        assert figure.is_file()
        assert f'="figures/{figure.name}"' in card.text


def test_a_failed_rendering_keeps_the_card_that_was_there(
    recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(recogniser)
    card = (recogniser / "README.md").read_bytes()
    write(recogniser, "scores/test/results.json", {**SCORE, "wer": 0.99})

    replace = Path.replace

    def fail_for_the_card(path: Path, target: Path) -> Path:
        if target.name == "README.md":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_card)
    with pytest.raises(UserError, match="No space left"):
        render(recogniser)
    assert (recogniser / "README.md").read_bytes() == card
    assert not list(recogniser.rglob(".*"))


def test_limits_come_from_the_folder(recogniser: Path) -> None:
    text = render(recogniser).text
    assert "25.6 min, 1,489 clips, 17 speakers" in text
    assert "e n o t w" in text
    assert "one case only, no digits" in text
    assert "synthetic" not in text
    write(recogniser, "results.json", {**FINETUNE, "synthetic": True})
    text = render(recogniser).text
    assert "Some of the speech that it learned from is synthetic." in text
    assert "figures come from synthetic speech" not in text
    write(recogniser, "scores/test/results.json", SCORE | {"data": "synthetic-digits"})
    assert "figures come from synthetic speech" in render(recogniser).text


def test_what_was_evaluated_in_training_is_not_called_unmeasured(bare: Path) -> None:
    write(bare, "lineage.json", [FINETUNE])
    text = render(bare).text
    assert "WER and CER: not measured after the training." in text
    assert "did not see was not measured after that training." in text


def test_a_method_is_cited_only_where_it_was_used(bare: Path) -> None:
    write(bare, "lineage.json", [FINETUNE])
    text = render(bare).text
    assert "@software" in text
    assert "chang2022distilhubert" not in text
    write(bare, "lineage.json", [DISTILL, FINETUNE])
    assert "chang2022distilhubert" in render(bare).text


def test_command_writes_the_card_and_says_where(bare: Path) -> None:
    line = [sys.executable, "-m", "model_card.render", str(bare), "--language", "en"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == bare / "README.md"
    assert ModelCard.load(bare / "README.md").data.language == "en"


def test_help_is_quick_and_has_examples() -> None:
    start = time.perf_counter()
    line = [sys.executable, "-m", "model_card.render", "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert time.perf_counter() - start < 2
    assert done.returncode == 0
    assert "python -m model_card.render MODEL_DIR --language en" in done.stdout
