"""A student starts as its teacher's lower part, and plain Transformers classes load what is saved."""

from __future__ import annotations

import logging

import pytest
import torch
from conftest import TINY
from kinds import EVERY, padded, tiny_model
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig, HubertConfig, HubertForCTC, HubertModel

from hf_distilhubert import HubertForLayerDistillation, UserError, student_from_teacher
from hf_distilhubert.shapes import StudentShape
from hf_distilhubert.starts import Start, copy_parts
from hf_distilhubert.students import student_config


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


@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_a_teacher_of_any_kind_starts_a_stock_student(tmp_path, kind, shape):
    teacher = tiny_model(kind, shape)
    student = student_from_teacher(teacher, [1, 3])
    student.save_pretrained(tmp_path)
    stock = HubertModel.from_pretrained(tmp_path).eval()
    assert type(stock.config) is HubertConfig
    values, _ = padded([4_000, 3_000], 4_000)
    hidden = torch.randn(2, 12, 32)
    with torch.no_grad():
        assert torch.equal(stock.feature_extractor(values), teacher.feature_extractor(values))
        for own, taught in zip(stock.encoder.layers, teacher.encoder.layers, strict=False):
            for part in ("layer_norm", "feed_forward", "final_layer_norm", "attention.v_proj"):
                assert torch.equal(own.get_submodule(part)(hidden), taught.get_submodule(part)(hidden))
            if kind != "wavlm":  # whose attention also sees how far apart two frames are
                assert torch.equal(own.attention(hidden)[0], taught.attention(hidden)[0])
        if kind != "data2vec-audio":
            positions = stock.encoder.pos_conv_embed, teacher.encoder.pos_conv_embed
            assert torch.equal(positions[0](hidden), positions[1](hidden))
        assert stock(values).last_hidden_state.shape == hidden.shape


def starts(teacher, shape: StudentShape | int = 2) -> list[Start]:
    return copy_parts(HubertModel(student_config(teacher.config, [1, 3], shape)), teacher, [1, 2])


def exceptions(teacher) -> list[str]:
    return [str(start) for start in starts(teacher) if not start.whole]


@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_what_does_not_come_over_is_named(kind, shape):
    said = exceptions(tiny_model(kind, shape))
    if kind == "wavlm":
        own = "leaves out the teacher's attention.gru_rel_pos_const, attention.gru_rel_pos_linear.bias"
        assert [line.split()[0] for line in said] == ["encoder.layers.0", "encoder.layers.1"]
        assert all(own in line for line in said)
        assert ["rel_attn_embed" in line for line in said] == [True, False]
    elif kind == "data2vec-audio":
        (line,) = said
        assert line.startswith("encoder.pos_conv_embed starts afresh")
    else:
        assert said == []


def test_a_positional_convolution_of_another_kind_starts_afresh():
    (line,) = exceptions(tiny_model("hubert", "batch-norm"))
    assert line.startswith("encoder.pos_conv_embed starts afresh")


def test_each_part_says_whether_it_was_copied_cut_or_drawn():
    conv_dim = (16,) * 6 + (24,)  # wider than the teacher's
    said = starts(tiny_model("hubert"), StudentShape(intermediate_size=12, conv_dim=conv_dim))
    assert [(start.part, start.how.split()[0:2]) for start in said] == [
        ("feature_extractor", ["starts", "afresh:"]),
        ("feature_projection.projection", ["starts", "afresh:"]),
        ("encoder.pos_conv_embed", ["is", "copied"]),
        ("encoder.layers.0", ["is", "cut"]),
        ("encoder.layers.1", ["is", "cut"]),
    ]


def test_a_layer_comes_over_as_one_or_not_at_all():
    teacher = tiny_model("wav2vec2")
    student = HubertModel(student_config(teacher.config, [1, 3], StudentShape(intermediate_size=64)))
    before = {name: tensor.clone() for name, tensor in student.encoder.layers.state_dict().items()}
    said = copy_parts(student, teacher, [1, 2])
    assert [start.part for start in said if not start.whole] == ["encoder.layers.0", "encoder.layers.1"]
    after = student.encoder.layers.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_does_not_come_over_is_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        student_from_teacher(tiny_model("data2vec-audio"), [1, 3])
        student_from_teacher(tiny_model("hubert"), [1, 3])
        student_from_teacher(tiny_model("hubert"), [1, 3], StudentShape(initial="random"))
    copied, drawn = caplog.records
    assert "data2vec-audio teacher: encoder.pos_conv_embed starts afresh" in copied.message
    assert drawn.message == "student of a hubert teacher: all of it starts at random"


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


def test_a_teacher_of_another_kind_or_frame_rate_is_refused():
    with pytest.raises(UserError, match="'bert'"):
        student_config(BertConfig(), [1])
    with pytest.raises(UserError, match="frame of 160 samples"):
        student_config(HubertConfig(**TINY, conv_stride=(5, 2, 2, 2, 2, 2, 1)), [1])
