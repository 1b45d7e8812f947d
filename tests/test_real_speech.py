"""The table on real speech: its probes, what they are asked, and the command from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_teacher

from benchmarks import probe_tasks, probes, real_speech
from benchmarks.probe_tasks import load_tasks
from benchmarks.probes import Split, clip_means, probe
from hf_distilhubert import UserError
from hf_distilhubert.speech_data import load_clips

LABELS = ["one", "two", "three"] * 20
SPLIT = Split(list(range(30)), list(range(30, 60)))
HOLDS = 2  # the layer that says which class it is


@pytest.fixture
def features() -> torch.Tensor:
    """Noise in four layers, with the class in one of them."""
    noise = torch.randn(60, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, label in enumerate(LABELS):
        noise[number, HOLDS, ["one", "two", "three"].index(label)] += 8.0
    return noise


def test_the_layer_that_holds_the_class_is_found(features):
    found = probe(features, LABELS, [SPLIT])
    assert (found.accuracy, found.test_clips) == (1.0, 30)
    assert found.layer_weights.index(max(found.layer_weights)) == HOLDS
    assert sum(found.layer_weights) == pytest.approx(1.0)
    for layer in {0, 1, 3}:
        assert probe(features[:, layer : layer + 1], LABELS, [SPLIT]).accuracy < 0.6


def test_a_probe_is_the_same_every_time_and_learns_nothing_from_the_clips_that_count(features):
    first = probe(features, LABELS, [SPLIT])
    torch.manual_seed(1)
    assert probe(features, LABELS, [SPLIT]) == first
    features[SPLIT.test] *= -100.0
    assert probe(features, LABELS, [SPLIT]).layer_weights == first.layer_weights


def test_features_are_the_means_of_a_clip_alone_normalised_as_its_model_wants(tmp_path, spoken):
    from transformers import AutoFeatureExtractor, HubertModel

    folder = save_teacher(tmp_path / "teacher")
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    extractor.do_normalize = True
    extractor.save_pretrained(folder)
    clips = load_clips(spoken, "test").clips
    inputs = extractor(clips[1].read(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        states = HubertModel.from_pretrained(folder).eval()(inputs, output_hidden_states=True).hidden_states
    found = clip_means(folder, clips)
    assert found.shape == (4, 5, 32)
    expected = torch.stack([state[0].mean(dim=0) for state in states]).double()
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)


def test_no_task_counts_a_clip_that_its_probe_has_learned_from(speech_dir):
    tasks = {task.name: task for task in load_tasks(speech_dir)}
    assert [task.test_clips for task in tasks.values()] == [90, 300, 300, 20, 100, 300]
    assert [round(1 / task.chance) for task in tasks.values()] == [6, 10, 10, 10, 10, 6]
    for task in tasks.values():
        assert all(not set(split.train) & set(split.test) for split in task.splits)
        assert all({task.labels[i] for i in split.train} == set(task.labels) for split in task.splits)
    other = tasks["digits, other voice"]
    for split in other.splits:
        assert not {other.clips[i].speaker for i in split.train} & {
            other.clips[i].speaker for i in split.test
        }


def test_the_command_makes_the_table_and_repeats_nothing(speech_dir, tmp_path, monkeypatch, capsys):
    from hf_distilhubert.distill import main as distill

    def in_this_process(_module: str, settings: dict[str, Any]) -> None:
        words = ((f"--{name}", value) for name, value in settings.items())
        flat = (
            word
            for name, value in words
            for word in (name, *(value if isinstance(value, tuple) else [value]))
        )
        distill([str(word) for word in flat])

    everyone = real_speech.students((2, 4, 6))
    monkeypatch.setattr(real_speech, "run", in_this_process)
    monkeypatch.setattr(real_speech, "students", lambda several: [everyone[1], everyone[5]])
    monkeypatch.setattr(probes, "STEPS", 5)
    monkeypatch.setattr(probe_tasks, "load_tasks", lambda speech, limit: load_tasks(speech, limit)[:1])
    arguments = ["--speech", str(speech_dir), "--output_dir", str(tmp_path / "out")]
    arguments += ["--seeds", "3", "4", "--steps", "2", "--teacher_steps", "0", "--limit", "1"]
    monkeypatch.setattr(sys, "argv", ["real_speech", *arguments])
    real_speech.main()
    lines = capsys.readouterr().out.splitlines()
    table = lines[-11:]
    names = [line.split("|")[1].strip() for line in table[5:]]
    assert names == [
        *("teacher", *(f"teacher, layer {layer} alone" for layer in (2, 4, 6))),
        *("narrow: undistilled", "paper: layer-to-layer 3, 6"),
    ]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [run["seed"] for run in rows["paper: layer-to-layer 3, 6"]] == [3, 4]
    assert [run["seed"] for run in rows["narrow: undistilled"]] == [3]

    monkeypatch.setattr(probes, "clip_means", lambda *_: pytest.fail("measured again"))
    real_speech.main()
    assert capsys.readouterr().out.splitlines()[-11:] == table


def test_a_student_before_it_learns_is_the_same_for_every_seed(tiny_teacher, spoken, tmp_path):
    from hf_distilhubert.distill import distill
    from hf_distilhubert.settings import DistillConfig

    def undistilled(seed: int) -> Path:
        folder = tmp_path / f"student-{seed}"
        settings = {"target_layers": [2, 4], "max_steps": 0, "seed": seed, "num_hidden_layers": 2}
        settings |= {"conv_dim": [8] * 7, "hidden_size": 16, "eval_split": "none"}
        return distill(
            DistillConfig(teacher=str(tiny_teacher), data=str(spoken), output_dir=str(folder), **settings)
        ).folder

    clips = load_clips(spoken, "test").clips
    assert torch.equal(clip_means(undistilled(0), clips), clip_means(undistilled(1), clips))


def test_a_run_that_fails_is_one_line():
    with pytest.raises(UserError, match="-m no_such_command --steps 2` failed"):
        real_speech.run("no_such_command", {"steps": 2})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher_steps", "-1"], "teacher_steps is -1; give 0 or more"),
        (["--limit", "0"], "limit is 0; give 1 or more"),
        ([], "there is no data at"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, arguments, said):
    output = tmp_path / "out"
    words = ["--speech", str(tmp_path / "absent"), "--output_dir", str(output), *arguments]
    monkeypatch.setattr(sys, "argv", ["real_speech", *words])
    with pytest.raises(UserError, match=said):
        real_speech.main()
    assert not output.exists()
