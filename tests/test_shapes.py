"""A student of any shape is a stock HuBERT, and starts with the channels of its teacher that weigh most."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY
from kinds import EVERY, padded, tiny_config, tiny_model
from transformers import HubertConfig, HubertModel

from conversion.to_s3prl import export
from hf_distilhubert import UserError, student_from_teacher
from hf_distilhubert.shapes import SHAPES, StudentShape, start_layers, student_shape, student_sizes
from hf_distilhubert.starts import choose_attention, choose_hidden, largest
from hf_distilhubert.students import student_config


def states(model, values):
    """All hidden states `(layer, batch, frame, hidden)` of a model."""
    with torch.no_grad():
        return torch.stack(model(values, output_hidden_states=True).hidden_states)


@pytest.mark.parametrize(
    ("name", "parameters"), [("paper", 23_491_200), ("narrow", 20_749_696), ("deep", 22_034_752)]
)
def test_named_shapes_of_hubert_base_have_their_size(name, parameters):
    config = student_config(HubertConfig(), [4, 8, 12], student_shape(name, HubertConfig()))
    with torch.device("meta"):
        assert HubertModel(config).num_parameters() == parameters
    assert config.distillation["head_inner_size"] == config.hidden_size
    assert config.distillation["head_output_size"] == 768


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_every_named_shape_of_every_teacher_is_a_stock_hubert(tmp_path, kind, shape, name):
    teacher = tiny_model(kind, shape)
    student = student_from_teacher(teacher, [1, 3], student_shape(name, teacher.config)).eval()
    student.save_pretrained(tmp_path)
    stock = HubertModel.from_pretrained(tmp_path).eval()
    values, mask = padded([4_000, 3_000], 4_000)
    with torch.no_grad():
        told = student(values, attention_mask=mask)
        again = stock(values, attention_mask=mask)
    assert torch.equal(again.last_hidden_state, told.last_hidden_state)
    assert told.predictions.shape == (2, 2, 12, 32)  # as wide as the teacher, whatever the student's width
    assert stock.config.hidden_size == (20 if name == "deep" else 32)


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_become_s3prl_checkpoints(tmp_path, name):
    teacher = tiny_model("hubert")
    student_from_teacher(teacher, [1, 3], student_shape(name, teacher.config)).save_pretrained(tmp_path / "a")
    assert export(tmp_path / "a", tmp_path / "a.ckpt").target_layers == (1, 3)


def test_a_student_of_all_layers_is_its_teacher():
    teacher = tiny_model("hubert", feat_proj_layer_norm=False)
    student = student_from_teacher(teacher, [1], StudentShape(num_hidden_layers=None)).eval().hubert
    # The one part that S3PRL does not take over.
    student.encoder.layer_norm.load_state_dict(teacher.encoder.layer_norm.state_dict())
    values, _ = padded([4_000, 3_000], 4_000)
    assert torch.equal(states(student, values), states(teacher, values))


def test_cutting_to_the_full_size_changes_no_bit():
    teacher = tiny_model("hubert")
    full = StudentShape(3, [1, 2, 3], 32, 48, 4, (16,) * 7)
    student = student_from_teacher(teacher, [1], full).hubert.state_dict()
    taught = teacher.state_dict()
    common = [name for name in student if not name.startswith("encoder.layer_norm")]
    assert len(common) > 60
    assert all(torch.equal(student[name], taught[name]) for name in common)


def test_layers_start_with_the_teachers_that_are_named():
    teacher = tiny_model("hubert")
    student = student_from_teacher(teacher, [1], StudentShape(2, [3, 1])).hubert.encoder.layers
    for own, number in zip(student, (3, 1), strict=True):
        taught = teacher.encoder.layers[number - 1].state_dict()
        assert all(torch.equal(tensor, taught[name]) for name, tensor in own.state_dict().items())


def test_a_narrower_student_keeps_exactly_the_largest_channels():
    teacher = tiny_model("hubert")
    shape = StudentShape(2, intermediate_size=12, conv_dim=(4,) * 7)
    student = student_from_teacher(teacher, [1], shape).hubert
    taught = [layer.conv.weight for layer in teacher.feature_extractor.conv_layers]
    scale = teacher.feature_extractor.conv_layers[0].layer_norm.weight
    first = (taught[0].flatten(1).norm(dim=1) * scale.abs()).topk(4).indices.sort().values
    second = taught[1][:, first].flatten(1).norm(dim=1).topk(4).indices.sort().values
    own = student.feature_extractor.conv_layers
    assert torch.equal(own[0].conv.weight, taught[0][first])
    assert torch.equal(own[0].layer_norm.weight, scale[first])
    assert torch.equal(own[1].conv.weight, taught[1][second][:, first])
    wide, thin = teacher.encoder.layers[1].feed_forward, student.encoder.layers[1].feed_forward
    weight = wide.intermediate_dense.weight.norm(dim=1) * wide.output_dense.weight.norm(dim=0)
    units = weight.topk(12).indices.sort().values
    assert torch.equal(thin.intermediate_dense.weight, wide.intermediate_dense.weight[units])
    assert torch.equal(thin.intermediate_dense.bias, wide.intermediate_dense.bias[units])
    assert torch.equal(thin.output_dense.weight, wide.output_dense.weight[:, units])


def test_the_residual_stream_is_one_choice_also_in_the_grouped_convolution():
    teacher = tiny_model("hubert")
    student = student_from_teacher(teacher, [1], StudentShape(hidden_size=16)).hubert
    rows = teacher.feature_projection.projection.weight
    blocks = rows.norm(dim=1).reshape(4, 8)  # as many from each of the four groups
    units = torch.cat([block.topk(4).indices.sort().values + 8 * i for i, block in enumerate(blocks)])
    assert torch.equal(student.feature_projection.projection.weight, rows[units])
    last = teacher.encoder.layers[1].final_layer_norm.bias
    assert torch.equal(student.encoder.layers[1].final_layer_norm.bias, last[units])
    kernels = torch.zeros(32, 32, 16)  # without groups
    grouped = teacher.encoder.pos_conv_embed.conv.weight.detach()
    for i in range(4):
        kernels[8 * i : 8 * i + 8, 8 * i : 8 * i + 8] = grouped[8 * i : 8 * i + 8]
    own = student.encoder.pos_conv_embed.conv.weight.detach()
    for i in range(4):
        kept = units[4 * i : 4 * i + 4]
        torch.testing.assert_close(own[4 * i : 4 * i + 4], kernels[kept][:, kept])


@torch.no_grad()
def silence(teacher, kept_conv, kept_inner, kept_heads, kept_size):
    """Make a teacher with many channels at 0; which are kept differs from convolution to convolution."""
    generator = torch.Generator().manual_seed(2)
    for layer in teacher.feature_extractor.conv_layers:
        silent = torch.randperm(16, generator=generator)[kept_conv:]
        layer.conv.weight[silent] = 0
        if hasattr(layer, "layer_norm"):
            layer.layer_norm.weight[silent] = layer.layer_norm.bias[silent] = 0
    for layer in teacher.encoder.layers:
        inner = torch.randperm(48, generator=generator)[kept_inner:]
        layer.feed_forward.output_dense.weight[:, inner] = 0
        heads = torch.randperm(4, generator=generator)[kept_heads:]
        layer.attention.out_proj.weight.view(32, 4, 8)[:, heads] = 0
        for name in ("q_proj", "v_proj"):  # other units in the queries than in the values
            units = torch.randperm(8, generator=generator)[kept_size:]
            linear = layer.attention.get_submodule(name)
            linear.weight.view(4, 8, 32)[:, units] = 0
            linear.bias.view(4, 8)[:, units] = 0


def test_cutting_away_what_is_silent_changes_nothing():
    teacher = tiny_model("hubert", feat_proj_layer_norm=False)
    silence(teacher, kept_conv=5, kept_inner=7, kept_heads=4, kept_size=8)
    shape = StudentShape(3, intermediate_size=7, conv_dim=(5,) * 7)
    student = student_from_teacher(teacher, [1], shape).eval().hubert
    student.encoder.layer_norm.load_state_dict(teacher.encoder.layer_norm.state_dict())
    values, _ = padded([4_000, 3_000], 4_000)
    torch.testing.assert_close(states(student, values), states(teacher, values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("heads", "size"), [(2, 8), (4, 4)])
def test_attention_without_its_silent_heads_or_units_is_the_same(heads, size):
    teacher = tiny_model("hubert")
    silence(teacher, kept_conv=16, kept_inner=48, kept_heads=heads, kept_size=size)
    layer = teacher.encoder.layers[0].state_dict()
    queries, values = choose_attention(layer, torch.arange(32), 4, heads, size)
    inputs = torch.randn(1, 6, 32)

    def split(name, units):
        weight, bias = layer[f"attention.{name}.weight"], layer[f"attention.{name}.bias"]
        return (inputs @ weight[units].T + bias[units]).unflatten(-1, (heads, size)).transpose(1, 2)

    with torch.no_grad():
        expected = teacher.encoder.layers[0].attention(inputs)[0]
        query, key, value = split("q_proj", queries), split("k_proj", queries), split("v_proj", values)
        read = torch.softmax(query @ key.mT * 8**-0.5, -1) @ value
        read = read.transpose(1, 2).flatten(2) @ layer["attention.out_proj.weight"][:, values].T
        torch.testing.assert_close(read + layer["attention.out_proj.bias"], expected)


def test_smaller_heads_keep_the_scale_of_their_scores():
    teacher = tiny_model("hubert")
    hidden = choose_hidden(teacher.feature_projection.projection.weight, torch.arange(16), 16, groups=4)
    queries, values = choose_attention(teacher.encoder.layers[0].state_dict(), hidden, 4, 4, 4)
    shape = StudentShape(hidden_size=16)  # four heads of 4 instead of 8
    own = student_from_teacher(teacher, [1], shape).hubert.encoder.layers[0].attention
    taught = teacher.encoder.layers[0].attention
    torch.testing.assert_close(own.q_proj.weight, taught.q_proj.weight[queries][:, hidden] * 0.5**0.5)
    assert torch.equal(own.k_proj.weight, taught.k_proj.weight[queries][:, hidden])
    assert torch.equal(own.v_proj.weight, taught.v_proj.weight[values][:, hidden])
    assert torch.equal(own.out_proj.weight, taught.out_proj.weight[hidden][:, values])


def test_heads_that_the_teacher_does_not_have_start_a_layer_afresh(caplog):
    for shape in (StudentShape(num_attention_heads=8), StudentShape(num_attention_heads=2)):
        caplog.clear()
        student_from_teacher(tiny_model("hubert"), [1], shape)
        assert ["layers.0 starts afresh" in record.message for record in caplog.records] == [True, False]


def test_the_largest_are_taken_in_their_old_order_from_each_block():
    norms = torch.tensor([1.0, 3.0, 2.0, 9.0, 9.0, 9.0])
    assert largest(norms, 2).tolist() == [3, 4]
    assert largest(norms, 4, blocks=2).tolist() == [1, 2, 3, 4]
    assert largest(norms, 9).tolist() == [0, 1, 2, 3, 4, 5]
    assert largest(torch.ones(1_000), 9).tolist() == list(range(9))


def test_start_layers_are_first_even_or_listed():
    base = HubertConfig()
    assert start_layers(StudentShape(3), base) == [1, 2, 3]
    assert start_layers(StudentShape(6, "even"), base) == [1, 3, 5, 8, 10, 12]
    assert start_layers(StudentShape(1, "even"), base) == [1]
    assert start_layers(StudentShape(2, [5, 5]), base) == [5, 5]
    assert start_layers(StudentShape(20, initial="random"), base) == []


def test_a_named_shape_takes_changes_as_flags_give_them():
    teacher = tiny_config("hubert")
    shape = student_shape("narrow", teacher, hidden_size=None, start_layers=["3", "1"], initial="teacher")
    assert shape == StudentShape(2, (3, 1), conv_dim=(2, 4, 6, 8, 12, 16, 16))
    assert student_shape("deep", teacher).num_hidden_layers == 3
    assert student_shape("deep", teacher, start_layers=["first"], num_hidden_layers=1).start_layers == "first"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 5}, "student of 5 layers; 1 to 4"),
        ({"num_hidden_layers": 0, "initial": "random"}, "num_hidden_layers is 0"),
        ({"start_layers": ["1", "5"]}, "no layer 5 to start from"),
        ({"start_layers": [1, 2, 3]}, "names 3 layers for a student of 2"),
        ({"start_layers": ["middle"]}, "start_layers is middle"),
        ({"hidden_size": 30}, "hidden_size 30 cannot be shared by 4 attention heads"),
        ({"hidden_size": 30, "num_attention_heads": 5}, "by 4 groups of the teacher's positional"),
        ({"conv_dim": [16, 16]}, "conv_dim has 2 sizes; give 7"),
        ({"conv_dim": [16] * 6 + [0]}, "conv_dim is"),
        ({"initial": "zeros"}, "initial is 'zeros'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_in_one_line(changes, said):
    teacher = HubertConfig(**{"num_hidden_layers": 4} | TINY)
    with pytest.raises(UserError, match=said) as caught:
        student_config(teacher, [1], student_shape("paper", teacher, **changes))
    assert "\n" not in str(caught.value)


def test_a_named_shape_that_is_not_to_be_had_is_refused():
    with pytest.raises(UserError, match="'wide' is unknown; give one of paper, narrow, deep"):
        student_shape("wide", HubertConfig())
    with pytest.raises(UserError, match="1/8 of the teacher's conv_dim, which is 12"):
        student_shape("narrow", HubertConfig(conv_dim=(12,) * 7))
    with pytest.raises(UserError, match="5/8 of the teacher's hidden_size, which is 36"):
        student_shape("deep", HubertConfig(hidden_size=36))
    with pytest.raises(UserError, match="7 convolutions, and the teacher has 2"):
        student_shape("narrow", HubertConfig(conv_dim=[8, 8], conv_kernel=[20, 16], conv_stride=[20, 16]))


def test_more_layers_than_the_teacher_has_may_start_at_random():
    teacher = tiny_config("hubert")
    assert student_sizes(StudentShape(9, initial="random"), teacher)["num_hidden_layers"] == 9
