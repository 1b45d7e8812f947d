"""Runs that learn from targets on disk, and runs whose front end is frozen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LARGE, ROOT, RUNS, save_teacher
from crashes import Crash, at_step, crash
from safetensors.torch import load_file
from stopped_runs import SETTINGS, outcome

from hf_distilhubert import DistillConfig, UserError
from hf_distilhubert.distill import distill
from hf_distilhubert.pretraining import TeacherLoss
from hf_distilhubert.teachers import Teacher


@pytest.fixture
def config(spoken, tmp_path):
    """Settings for a folder `student`, with a cache; no clip is cropped."""
    teacher = save_teacher(tmp_path / "teacher", hidden_dropout=0.1)
    given = {"teacher": str(teacher), "data": str(spoken), "output_dir": str(tmp_path / "student")}
    given |= {"cache_targets": str(tmp_path / "targets"), "precision": "fp32"}
    return lambda **changes: DistillConfig(**given | SETTINGS | {"max_samples": 100_000} | changes)


def losses(folder: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return np.array([line["loss"] if "loss" in line else line["held_out"]["loss"] for line in lines])


def test_results_equal_those_without_a_cache_up_to_the_storage_precision(config, tmp_path):
    plain = losses(distill(config(cache_targets="", output_dir=str(tmp_path / "plain"))).folder)
    for dtype, bound in (("float16", 5e-5), ("int8", 5e-4)):
        where = {"cache_targets": str(tmp_path / dtype), "output_dir": str(tmp_path / f"with {dtype}")}
        found = losses(distill(config(cache_dtype=dtype, **where)).folder)
        assert 0 < np.abs(found / plain - 1).max() < bound


def test_a_whole_cache_needs_no_teacher_and_serves_other_runs(config, tmp_path, monkeypatch):
    distill(config(max_steps=0))
    devices = set()

    def loss_function(teacher, *rest):
        devices.update(parameter.device.type for parameter in teacher.parameters())
        return TeacherLoss(teacher, *rest)

    monkeypatch.setattr("hf_distilhubert.distillation_run.TeacherLoss", loss_function)
    monkeypatch.setattr(Teacher, "forward", crash)
    before = sorted((tmp_path / "targets").iterdir())
    for changes in (
        {"seed": 1, "max_samples": 3_000},
        {"objective": "mean-of-layers", "num_hidden_layers": 1},
    ):
        distill(config(overwrite=True, max_steps=2, **changes))
    assert sorted((tmp_path / "targets").iterdir()) == before
    assert devices == {"meta"}  # it takes no room
    (shard,) = (tmp_path / "targets").glob("*.bin")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(
        UserError, match=r"^the targets of train/\S+ are damaged; delete .*targets-00000\.bin"
    ):
        distill(config(overwrite=True, max_steps=2, num_workers=1, eval_split="none"))


def test_a_run_with_a_cache_goes_on_exactly_also_elsewhere_but_not_without(config, tmp_path):
    crops = {"max_samples": 3_000, "max_steps": 8}
    distill(config(output_dir=str(tmp_path / "alone"), num_workers=2, **crops))
    with at_step(6, crash), pytest.raises(Crash):
        distill(config(**crops))
    with pytest.raises(UserError, match="another targets \\(of whole clips, float16, teacher .*now of crops"):
        distill(config(cache_targets="", **crops))
    with pytest.raises(UserError, match="another cache_dtype"):
        distill(config(cache_targets=str(tmp_path / "new"), cache_dtype="int8", **crops))
    (tmp_path / "targets").rename(tmp_path / "moved")
    distill(config(cache_targets=str(tmp_path / "moved"), **crops))
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")


def test_accumulation_and_two_processes_fill_it_and_learn_the_same(spoken, tmp_path):
    teacher, found = save_teacher(tmp_path / "teacher", **LARGE), []
    for name, processes, accumulation in (("one", 1, 1), ("two", 2, 2)):
        flags = {"teacher": teacher, "data": spoken, "cache_targets": tmp_path / f"of {name}"}
        flags |= {"output_dir": tmp_path / name, "precision": "fp32", "accumulation": accumulation}
        # Without a masked group norm (here there is none) clips are heard one by one: work for two.
        flags |= {"mask_group_norm": False, "batch_size": 8, "max_steps": 2, "logging_steps": 1}
        flags |= {"max_samples": 3_000, "pad_multiple": 1_000}
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        words += ["--target_layers", "2", "4"]
        answer = RUNS.ask(flags=words, output=str(tmp_path / "printed"), processes=processes)
        assert set(answer["statuses"]) == {0}, answer["printed"]
        assert len(list((tmp_path / f"of {name}").glob("*.bin"))) == processes
        found.append(losses(tmp_path / name))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


FAILING = """
from torch.utils.data import DataLoader
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.processes import start_reader
class Clips:
    def __len__(self):
        return 1
    def __getitem__(self, number):
        raise UserError("damaged")
run_command(lambda: next(iter(DataLoader(Clips(), num_workers=1, worker_init_fn=start_reader))))
"""


def test_after_an_error_a_program_ends_though_readers_ignore_signals():
    run = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2, run.stderr


def test_what_does_not_go_with_a_cache_is_refused(config, tmp_path):
    for changes in ({"teacher_dropout": True}, {"mask_loss": False}):
        with pytest.raises(UserError, match=f"does not go with {next(iter(changes))}"):
            config(**changes)
    for folder in ("student/targets", "student.checkpoints"):
        with pytest.raises(UserError, match="lies in the output folder; give another as --cache_targets"):
            distill(config(cache_targets=str(tmp_path / folder)))


# The frozen front end


def test_a_frozen_front_end_stays_and_has_no_part_in_the_backward_pass(config, tmp_path, monkeypatch):
    graphs = []
    with monkeypatch.context() as patch:
        seen = torch.nn.Module.__call__

        def call(module, *arguments, **named):
            output = seen(module, *arguments, **named)
            if type(module).__name__ == "HubertFeatureEncoder" and torch.is_grad_enabled():
                graphs.append(output.requires_grad)
            return output

        patch.setattr(torch.nn.Module, "__call__", call)
        result = distill(config(freeze_feature_encoder=True, max_steps=3))
    assert set(graphs) == {False}
    before = load_file(tmp_path / "teacher" / "model.safetensors")
    after = load_file(result.folder / "model.safetensors")
    same = {
        name for name, weight in before.items() if torch.equal(after.get(f"hubert.{name}", weight), weight)
    }
    assert {name for name in before if name.startswith("feature_extractor.")} <= same
    assert "encoder.layers.0.attention.q_proj.weight" not in same
