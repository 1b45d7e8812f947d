"""The comparison of a converted student with S3PRL's arithmetic: it agrees, and damage shows where it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import HubertModel

from conversion.checkpoint import Checkpoint, read_checkpoint
from conversion.from_s3prl import convert
from conversion.parity import (
    CLIPS_AT_A_TIME,
    TOLERANCE,
    PartParity,
    compare,
    parity_table,
    verification_clips,
)
from hf_distilhubert.audio import AudioError
from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation
from hf_distilhubert.loading import load_model
from hf_distilhubert.s3prl_features import student_parts


@pytest.fixture
def source(golden_dir: Path) -> Checkpoint:
    return read_checkpoint(golden_dir / "conversion" / "paper.ckpt")


@pytest.fixture(scope="module")
def folder(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "student"
    return convert(golden_dir / "conversion" / "paper.ckpt", path, keep_heads=True).folder


@pytest.fixture
def student(folder: Path) -> Any:
    return load_model(HubertForLayerDistillation, folder)


def layers_of(source: Checkpoint) -> list[str]:
    layers = [f"layer {number}" for number in range(1, source.distiller["encoder_layers"] + 1)]
    return ["front end", "projection", *layers]


def heads_of(source: Checkpoint) -> list[str]:
    return [f"prediction of layer {layer}" for layer in source.distiller["pred_layer_id"]]


def parities_of(source: Checkpoint, model: Any, clips: list[Tensor]) -> dict[str, PartParity]:
    return {part.name: part for part in compare(source.weights, source.distiller, model, clips)}


def test_every_part_and_every_prediction_is_equal_in_the_order_of_the_model(
    source: Checkpoint, student: Any
) -> None:
    parities = compare(source.weights, source.distiller, student, verification_clips())
    assert [part.name for part in parities] == layers_of(source) + heads_of(source)
    for part in parities:
        assert part.is_equal, part


def test_a_difference_is_relative_to_the_largest_value_of_the_part(source: Checkpoint, student: Any) -> None:
    clip = verification_clips()[0]
    scale = float(student_parts(student, [clip])["projected_features"].abs().max())
    student.hubert.feature_projection.projection.bias.data[0] += 0.25
    part = parities_of(source, student, [clip])["projection"]
    assert part.max_difference == pytest.approx(0.25, rel=1e-4)
    assert part.relative_difference == pytest.approx(0.25 / scale, rel=1e-4)


def test_only_what_a_student_without_heads_has_is_compared(source: Checkpoint, student: Any) -> None:
    assert list(parities_of(source, student.hubert, verification_clips())) == layers_of(source)


@pytest.mark.parametrize(
    ("weight", "first"),
    [
        ("hubert.feature_extractor.conv_layers.3.conv.weight", "front end"),
        ("hubert.feature_projection.projection.bias", "projection"),
        ("hubert.encoder.pos_conv_embed.conv.bias", "layer 1"),
        ("hubert.encoder.layers.1.attention.v_proj.weight", "layer 2"),
        ("prediction_heads.output_weight", "first prediction"),
    ],
)
def test_a_damaged_weight_shows_from_the_part_on_that_holds_it(
    weight: str, first: str, source: Checkpoint, student: Any
) -> None:
    with torch.no_grad():
        student.get_parameter(weight).mul_(1.01).add_(1e-3)
    parities = compare(source.weights, source.distiller, student, verification_clips())
    damaged = [part.name for part in parities if not part.is_equal]
    names = [part.name for part in parities]
    first = heads_of(source)[0] if first == "first prediction" else first
    assert damaged == names[names.index(first) :]


def test_two_predictions_in_each_others_place_are_seen(source: Checkpoint, student: Any) -> None:
    heads = student.prediction_heads
    with torch.no_grad():
        heads.output_bias[:2] = heads.output_bias[[1, 0]]
    damaged = [
        name for name, part in parities_of(source, student, verification_clips()).items() if not part.is_equal
    ]
    assert damaged == heads_of(source)[:2]


def test_a_weight_that_is_not_a_number_is_never_equal(source: Checkpoint, student: Any) -> None:
    with torch.no_grad():
        student.hubert.encoder.layers[1].final_layer_norm.bias[0] = math.nan
    parities = parities_of(source, student, verification_clips())
    assert parities["layer 1"].is_equal
    assert math.isnan(parities["layer 2"].relative_difference)
    assert not parities["layer 2"].is_equal


def test_a_part_that_should_be_zero_has_no_relative_difference(source: Checkpoint, student: Any) -> None:
    for name in ("weight", "bias"):
        source.weights[f"encoder.layers.1.final_layer_norm.{name}"].zero_()
        student.get_parameter(f"hubert.encoder.layers.1.final_layer_norm.{name}").data.zero_()
    assert parities_of(source, student, verification_clips())["layer 2"].relative_difference == 0
    student.get_parameter("hubert.encoder.layers.1.final_layer_norm.bias").data[0] = 1e-9
    assert parities_of(source, student, verification_clips())["layer 2"].relative_difference == math.inf


def test_the_first_clip_is_heard_alone_too_and_padding_is_not_counted(
    source: Checkpoint, student: Any
) -> None:
    clips = [torch.randn(400 + 320 * extra) for extra in range(CLIPS_AT_A_TIME + 1)]
    parities = parities_of(source, student, clips)
    assert {part.frames for part in parities.values()} == {1 + sum(range(1, len(clips) + 1))}
    assert parities_of(source, student, clips[:1])["layer 1"].frames == 1


def test_the_worst_batch_counts(source: Checkpoint, student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_in_the_middle(model: Any, waveforms: Any) -> dict[str, Tensor]:
        parts = student_parts(model, waveforms)
        if len(waveforms) == CLIPS_AT_A_TIME:
            parts["hidden_states.1"][0, 0, 0] += 1
        return parts

    monkeypatch.setattr("conversion.parity.student_parts", wrong_in_the_middle)
    parities = parities_of(source, student, [torch.randn(4_000)] * (CLIPS_AT_A_TIME + 1))
    assert parities["layer 1"].max_difference == pytest.approx(1, abs=1e-3)
    assert parities["layer 2"].is_equal


def test_a_model_of_another_shape_is_refused_in_one_line(
    source: Checkpoint, golden_dir: Path, tmp_path: Path
) -> None:
    convert(golden_dir / "conversion" / "three-layers-wide-heads.ckpt", tmp_path / "other")
    other = load_model(HubertModel, tmp_path / "other")
    with pytest.raises(UserError, match=r"\A.+ has shape .*converted from this checkpoint\Z"):
        parities_of(source, other, verification_clips())


def test_no_clips_are_no_proof(source: Checkpoint, student: Any) -> None:
    with pytest.raises(UserError, match="one or more"):
        parities_of(source, student, [])


def test_the_table_is_aligned() -> None:
    parities = [
        PartParity("front end", 1.25e-7, 3e-8, 1_204),
        PartParity("prediction of layer 12", 2, 0.5, 9),
    ]
    assert parity_table(parities).splitlines() == [
        "part                    max difference  relative  frames",
        "front end                      1.2e-07   3.0e-08   1,204",
        "prediction of layer 12         2.0e+00   5.0e-01       9",
    ]


def test_generated_clips_are_unequal_the_same_every_time_and_loud_enough() -> None:
    clips, again = verification_clips(), verification_clips()
    assert 1 < len({len(clip) for clip in clips}) == len(clips) <= CLIPS_AT_A_TIME
    for clip, other in zip(clips, again, strict=True):
        assert torch.equal(clip, other)
        assert clip.dtype == torch.float32
        assert 0.01 < clip.square().mean().sqrt() < clip.abs().max() < 1


def test_audio_files_are_read_at_16_khz_up_to_15_seconds(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).standard_normal((8_000 * 16, 2)) * 0.1
    soundfile.write(tmp_path / "long.wav", sound, 8_000)
    soundfile.write(tmp_path / "short.flac", sound[:4_000], 8_000)
    long, short = verification_clips([tmp_path / "long.wav", str(tmp_path / "short.flac")])
    assert (tuple(long.shape), tuple(short.shape)) == ((15 * 16_000,), (8_000,))
    with pytest.raises(AudioError, match="no such file"):
        verification_clips([tmp_path / "missing.wav"])


def test_the_tolerance_is_the_projects() -> None:
    assert TOLERANCE == 1e-5
    assert PartParity("", 1, TOLERANCE, 1).is_equal
    assert not PartParity("", 0, TOLERANCE * 1.01, 1).is_equal
