"""A student starts as its teacher's lower part, and plain Transformers classes load what is saved."""

from __future__ import annotations

import pytest
import torch
from conftest import LARGE, TINY
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from hf_distilhubert import HubertForLayerDistillation, UserError, student_from_teacher
from hf_distilhubert.students import student_config
from hf_distilhubert.teachers import Teacher, load_teacher, normalise_batch


def test_saved_student_loads_as_plain_hubert_and_gives_the_same_states(tmp_path):
    config = student_config(HubertConfig(num_hidden_layers=4, **TINY), target_layers=[2, 4])
    student = HubertForLayerDistillation(config).eval()
    student.save_pretrained(tmp_path)
    waveform = torch.randn(1, 4_000)
    with torch.no_grad():
        expected = student(waveform, output_hidden_states=True)
        for model in (HubertModel, AutoModel, HubertForCTC):
            loaded = model.from_pretrained(tmp_path).eval()
            encoder = loaded.hubert if model is HubertForCTC else loaded
            assert torch.equal(encoder(waveform).last_hidden_state, expected.last_hidden_state)
        again = HubertForLayerDistillation.from_pretrained(tmp_path).eval()
        assert torch.equal(again(waveform).predictions, expected.predictions)
    assert expected.predictions.shape == (1, 2, 12, 32)
    assert torch.equal(expected.hidden_states[-1], expected.last_hidden_state)


def test_student_copies_what_s3prl_copies(golden_dir):
    folder = golden_dir / "distillation"
    teacher = HubertModel.from_pretrained(folder / "teacher", dtype=torch.float32)
    student = student_from_teacher(teacher, target_layers=[2, 4, 6])
    expected = load_file(folder / "student.initial.safetensors")
    taken_over = {
        "feature_extractor.conv_layers.0.conv.weight": "feature_extractor.conv_layers.0.0.weight",
        "feature_extractor.conv_layers.0.layer_norm.bias": "feature_extractor.conv_layers.0.2.bias",
        "feature_projection.projection.weight": "post_extract_proj.weight",
        "encoder.pos_conv_embed.conv.bias": "encoder.pos_conv.0.bias",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
        "encoder.layers.1.attention.q_proj.weight": "encoder.layers.1.self_attn.q_proj.weight",
        "encoder.layers.1.feed_forward.output_dense.bias": "encoder.layers.1.fc2.bias",
        "encoder.layers.0.final_layer_norm.weight": "encoder.layers.0.final_layer_norm.weight",
    }
    ours = student.hubert.state_dict()
    for own, theirs in taken_over.items():
        assert torch.equal(ours[own], expected[theirs]), own
    assert student.prediction_heads.output_weight.shape == expected["output_layer.2.weight"].shape
    # S3PRL leaves this one to its initialisation.
    assert torch.equal(ours["encoder.layer_norm.weight"], torch.ones_like(ours["encoder.layer_norm.weight"]))


def test_heads_start_within_one_over_the_root_of_their_inputs():
    student = HubertForLayerDistillation(student_config(HubertConfig(num_hidden_layers=4, **TINY), [1, 2]))
    heads, bound = student.prediction_heads, 32**-0.5
    for weight in (heads.inner.weight, heads.output_weight):
        assert 0.9 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("model_class", [HubertModel, Wav2Vec2Model])
@pytest.mark.parametrize("shape", [{}, LARGE], ids=["base", "large"])
def test_teacher_gives_its_layers_by_number(model_class, shape):
    config = {HubertModel: HubertConfig, Wav2Vec2Model: Wav2Vec2Config}[model_class]
    model = model_class(config(num_hidden_layers=3, **TINY, **shape)).eval()
    teacher = Teacher(model, [1, 3], do_normalize=False)
    waveform, mask = torch.randn(2, 6_000), torch.ones(2, 6_000, dtype=torch.long)
    targets = teacher(waveform, mask)
    with torch.no_grad():
        output = model(waveform, attention_mask=mask, output_hidden_states=True)
    assert torch.equal(targets[:, 0], output.hidden_states[1])
    assert torch.equal(targets[:, 1], output.last_hidden_state)
    student_from_teacher(model, [1, 3])


def test_teacher_stays_in_evaluation_mode_and_asks_for_no_gradient():
    model = HubertModel(HubertConfig(num_hidden_layers=2, **{**TINY, "hidden_dropout": 0.5}))
    teacher = Teacher(model, [2], do_normalize=False).train()
    waveform, mask = torch.randn(1, 4_000), torch.ones(1, 4_000, dtype=torch.long)
    assert torch.equal(teacher(waveform, mask), teacher(waveform, mask))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_teachers_normalisation_is_that_of_its_feature_extractor():
    waveforms = [torch.randn(length).numpy() * 0.1 + 0.05 for length in (5_000, 3_000)]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="pt")
    raw = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)(
        waveforms, sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    ours = normalise_batch(raw.input_values, raw.attention_mask)
    torch.testing.assert_close(ours, expected.input_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "depth", "said"),
    [
        ([5], 2, "no layer 5"),
        ([], 2, "one or more"),
        ([2, 2], 2, "different"),
        ([2], 9, "student of 9 layers"),
    ],
)
def test_a_teacher_without_such_layers_is_refused(layers, depth, said):
    with pytest.raises(UserError, match=said):
        student_config(HubertConfig(num_hidden_layers=4, **TINY), layers, depth)


def test_a_teacher_of_another_kind_or_frame_rate_is_refused(tmp_path):
    from transformers import BertConfig

    with pytest.raises(UserError, match="'bert'"):
        student_config(BertConfig(), [1])
    with pytest.raises(UserError, match="frame of 160 samples"):
        student_config(HubertConfig(**TINY, conv_stride=(5, 2, 2, 2, 2, 2, 1)), [1])
    with pytest.raises(UserError, match="cannot load"):
        load_teacher(tmp_path, [1], 1)
