"""A folder that exists is whole, and nothing is lost on the way; what fails is said in one line."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import HubertModel

from hf_distilhubert.errors import UserError, one_line, run_command
from hf_distilhubert.folders import check_new, new_folder
from hf_distilhubert.loading import load_model
from hf_distilhubert.provenance import read_lineage, record, short_name


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "results.json").write_text("{}")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_after_an_error_the_old_folder_is_there_and_nothing_else(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "results.json").write_text("old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "results.json").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "results.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_replaced_unasked_and_nothing_foreign_at_all(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "one.jpg").touch()
    with pytest.raises(UserError, match="exists already"):
        check_new(tmp_path / "photographs")
    with pytest.raises(UserError, match="other things than a result"):
        check_new(tmp_path / "photographs", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        check_new(tmp_path / "photographs" / "one.jpg")


def test_lineage_grows_from_stage_to_stage(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    record(
        tmp_path / "first", "distill", {"seed": 1, "overwrite": True}, {"steps": 3}, source="someone/teacher"
    )
    record(tmp_path / "second", "finetune", {"seed": 2}, {"steps": 4}, source=tmp_path / "first")
    stages = read_lineage(tmp_path / "second")
    assert [(stage["stage"], stage["source"], stage["steps"]) for stage in stages] == [
        ("distill", "someone/teacher", 3),
        ("finetune", "first", 4),
    ]
    assert (tmp_path / "first" / "distill.yaml").read_text() == "seed: 1\n"
    assert json.loads((tmp_path / "second" / "results.json").read_text()) == {"stage": "finetune", "steps": 4}


def test_a_figure_that_is_not_finite_is_written_as_missing(tmp_path):
    record(tmp_path, "distill", {}, {"loss": math.nan, "l1": {"2": math.inf}})
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "stage": "distill",
        "loss": None,
        "l1": {"2": None},
    }


def test_published_names_hold_no_path_of_this_machine(tmp_path):
    assert short_name(tmp_path) == tmp_path.name
    assert short_name("someone/model") == "someone/model"
    assert short_name(None) is None


def test_a_model_with_a_missing_weight_is_refused_by_its_name(tiny_teacher):
    weights = load_file(tiny_teacher / "model.safetensors")
    gone = "encoder.layers.1.feed_forward.output_dense.weight"
    save_file({k: v for k, v in weights.items() if k != gone}, tiny_teacher / "model.safetensors")
    with pytest.raises(UserError, match=gone):
        load_model(HubertModel, tiny_teacher)
    assert load_model(HubertModel, tiny_teacher, allow_missing=("encoder.layers.1.",)) is not None


def test_a_damaged_model_is_refused_in_one_line(tiny_teacher):
    whole = (tiny_teacher / "model.safetensors").read_bytes()
    (tiny_teacher / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot load HubertModel") as caught:
        load_model(HubertModel, tiny_teacher)
    assert "\n" not in str(caught.value)


def test_half_precision_files_are_loaded_in_float32(tiny_teacher):
    HubertModel.from_pretrained(tiny_teacher).half().save_pretrained(tiny_teacher)
    assert load_model(HubertModel, tiny_teacher).dtype == torch.float32


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(UserError("a\n  b"), 2, "error: a b\n"), (KeyboardInterrupt(), 130, "error: interrupted\n")],
)
def test_a_command_ends_in_one_line_and_a_status(capsys, error, status, said):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == said


def test_long_messages_are_cut():
    assert len(one_line("x" * 5_000, limit=100)) == 100


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("distill", "--bogus", "1"), ("distill", "no.yaml"), ("transcribe",)],
    ids=" ".join,
)
def test_a_wrong_command_line_gives_one_line_and_status_2(arguments):
    run = subprocess.run(
        [sys.executable, "-m", "hf_distilhubert", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("error: ")
