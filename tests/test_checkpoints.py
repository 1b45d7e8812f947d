"""What a run leaves when it ends early, what it finds when it is called again, and what it does with it."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from crashes import Crash, at_step, crash
from safetensors.torch import load_file
from stopped_runs import outcome
from transformers import HubertModel

from hf_distilhubert import DistillConfig, HubertForLayerDistillation, UserError, training
from hf_distilhubert import checkpoints as storage
from hf_distilhubert.checkpoints import Checkpoints, damage, seal
from hf_distilhubert.distill import distill


@pytest.fixture
def crashed(config):
    """Ends a run in its seventh step, with checkpoints of steps 4 and 6; its settings."""

    def run(**changes) -> DistillConfig:
        with at_step(6, crash), pytest.raises(Crash):
            distill(config(**changes))
        return config(**changes)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in Path(f"{folder}.checkpoints").iterdir())


def test_workers_make_no_difference(config, tmp_path):
    for number in (0, 2):
        distill(config(output_dir=str(tmp_path / str(number)), num_workers=number))
    assert outcome(tmp_path / "0") == outcome(tmp_path / "2")


def test_what_else_draws_random_numbers_makes_no_difference(config, tmp_path):
    distill(config(output_dir=str(tmp_path / "alone")))
    with at_step(3, lambda: torch.rand(5)):
        distill(config())
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")


def test_a_finished_run_says_so_and_is_left_alone(config, tmp_path, capsys):
    first = distill(config())
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    capsys.readouterr()
    again = distill(config(logging_steps=5, num_workers=2, save_steps=0))
    assert again == first
    assert "student is finished; --overwrite begins anew" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    with pytest.raises(UserError, match=r"another learning_rate \(0.001, now 0.002\), seed \(0, now 1\)"):
        distill(config(learning_rate=2e-3, seed=1))
    assert distill(config(learning_rate=2e-3, overwrite=True)).run != first.run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spoken", "student", "teacher"]


def test_other_settings_or_other_speech_do_not_go_on(crashed, config, spoken):
    crashed()
    with pytest.raises(
        UserError, match=r"checkpoints is there already.*another max_samples \(3000, now 8000\)"
    ):
        distill(config(max_samples=8_000))
    (spoken / "train" / "0.flac").write_bytes((spoken / "train" / "1.flac").read_bytes())
    with pytest.raises(UserError, match=r"another speech \(12 clips, digest"):
        distill(config())


def test_checkpoints_are_students_and_the_newest_stay_with_the_best(crashed, config, tmp_path, monkeypatch):
    losses = iter([4.0, 3.0, 5.0, 6.0])
    figures = "hf_distilhubert.distillation_run.held_out_loss"
    monkeypatch.setattr(figures, lambda *_, **__: {"loss": next(losses), "l1": {}, "cosine": {}})
    result = distill(config())
    assert (result.run.best_step, names(result.folder)) == (4, ["best"])
    monkeypatch.undo()
    folder = tmp_path / "student.checkpoints" / "best"
    assert damage(folder) is None
    student = HubertForLayerDistillation.from_pretrained(folder)
    heads = load_file(result.folder / "model.safetensors")
    assert student.state_dict().keys() == heads.keys()
    HubertModel.from_pretrained(folder)
    crashed(overwrite=True, eval_steps=2, save_steps=1, keep_checkpoints=3)
    assert names(result.folder) == ["log.jsonl", *(f"step-0000000{step}" for step in (4, 5, 6))]


def test_two_runs_do_not_write_the_same_folder(crashed, config, tmp_path):
    settings = crashed()
    with Checkpoints(tmp_path / "student").opened(anew=False):
        with pytest.raises(
            UserError, match=r"another run is writing .*student\.checkpoints; wait for its end"
        ):
            distill(settings)
        assert names(tmp_path / "student") == [".lock", "log.jsonl", "step-00000004", "step-00000006"]
    distill(settings)
    assert not (tmp_path / "student.checkpoints").exists()


@pytest.mark.parametrize("harm", ["changed", "cut", "lost", "half"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(crashed, config, capsys, tmp_path, harm):
    distill(config(output_dir=str(tmp_path / "alone")))
    settings = crashed()
    newest = tmp_path / "student.checkpoints" / "step-00000006"
    file = newest / ("SHA256SUMS" if harm == "half" else "optimizer.bin")
    if harm == "changed":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif harm == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
    capsys.readouterr()
    distill(settings)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if " is damaged (" in line]
    assert file.name in said
    assert "step-00000006" in said
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")
    assert not Path(f"{settings.output_dir}.checkpoints").exists()


def test_without_a_whole_checkpoint_it_begins_again(crashed, tmp_path):
    settings = crashed()
    for path in Checkpoints(tmp_path / "student").named():
        (path / "state.json").write_text("{}")
    distill(settings)
    assert 'step": 0' in (tmp_path / "student" / "log.jsonl").read_text()


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("ran-what-was-in-the-file"),)


def test_nothing_in_a_checkpoint_is_run(crashed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = crashed()
    for path in Checkpoints(tmp_path / "student").named():
        for file in (*path.glob("*.bin"), *path.glob("*.pkl")):
            torch.save(Payload(), file)
        seal(path)
    with pytest.raises(UserError, match="cannot go on from .*step-00000006"):
        distill(settings)
    assert not (tmp_path / "ran-what-was-in-the-file").exists()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def no_room():
    """Every file that grows beyond 20 kB fails, as on a full disk, in whatever library writes it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_it(config, tmp_path, monkeypatch):
    distill(config(output_dir=str(tmp_path / "alone")))
    said = r"cannot write the checkpoint of step 6 .*; the same command goes on from step 4"
    fill = partial(monkeypatch.setattr, storage, "seal", full_disk)
    with at_step(5, fill), pytest.raises(UserError, match=said):
        distill(config())
    monkeypatch.undo()
    assert names(tmp_path / "student") == ["log.jsonl", "step-00000002", "step-00000004"]
    with no_room(), pytest.raises(UserError, match=said):
        distill(config())
    assert names(tmp_path / "student") == ["log.jsonl", "step-00000002", "step-00000004"]
    distill(config())
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")


def test_a_full_disk_at_the_end_loses_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distilhubert.distillation_folder.record", full_disk)
    with pytest.raises(UserError, match="cannot write .*student: .*No space left.* goes on from its last"):
        distill(config())
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    monkeypatch.setattr(training, "_step", crash)  # there is nothing left to train
    distill(config())
    assert (tmp_path / "student" / "results.json").is_file()


def test_a_run_that_was_to_overwrite_goes_on_without_being_told_again(config, crashed, tmp_path):
    first = distill(config())
    crashed(overwrite=True, seed=1)
    with pytest.raises(UserError, match="another seed"):
        distill(config())
    with at_step(9, crash), pytest.raises(Crash):
        distill(config(seed=1))
    second = distill(config(seed=1))
    assert second.run != first.run
    assert distill(config(seed=1)) == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spoken", "student", "teacher"]


def test_beginning_anew_throws_away_no_input(crashed, config):
    settings = crashed()
    source = f"{settings.output_dir}.checkpoints/step-00000006"
    with pytest.raises(UserError, match="step-00000006 lies where --overwrite clears"):
        distill(config(student=source, overwrite=True))
    assert damage(Path(source)) is None
    first = distill(settings)
    with pytest.raises(UserError, match="lies in the output folder"):
        distill(config(student=str(first.folder), overwrite=True))


def test_steps_left_out_are_counted_across_a_stop(config, monkeypatch, tmp_path):
    accumulate, broken = training._accumulate, []

    def sometimes_broken(parts, batches):
        frames, figures = accumulate(parts, batches)
        return frames, figures | {"loss": figures["loss"] * (broken.pop() if broken else 1.0)}

    monkeypatch.setattr(training, "_accumulate", sometimes_broken)
    with at_step(3, lambda: broken.append(float("nan"))):
        distill(config(output_dir=str(tmp_path / "alone")))
        with at_step(5, crash), pytest.raises(Crash):
            distill(config())
    distill(config())
    assert outcome(tmp_path / "alone")["results"]["skipped_steps"] == 1
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")
