"""Features in S3PRL's words, out of a Transformers folder: the same list, shapes and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN, TINY, golden_waveforms
from safetensors.torch import load_file
from torch import Tensor
from transformers import HubertConfig, HubertForCTC, HubertModel

from conversion.checkpoint import read_checkpoint
from conversion.from_s3prl import convert
from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation
from hf_distilhubert.loading import load_model
from hf_distilhubert.s3prl_features import s3prl_features, student_parts

TOLERANCE = 1e-5
Golden = tuple[Any, dict[str, Tensor]]


@pytest.fixture(scope="module", params=sorted(GOLDEN.glob("*.ckpt")), ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The student of a checkpoint, with its heads where it has any, and what S3PRL computed from it."""
    folder = tmp_path_factory.mktemp("golden") / "student"
    has_heads = "output_layer.0.weight" in read_checkpoint(request.param).weights
    convert(request.param, folder, keep_heads=has_heads)
    model = load_model(HubertForLayerDistillation if has_heads else HubertModel, folder)
    return model, load_file(request.param.with_suffix(".expected.safetensors"))


def assert_close(actual: Tensor, expected: Tensor, what: object) -> None:
    assert actual.shape == expected.shape
    distance = (actual - expected).abs().max() / expected.abs().max()
    assert distance <= TOLERANCE, f"{what} is off by {distance:.1e}"


def tiny_student(**changes: Any) -> HubertForLayerDistillation:
    torch.manual_seed(0)
    heads = {"target_layers": [2, 4], "head_inner_size": 8, "head_output_size": 12}
    return HubertForLayerDistillation(
        HubertConfig(**{"num_hidden_layers": 2, "distillation": heads} | TINY | changes)
    )


@pytest.fixture
def clips() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(6_000), torch.randn(4_000), torch.randn(400)]


def test_the_list_is_s3prls(golden: Golden) -> None:
    model, expected = golden
    features = s3prl_features(model, golden_waveforms(expected))
    assert torch.equal(features["pad_mask"], expected["frame_mask"])
    layers = [expected[f"hidden_states.{n}"] for n in range(1, model.config.num_hidden_layers + 1)]
    heads = expected["predictions"].unbind(dim=1) if isinstance(model, HubertForLayerDistillation) else ()
    states = [expected["projected_features"], *layers, *heads]
    valid = expected["frame_mask"].bool()
    for number, (ours, theirs) in enumerate(zip(features["hidden_states"], states, strict=True)):
        assert_close(ours[valid], theirs[valid], f"hidden_states[{number}]")
    assert_close(features["paper"][valid], layers[-1][valid], "paper")
    if heads:
        assert_close(features["last_hidden_state"][valid], heads[-1][valid], "last_hidden_state")
    else:
        assert features["last_hidden_state"] is None


def test_every_part_is_s3prls(golden: Golden) -> None:
    model, expected = golden
    parts = student_parts(model, golden_waveforms(expected))
    valid = expected["frame_mask"].bool()
    assert torch.equal(parts.pop("frame_mask"), valid)
    assert ("predictions" in parts) == isinstance(model, HubertForLayerDistillation)
    for name, part in parts.items():
        ours, theirs = (p.transpose(1, 2) if p.ndim == 4 else p for p in (part, expected[name]))
        assert_close(ours[valid], theirs[valid], name)


def test_paper_is_s3prls_on_a_single_clip(golden: Golden) -> None:
    model, expected = golden
    features = s3prl_features(model, [golden_waveforms(expected)[1]])
    assert_close(features["paper"], expected["single_1.last_hidden_state"], "paper")


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padded_frames_of_the_first_state_are_zero_and_speech_is_not(norm: str, clips: list[Tensor]) -> None:
    features = s3prl_features(tiny_student(feat_extract_norm=norm), clips)
    padded = features["pad_mask"] == 0
    assert padded.sum(dim=1).tolist() == [0, 6, 17]
    assert (features["hidden_states"][0][padded] == 0).all()
    assert (features["hidden_states"][0][~padded] != 0).any(dim=-1).all()


def test_the_layers_are_transformers_hidden_states_in_a_post_norm_model(clips: list[Tensor]) -> None:
    model = tiny_student().eval()
    features = s3prl_features(model, clips[:1])
    with torch.no_grad():
        output = model(clips[0][None], output_hidden_states=True)
    for number in (1, 2):
        assert_close(features["hidden_states"][number], output.hidden_states[number], number)
    assert_close(features["last_hidden_state"], output.predictions[:, -1], "last_hidden_state")
    # The same words for other things.
    assert not torch.allclose(features["hidden_states"][0], output.hidden_states[0], atol=1e-2)


def test_paper_is_not_normalised_in_a_pre_norm_model(clips: list[Tensor]) -> None:
    model = tiny_student(do_stable_layer_norm=True).eval()
    paper = s3prl_features(model, clips[:1])["paper"]
    with torch.no_grad():
        last = model(clips[0][None]).last_hidden_state
        assert not torch.allclose(paper, last, atol=1e-2)
        assert_close(model.hubert.encoder.layer_norm(paper), last, "paper, normalised")


@pytest.mark.parametrize("model_class", [HubertModel, HubertForCTC])
def test_a_folder_serves_every_class_that_loads_it(
    model_class: Any, clips: list[Tensor], tmp_path: Path
) -> None:
    student = tiny_student()
    student.save_pretrained(tmp_path / "student")
    model = load_model(model_class, tmp_path / "student", allow_missing=("lm_head",))
    ours, whole = s3prl_features(model, clips), s3prl_features(student, clips)
    assert ours["last_hidden_state"] is None
    assert (len(ours["hidden_states"]), len(whole["hidden_states"])) == (3, 5)
    for mine, theirs in zip(ours["hidden_states"], whole["hidden_states"], strict=False):
        assert torch.equal(mine, theirs)
    assert torch.equal(ours["paper"], whole["paper"])


def test_a_recognisers_own_head_is_not_run(clips: list[Tensor]) -> None:
    recogniser = HubertForCTC(HubertConfig(**{"num_hidden_layers": 2} | TINY))
    del recogniser.lm_head
    assert len(s3prl_features(recogniser, clips)["hidden_states"]) == 3


def test_the_model_is_left_as_it_was(clips: list[Tensor]) -> None:
    model = tiny_student(hidden_dropout=0.5, layerdrop=0.9).train()
    model.hubert.feature_extractor.eval()
    flags = [module.training for module in model.modules()]
    first, again = s3prl_features(model, clips), s3prl_features(model, clips)
    assert torch.equal(first["paper"], again["paper"])
    with pytest.raises(UserError):
        s3prl_features(model, [])
    assert flags == [module.training for module in model.modules()]
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_and_flags_are_put_back_when_the_model_fails(clips: list[Tensor]) -> None:
    model = tiny_student().train()
    model.hubert.encoder.layers[1].final_layer_norm = None
    with pytest.raises(TypeError):
        s3prl_features(model, clips)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_downstream_model_can_be_trained_on_the_features(clips: list[Tensor]) -> None:
    features = s3prl_features(tiny_student(), clips)
    weights = torch.ones(3, requires_grad=True)
    states = zip(weights, features["hidden_states"][:3], strict=True)
    sum(weight * state for weight, state in states).square().mean().backward()
    assert weights.grad is not None
    assert (weights.grad != 0).all()


def test_arrays_do_as_well_as_tensors_and_the_dtype_is_the_models(clips: list[Tensor]) -> None:
    model = tiny_student()
    paper = s3prl_features(model, clips)["paper"]
    assert torch.equal(s3prl_features(model, [clip.numpy() for clip in clips])["paper"], paper)
    half = s3prl_features(model.bfloat16(), clips)
    assert {state.dtype for state in half["hidden_states"]} == {torch.bfloat16}
    assert half["pad_mask"].dtype == torch.float32


@pytest.mark.parametrize(
    ("waveforms", "said"),
    [
        ([], "empty list.*give a list"),
        (torch.zeros(2, 800), "Tensor.*give a list.*not padded"),
        ([torch.zeros(800), torch.zeros(1, 800)], r"waveform 1 has shape \(1, 800\).*one axis"),
        ([np.zeros(800, np.int16)], "waveform 0.*int16.*floating-point"),
        ([torch.zeros(800), torch.zeros(399)], "waveform 1: 399 samples.*400"),
    ],
)
def test_what_is_not_a_list_of_waveforms_is_refused_in_one_line(waveforms: Any, said: str) -> None:
    with pytest.raises(UserError, match=rf"\A.*{said}.*\Z"):
        s3prl_features(tiny_student(), waveforms)
