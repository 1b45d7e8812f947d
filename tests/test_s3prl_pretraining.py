"""Step by step equal to S3PRL's own pretraining: losses, gradient norms, learning rates, weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import HubertModel

from conversion.configuration import from_distiller
from conversion.mapping import to_hugging_face
from hf_distilhubert import DistillConfig, HubertForLayerDistillation
from hf_distilhubert.audio import num_frames
from hf_distilhubert.distillation_data import Collator
from hf_distilhubert.heads import head_settings
from hf_distilhubert.objective import Objective, distillation_loss
from hf_distilhubert.pretraining import TeacherLoss, make_optimizer, scale_gradient
from hf_distilhubert.students import student_from_teacher
from hf_distilhubert.teachers import Teacher
from hf_distilhubert.training import Hooks, LoopSettings, Parts, TrainingState, run_loop
from hf_distilhubert.training_log import TrainingLog

TOLERANCE = 1e-5


@pytest.fixture
def folder(golden_dir: Path) -> Path:
    return golden_dir / "distillation"


@pytest.fixture
def trace(folder: Path) -> dict:
    return json.loads((folder / "trace.json").read_text())


def s3prls_weights(file: Path, trace: dict) -> tuple[HubertForLayerDistillation, dict[str, torch.Tensor]]:
    """S3PRL's student as our model, and its tensors under our names."""
    config, heads = from_distiller(trace["config"])
    config.distillation = head_settings(heads.target_layers, heads.inner_size, heads.output_size)
    weights = to_hugging_face(load_file(file), config, heads)
    student = HubertForLayerDistillation(config)
    student.load_state_dict(weights)
    return student, weights


def load_teacher(folder: Path, trace: dict) -> Teacher:
    model = HubertModel.from_pretrained(folder / "teacher")
    return Teacher(model, trace["config"]["pred_layer_id"], do_normalize=False)


def s3prls_settings(trace: dict) -> DistillConfig:
    return DistillConfig(max_steps=trace["steps"], weight_decay=0.01, target_layers=[2, 4, 6])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_thirty_steps_equal_s3prls(folder: Path, trace: dict, tmp_path: Path) -> None:
    student, _ = s3prls_weights(folder / "student.initial.safetensors", trace)
    teacher, settings = load_teacher(folder, trace), s3prls_settings(trace)
    clips = load_file(folder / "batches.safetensors")
    collate = Collator(student.config.conv_kernel, student.config.conv_stride, pad_multiple=1)
    batches = [
        collate([clips[f"batch{number % 10:02}.{i}"].numpy() for i in range(3)])
        for number in range(trace["steps"])
    ]
    scale_gradient(student.hubert.feature_extractor, trace["config"]["feature_grad_mult"])
    optimizer, scheduler = make_optimizer(settings, student)
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    parts = Parts(accelerator, student, optimizer, scheduler, TeacherLoss(teacher, student.objective))
    log = TrainingLog(tmp_path / "log.jsonl", accelerator)
    loop = LoopSettings(trace["steps"], max_grad_norm=5.0, logging_steps=1)
    run_loop(parts, batches, log, loop, TrainingState(), Hooks())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == len(trace["trace"]) == 30
    for ours, theirs in zip(lines, trace["trace"], strict=True):
        for name in ("loss", "grad_norm", "learning_rate"):
            assert ours[name] == pytest.approx(theirs[name], rel=TOLERANCE, abs=1e-12), (theirs["step"], name)
        for layer in ("2", "4", "6"):
            assert ours["l1"][layer] == pytest.approx(theirs[f"rec_l{layer}"], rel=TOLERANCE)
            assert ours["cosine"][layer] == pytest.approx(theirs[f"sim_l{layer}"], rel=TOLERANCE)
    _, expected = s3prls_weights(folder / "student.final.safetensors", trace)
    for name, tensor in student.state_dict().items():
        assert relative(tensor, expected[name]) <= TOLERANCE, name


def test_the_teachers_hidden_states_equal_s3prls(folder: Path, trace: dict) -> None:
    clips = load_file(folder / "batches.safetensors")
    waveforms = torch.stack([clips[f"batch00.{i}"] for i in range(3)])
    ours = load_teacher(folder, trace)(waveforms, torch.ones_like(waveforms, dtype=torch.long))
    for number, layer in enumerate(trace["config"]["pred_layer_id"]):
        assert relative(ours[:, number], clips[f"teacher_hidden.step1.layer{layer}"]) <= TOLERANCE


def test_the_start_copies_exactly_what_s3prl_copies(folder: Path, trace: dict) -> None:
    """All but the heads and `encoder.layer_norm`, which start afresh (at random, and at one and zero)."""
    theirs, _ = s3prls_weights(folder / "student.initial.safetensors", trace)
    teacher = load_teacher(folder, trace).model
    ours = student_from_teacher(teacher, trace["config"]["pred_layer_id"], 2).state_dict()
    expected = theirs.state_dict()
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.startswith("prediction_heads"):
            assert relative(ours[name], tensor) <= 1e-6 if tensor.any() else not ours[name].any(), name


def test_s3prls_loss_counts_padded_frames_and_ours_does_not(folder: Path) -> None:
    golden = load_file(folder / "padded_loss.safetensors")
    predictions, targets, mask = golden["predictions"], golden["targets"], golden["frame_mask"].bool()
    theirs = distillation_loss(predictions, targets)
    assert float(theirs.total) == pytest.approx(float(golden["loss"]), rel=TOLERANCE)
    assert theirs.l1.tolist() == pytest.approx(golden["rec_per_layer"].tolist(), rel=TOLERANCE)
    assert theirs.cosine.tolist() == pytest.approx(golden["sim_per_layer"].tolist(), rel=TOLERANCE)
    ours = distillation_loss(predictions, targets, mask)
    alone = [
        distillation_loss(predictions[i : i + 1, :, row], targets[i : i + 1, :, row])
        for i, row in enumerate(mask)
    ]
    weights = mask.sum(dim=1) / mask.sum()
    mean = sum(weight * loss.total for weight, loss in zip(weights, alone, strict=True))
    assert float(ours.total) == pytest.approx(float(mean), rel=TOLERANCE)
    assert float(ours.total) != pytest.approx(float(theirs.total), rel=1e-3)


def test_frames_of_padding_count_only_where_that_is_asked_for() -> None:
    clips = [torch.randn(n).numpy() for n in (3_200, 1_600)]
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    ours, theirs = (
        Collator(kernels, strides, 1, mask_loss)(clips)["frame_mask"] for mask_loss in (True, False)
    )
    assert theirs.all()
    assert ours.sum(dim=1).tolist() == [num_frames(len(clip), kernels, strides) for clip in clips]


def test_an_objective_that_is_added_in_ten_lines_is_trained_on() -> None:
    objective = Objective(target=lambda targets: targets.mean(dim=1, keepdim=True), one_head=True)
    predictions = objective.predict([torch.ones(2, 3, 4)], lambda x: x[:, None])
    assert distillation_loss(predictions, objective.target(torch.ones(2, 5, 3, 4))).total < 0.32
