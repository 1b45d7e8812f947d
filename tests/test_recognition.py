"""The recognisers of real speech: what is run on what, what validation decides, and the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recognition, recognition_scores
from benchmarks.recognition import Steps
from benchmarks.recognition_scores import best, searches, tables

AGAINST = {"difference": -0.012, "interval": [-0.03, 0.001], "p_value": 0.07}
SCORE = {"wer": 0.5, "wer_interval": [0.4, 0.61], "cer": 0.25, "cer_interval": None, "words": 1234}
SCORE |= {"utterances": 40, "resampled": "utterances", "against": AGAINST}


def figures(**changes: Any) -> dict[str, Any]:
    found = {kind: dict(SCORE) for kind in ("undistilled", "distilled", "searched")}
    return {"hours": 0.25, "search": ["words", 0.7, 1.5], **found} | changes


def test_the_lowest_word_error_rate_wins_then_the_lowest_character_error_rate_then_the_first():
    first, second, third = list(searches())[:3]
    assert best({first: (0.3, 0.1), second: (0.2, 0.2), third: (0.2, 0.1)}) == third
    assert best({first: (0.2, 0.1), second: (0.2, 0.1)}) == first


def test_every_kind_of_language_model_is_tried_with_every_weight_and_bonus():
    tried = list(searches())
    assert len(tried) == len(set(tried)) == 12
    assert {search.kind for search in tried} == {"words", "characters"}
    assert len({search.name for search in tried}) == 12


def test_the_tables_show_rates_intervals_and_what_the_paired_test_sees():
    searched = SCORE | {"against": {"difference": -0.2, "interval": None, "p_value": 0.0001}}
    lines = tables({"some_set": figures(searched=searched)}).splitlines()
    assert lines[2] == (
        "| some_set | 15 min | 1,234 | 50.0 [40.0, 61.0] | 50.0 [40.0, 61.0] | -1.2 [-3.0, +0.1], p = 0.070 "
        "| 50.0 [40.0, 61.0] | words-0.7-1.5 | **-20.0, p < 0.001** |"
    )
    assert lines[-1] == "| some_set | 25.0 | 25.0 | 25.0 |"
    assert all(line.count("|") == lines[0].count("|") for line in lines[:3])
    assert all(line.count("|") == lines[-1].count("|") for line in lines[-3:])


def test_what_is_done_is_not_done_again_and_its_time_counts(tmp_path):
    done: list[str] = []
    for _ in range(2):
        steps = Steps(tmp_path)
        steps.once(tmp_path / "a", lambda: (done.append("a"), (tmp_path / "a").mkdir()))
    assert done == ["a"]
    assert steps.seconds().keys() == {"a"}


def test_a_step_that_fails_is_done_again(tmp_path):
    steps = Steps(tmp_path)
    with pytest.raises(ZeroDivisionError):
        steps.once(tmp_path / "a", lambda: 1 / 0)
    steps.once(tmp_path / "a", (tmp_path / "a").mkdir)
    assert (tmp_path / "a").is_dir()


def test_both_students_are_treated_alike_and_test_clips_are_heard_once_per_column(
    speech_dir, tmp_path, monkeypatch, capsys
):
    runs: list[dict[str, Any]] = []
    scored: list[tuple[str, str, Any]] = []

    def run(_module: str, settings: dict[str, Any]) -> None:
        runs.append(settings)
        folder = Path(settings["output_dir"])
        folder.mkdir(parents=True)
        (folder / "results.json").write_text('{"train_hours": 0.5}')

    def score(model: str, _data: str, *, output_dir: Path, split: str = "test", **others: Any) -> None:
        scored.append((Path(model).name, split, others.get("against")))
        output_dir.mkdir(parents=True)
        # The later ones do better, the last on the validation split best.
        found = SCORE | {"wer": 1.0 - len(scored) / 100}
        (output_dir / "results.json").write_text(json.dumps(found))

    monkeypatch.setattr(recognition, "run", run)
    monkeypatch.setattr(recognition_scores, "score", score)
    monkeypatch.setattr(recognition_scores, "_decoder", lambda *_: None)
    words = ["--speech", str(speech_dir), "--output_dir", str(tmp_path / "out"), "--sets", "keywords"]
    monkeypatch.setattr(sys, "argv", ["recognition", *words])
    recognition.main()
    printed = capsys.readouterr().out

    *_, spelling, distilled_spelling, last, distilled_last = (
        settings | {"model": "", "output_dir": ""} for settings in runs
    )
    assert (spelling, last) == (distilled_spelling, distilled_last)
    assert [Path(settings["model"]).name for settings in runs[-4:]] == [
        *("undistilled", "distilled", "undistilled-spelling", "distilled-spelling")
    ]
    assert [settings["max_steps"] for settings in runs if "teacher" in settings] == [
        0,
        recognition.STEPS["distilled"],
    ]
    heard = [(model, against) for model, split, against in scored if split == "test"]
    greedy = tmp_path / "out" / "scores" / "keywords-undistilled"
    assert heard == [
        ("keywords-undistilled", None),
        ("keywords-distilled", greedy),
        ("keywords-distilled", None),
    ]
    assert list(searches())[-1].name in printed

    recognition.main()
    assert len(runs) == 10
    assert printed.endswith(capsys.readouterr().out)
