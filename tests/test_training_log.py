"""What is seen of a training run: its log, its curves, its trackers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from accelerate.utils import LoggerType
from crashes import Crash, at_step, crash
from matplotlib.image import imread

from hf_distilhubert import UserError
from hf_distilhubert.curves import draw_distillation, read_log
from hf_distilhubert.distill import distill
from hf_distilhubert.objective import OBJECTIVES

# Records how it was called; stands in for packages that need an account or a server.
RECORDER = """
import json, pathlib
def note(*entry):
    with open(pathlib.Path(__file__).with_suffix(".jsonl"), "a") as file:
        file.write(json.dumps(entry) + "\\n")
class Run:
    def log(self, values, step=None, **_): note("log", step, sorted(values))
    def finish(self): note("finish")
class Config:
    def update(self, values, **_): note("config", values["seed"])
def init(**arguments):
    note("init", arguments)
    return Run()
config = Config()
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let Accelerate find this code as the package trackio."""
    (folder / "trackio.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.TRACKIO])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_log_has_losses_and_teacher_norms_and_the_folder_their_curves(config, objective):
    result = distill(config(objective=objective, eval_steps=6))
    lines = read_log(result.folder / "log.jsonl")
    norms = [line["teacher_norm"] for line in lines if "teacher_norm" in line]
    assert len(norms) == 4
    assert all(set(norm) == {"2", "4"} and min(norm.values()) > 0 for norm in norms)
    held_out = [line for line in lines if "held_out" in line]
    assert [line["step"] for line in held_out] == [0, 6, 12]
    assert held_out[0]["held_out"]["teacher_norm"] == held_out[-1]["held_out"]["teacher_norm"]
    assert imread(result.folder / "figures" / "losses.png").shape[1] == 1600


def test_a_run_without_steps_has_no_curves(config):
    assert not (distill(config(max_steps=0)).folder / "figures").exists()


def test_long_runs_and_many_layers_are_drawn(tmp_path: Path) -> None:
    layers = {str(layer): 1.0 / layer for layer in range(1, 13)}
    figures = {"grad_norm": 1.0, "l1": layers, "cosine": layers}
    log = [{"step": step, "loss": 1.0 / step, **figures} for step in range(1, 500)]
    draw_distillation(log, tmp_path / "losses.png")
    assert imread(tmp_path / "losses.png").size


def test_figures_reach_tensorboard_once_across_a_stop(config, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with at_step(7, crash), pytest.raises(Crash):
        distill(config(report_to="tensorboard"))
    distill(config(report_to="tensorboard"))
    events = accumulator.EventAccumulator(str(tmp_path / "student.checkpoints" / "hf-distilhubert"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("held_out/l1/4")] == [0, 4, 8, 12]


def test_a_run_that_goes_on_is_one_run_in_a_tracker(config, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, RECORDER)
    with at_step(7, crash), pytest.raises(Crash):
        distill(config(report_to="trackio"))
    distill(config(report_to="trackio"))
    calls = [json.loads(line) for line in (tmp_path / "trackio.jsonl").open()]
    begun, resumed = [arguments for name, arguments in (call for call in calls if call[0] == "init")]
    assert begun["name"] == resumed["name"]
    assert begun["name"].startswith("student-")
    assert (begun["resume"], resumed["resume"]) == ("never", "allow")
    assert [call for call in calls if call[0] == "config"] == [["config", 0]]
    assert [call[1] for call in calls if call[0] == "log" and "loss" in call[2]] == [3, 6, 9, 12]


def test_a_tracker_that_is_not_there_or_fails_is_one_line(config, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="report_to is 'paper'"):
        config(report_to="paper")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="needs the package wandb: pip install wandb"):
        distill(config(report_to="wandb"))
    monkeypatch.undo()
    stand_in(monkeypatch, tmp_path, "def init(**_): raise RuntimeError('no login')")
    with pytest.raises(UserError, match="--report_to trackio failed: no login"):
        distill(config(report_to="trackio"))
    assert not (tmp_path / "student.checkpoints").exists()
