"""The trainer: its schedule, its mathematics in every layout, its folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from conftest import LARGE, RUNS, save_teacher
from safetensors.torch import load_file
from transformers import HubertModel

from hf_distilhubert import DistillConfig, HubertForLayerDistillation, UserError
from hf_distilhubert.distill import distill, main
from hf_distilhubert.pretraining import learning_rate_factor, scale_gradient
from hf_distilhubert.training import Hooks, Parts, run_loop
from hf_distilhubert.training_log import TrainingLog
from hf_distilhubert.training_state import LoopSettings, TrainingState


def config(teacher: Path, data: Path, output: Path, **changes) -> DistillConfig:
    settings = {"target_layers": [2, 4], "max_steps": 6, "batch_size": 4, "logging_steps": 2}
    settings |= {"learning_rate": 1e-3, "pad_multiple": 1_600}
    return DistillConfig(teacher=str(teacher), data=str(data), output_dir=str(output), **settings | changes)


def test_schedule_equals_s3prl(golden_dir):
    trace = json.loads((golden_dir / "distillation" / "trace.json").read_text())
    for entry in trace["trace"]:
        ours = 2e-4 * learning_rate_factor(entry["step"], trace["steps"], 0.07)
        assert ours == pytest.approx(entry["learning_rate"], rel=1e-9, abs=1e-12)


def test_losses_fall_and_the_folder_is_whole(tiny_teacher, spoken, tmp_path):
    result = distill(config(tiny_teacher, spoken, tmp_path / "student", max_steps=40))
    before, after = result.run.held_out["before"], result.run.held_out["after"]
    assert after["loss"] < before["loss"]
    assert all(after["l1"][layer] < before["l1"][layer] for layer in ("2", "4"))
    lines = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    log = [line for line in lines if "held_out" not in line]
    assert [lines[0], lines[-1]] == [{"step": 0, "held_out": before}, {"step": 40, "held_out": after}]
    assert [line["step"] for line in log] == list(range(2, 41, 2))
    names = {"step", "loss", "l1", "cosine", "teacher_norm", "grad_norm", "learning_rate"}
    assert all(set(line) == names for line in log)
    assert HubertForLayerDistillation.from_pretrained(result.folder).target_layers == [2, 4]
    extractor = json.loads((result.folder / "preprocessor_config.json").read_text())
    assert (extractor["do_normalize"], extractor["return_attention_mask"]) == (False, True)
    HubertModel.from_pretrained(result.folder)


def test_the_same_seed_gives_the_same_student(tiny_teacher, spoken, tmp_path):
    weights = []
    for name in ("first", "second"):
        distill(config(tiny_teacher, spoken, tmp_path / name))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_zero_steps_write_the_student_as_it_starts(tiny_teacher, spoken, tmp_path):
    distill(config(tiny_teacher, spoken, tmp_path / "start", max_steps=0))
    teacher = load_file(tiny_teacher / "model.safetensors")
    student = load_file(tmp_path / "start" / "model.safetensors")
    key = "feature_extractor.conv_layers.3.conv.weight"
    assert torch.equal(student[f"hubert.{key}"], teacher[key])


def one_step(teacher: Path, data: Path, output: Path, processes: int, accumulation: int) -> dict:
    """One step, in as many processes; a high gradient bound leaves its norm in the log."""
    flags = {"teacher": teacher, "data": data, "output_dir": output, "max_steps": 1, "batch_size": 8}
    flags |= {"accumulation": accumulation, "logging_steps": 1, "eval_split": "none", "learning_rate": 1e-3}
    flags |= {"precision": "fp32"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += ["--target_layers", "2", "4"]
    answer = RUNS.ask(flags=words, output=str(output.parent / "printed"), processes=processes)
    assert set(answer["statuses"]) == {0}, answer["printed"]
    (line,) = (output / "log.jsonl").read_text().splitlines()
    return json.loads(line)


@pytest.mark.parametrize("front_end", ["group", "layer"])
def test_batches_accumulation_and_processes_give_the_same_loss_and_gradient(front_end, spoken, tmp_path):
    teacher = save_teacher(tmp_path / "teacher", **(LARGE if front_end == "layer" else {}))
    one = one_step(teacher, spoken, tmp_path / "one", processes=1, accumulation=1)
    cut = one_step(teacher, spoken, tmp_path / "cut", processes=1, accumulation=2)
    two = one_step(teacher, spoken, tmp_path / "two", processes=2, accumulation=1)
    for other in (cut, two):
        for name in ("loss", "grad_norm", "l1", "cosine"):
            assert other[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.parametrize("objective", ["last-layer", "layer-to-layer", "mean-of-layers"])
def test_every_objective_is_learned_and_its_student_goes_to_s3prl(tiny_teacher, spoken, tmp_path, objective):
    from conversion.to_s3prl import export

    result = distill(config(tiny_teacher, spoken, tmp_path / "student", max_steps=20, objective=objective))
    before, after = result.run.held_out["before"], result.run.held_out["after"]
    assert after["loss"] < before["loss"]
    names = {"last-layer": {"4"}, "layer-to-layer": {"2", "4"}, "mean-of-layers": {"2+4"}}[objective]
    assert after["l1"].keys() == names
    HubertModel.from_pretrained(result.folder)
    assert export(result.folder, tmp_path / "student.ckpt").target_layers == ()
    with pytest.raises(UserError, match=f"give --objective {objective}"):
        distill(config(tiny_teacher, spoken, tmp_path / "more", student=str(result.folder)))


def test_a_student_of_another_shape_is_trained(tiny_teacher, spoken, tmp_path):
    changes = {"num_hidden_layers": 3, "start_layers": ["even"], "intermediate_size": 16, "max_steps": 2}
    result = distill(config(tiny_teacher, spoken, tmp_path / "student", **changes))
    shape = HubertModel.from_pretrained(result.folder).config
    assert (shape.num_hidden_layers, shape.intermediate_size) == (3, 16)


def test_layer_to_layer_needs_a_layer_of_the_student_for_each(tiny_teacher, spoken, tmp_path):
    changes = {"objective": "layer-to-layer", "target_layers": [1, 2, 3]}
    with pytest.raises(UserError, match="give fewer target layers"):
        distill(config(tiny_teacher, spoken, tmp_path / "student", **changes))


def test_s3prls_ways_are_settings(tiny_teacher, spoken, tmp_path):
    ways = {"teacher_dropout": True, "mask_loss": False, "mask_group_norm": False, "precision": "fp32"}
    theirs = distill(config(tiny_teacher, spoken, tmp_path / "theirs", **ways))
    ours = distill(config(tiny_teacher, spoken, tmp_path / "ours", precision="fp32"))
    assert theirs.run.final["loss"] != pytest.approx(ours.run.final["loss"], rel=1e-4)


def test_distillation_goes_on_from_a_student(tiny_teacher, spoken, tmp_path):
    first = distill(config(tiny_teacher, spoken, tmp_path / "first", max_steps=20))
    more = {"student": str(first.folder), "learning_rate": 1e-4}
    second = distill(config(tiny_teacher, spoken, tmp_path / "second", **more))
    assert second.run.held_out["before"] == first.run.held_out["after"]
    with pytest.raises(UserError, match="give --target_layers 2 4"):
        distill(config(tiny_teacher, spoken, tmp_path / "third", target_layers=[1], **more))


def test_held_out_loss_may_be_left_out_even_without_a_step(tiny_teacher, spoken, tmp_path):
    result = distill(config(tiny_teacher, spoken, tmp_path / "start", max_steps=0, eval_split="none"))
    assert result.run.held_out is None


def test_front_end_gradients_are_multiplied():
    layer = torch.nn.Linear(3, 2)
    scale_gradient(layer, 0.1)
    layer(torch.ones(1, 3)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 3), 0.1))


def test_a_step_without_a_finite_loss_is_left_out_and_too_many_stop_the_run(tmp_path):
    model = torch.nn.Linear(1, 1)
    start = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    batch = {"frame_mask": torch.ones(1, 1)}

    def broken(module, _batch, _frames):
        return module(torch.ones(1)).sum() * float("nan"), {}

    accelerator = Accelerator(cpu=True)
    log = TrainingLog(tmp_path / "log.jsonl", accelerator)
    parts = Parts(accelerator, model, optimizer, scheduler, broken)
    state = TrainingState()
    run_loop(parts, [batch] * 20, log, LoopSettings(max_steps=3), state, Hooks())
    assert (state.skipped, state.bad_run) == (3, 3)
    assert torch.equal(model.weight, start)
    with pytest.raises(UserError, match="without a finite loss"):
        run_loop(parts, [batch] * 20, log, LoopSettings(max_steps=20), state, Hooks())
    assert state.skipped == 10  # those before a stop count, too


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"warmup": 2.0}, "share of the steps"),
        ({"accumulation": 3}, "cannot be cut"),
        ({"max_steps": -5}, "max_steps is -5"),
        ({"max_samples": 100}, "a frame needs 400"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"freeze_feature_encoder": True, "initial": "random"}, "would keep a random front end"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        config(tmp_path / "absent", tmp_path / "absent", tmp_path / "out", **changes)


def test_a_teacher_data_or_folder_that_does_not_fit_is_refused(tiny_teacher, spoken, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        distill(config(tmp_path / "absent", spoken, tmp_path / "out"))
    with pytest.raises(UserError, match="there is no data"):
        distill(config(tiny_teacher, tmp_path / "absent", tmp_path / "out"))
    with pytest.raises(UserError, match="exists already"):
        distill(config(tiny_teacher, spoken, spoken))
    with pytest.raises(UserError, match="no layer 9"):
        distill(config(tiny_teacher, spoken, tmp_path / "out", target_layers=[9]))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_settings_come_from_yaml_with_flags_over_it(tiny_teacher, spoken, tmp_path):
    main(
        [
            *("--teacher", str(tiny_teacher), "--data", str(spoken), "--output_dir", str(tmp_path / "first")),
            *("--target_layers", "2", "4", "--max_steps", "1", "--batch_size", "4"),
        ]
    )
    written = tmp_path / "first" / "distill.yaml"
    assert yaml.safe_load(written.read_text())["target_layers"] == [2, 4]
    main([str(written), "--output_dir", str(tmp_path / "second"), "--max_steps", "0"])
    assert yaml.safe_load((tmp_path / "second" / "distill.yaml").read_text())["max_steps"] == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("learning_rat: 1")
    with pytest.raises(UserError, match="unknown setting --learning_rat"):
        main([str(bad)])
