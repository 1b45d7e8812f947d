"""S3PRL <-> Transformers: equal part by part, both ways bit for bit, and everything else refused by name."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDEN, variants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

from conversion import mapping
from conversion.checkpoint import read_checkpoint
from conversion.configuration import from_distiller, to_distiller
from conversion.conv_layers import PAPER_CONV_LAYERS, format_conv_layers, parse_conv_layers
from conversion.from_s3prl import convert
from conversion.mapping import Heads, table, to_hugging_face, to_s3prl
from conversion.to_s3prl import export
from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation
from hf_distilhubert.loading import load_model

ROOT = Path(__file__).resolve().parent.parent
PAYLOAD = Path(tempfile.gettempdir()) / "checkpoint_payload_ran"
TOLERANCE = 1e-5


def tiny_config(**changes: Any) -> HubertConfig:
    """A student of 16 units, as this project's distillation makes them."""
    values = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "conv_dim": [8, 8],
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "feat_proj_layer_norm": False,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "distillation": {"target_layers": [1, 3], "head_inner_size": 6, "head_output_size": 10},
    }
    return HubertConfig(**values | changes)


def has_heads(path: Path) -> bool:
    return from_distiller(read_checkpoint(path).distiller)[1] is not None


def convert_whole(path: Path, output_dir: Path) -> Any:
    """Convert with heads where there are any, and load the result."""
    result = convert(path, output_dir, keep_heads=has_heads(path))
    return load_model(HubertForLayerDistillation if has_heads(path) else HubertModel, result.folder)


def listen(model: Any, input_values: torch.Tensor, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """S3PRL's parts of a model, under the names of the golden files."""
    parts: dict[str, torch.Tensor] = {}
    student = getattr(model, "hubert", model)
    modules = {"conv_features": student.feature_extractor, "projected_features": student.feature_projection}
    modules |= {f"hidden_states.{i}": layer for i, layer in enumerate(student.encoder.layers, start=1)}

    def keep(name: str) -> Any:
        # A copy, because Transformers sets padded frames to 0 in place.
        return lambda module, inputs, output: parts.update({name: output.clone()})

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        output = model(input_values, attention_mask=mask)
    for hook in hooks:
        hook.remove()
    parts["conv_features"] = parts["conv_features"].transpose(1, 2)
    if "predictions" in output:
        parts["predictions"] = output.predictions
    return parts


def assert_close(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    distance = (actual - expected).abs().max() / expected.abs().max()
    assert distance <= TOLERANCE, f"{what} is off by {distance:.1e}"


def assert_same_weights(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@variants
def test_converted_student_equals_s3prl_part_by_part(path: Path, tmp_path: Path) -> None:
    model = convert_whole(path, tmp_path / "student")
    expected = load_file(path.with_suffix(".expected.safetensors"))
    samples = torch.arange(expected["input_values"].shape[1])
    mask = (samples < expected["lengths"][:, None]).long()
    parts = listen(model, expected["input_values"], mask)
    layers = [name for name in parts if name.startswith("hidden_states")]
    if "predictions" in expected and "predictions" not in parts:
        # S3PRL's mode "self-hidden": the predictions are the projection and the layers.
        parts["predictions"] = torch.stack([parts[name] for name in ("projected_features", *layers)], dim=1)
    valid = expected["frame_mask"].bool()
    assert parts.keys() == expected.keys() & parts.keys()
    for name, part in parts.items():
        if name == "predictions":
            part, expected[name] = part.transpose(1, 2), expected[name].transpose(1, 2)
        assert_close(part[valid], expected[name][valid], name)


@variants
def test_converted_student_equals_s3prl_on_a_single_clip(path: Path, tmp_path: Path) -> None:
    model = convert_whole(path, tmp_path / "student")
    expected = load_file(path.with_suffix(".expected.safetensors"))
    clip = expected["input_values"][1:2, : expected["lengths"][1]]
    last = f"hidden_states.{model.config.num_hidden_layers}"
    assert_close(listen(model, clip, None)[last], expected["single_1.last_hidden_state"], last)


@variants
def test_the_way_back_is_bit_for_bit(path: Path, tmp_path: Path) -> None:
    convert_whole(path, tmp_path / "student")
    back = read_checkpoint(export(tmp_path / "student", tmp_path / "back.ckpt").file)
    before = read_checkpoint(path)
    assert_same_weights(back.weights, before.weights)
    if has_heads(path):
        config, heads = from_distiller(before.distiller)
        assert from_distiller(back.distiller)[1] == heads
        assert from_distiller(back.distiller)[0].to_dict() == config.to_dict()


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("layers", [[2], [1, 2, 6]])
def test_a_student_of_our_own_goes_out_and_comes_back(
    norm: str, stable: bool, layers: list[int], tmp_path: Path
) -> None:
    distillation = {"target_layers": layers, "head_inner_size": 6, "head_output_size": 10}
    config = tiny_config(feat_extract_norm=norm, do_stable_layer_norm=stable, distillation=distillation)
    student = HubertForLayerDistillation(config).eval()
    student.save_pretrained(tmp_path / "ours")
    exported = export(tmp_path / "ours", tmp_path / "student.ckpt")
    result = convert(exported.file, tmp_path / "back", keep_heads=True)
    back = load_model(HubertForLayerDistillation, tmp_path / "back")
    assert exported.target_layers == result.target_layers == tuple(layers) == tuple(back.target_layers)
    assert_same_weights(back.state_dict(), student.state_dict())
    sound = torch.randn(2, 400)
    with torch.no_grad():
        assert torch.equal(back(sound).predictions, student(sound).predictions)


def test_plain_transformers_classes_load_both_folders(golden_dir: Path, tmp_path: Path) -> None:
    path = golden_dir / "conversion" / "paper.ckpt"
    convert(path, tmp_path / "plain")
    convert(path, tmp_path / "heads", keep_heads=True)
    ours = HubertForLayerDistillation.from_pretrained(tmp_path / "heads")
    sound = torch.randn(1, 4000)
    with torch.no_grad():
        expected = ours.eval()(sound).last_hidden_state
    for folder in (tmp_path / "plain", tmp_path / "heads"):
        for model_class in (HubertModel, AutoModel, HubertForCTC):
            model, report = model_class.from_pretrained(folder, output_loading_info=True)
            assert set(report["missing_keys"]) <= {"lm_head.weight", "lm_head.bias"}
            with torch.no_grad():
                hidden = getattr(model, "hubert", model).eval()(sound).last_hidden_state
            assert torch.equal(hidden, expected)
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["architectures"] == ["HubertModel"]
    assert "distillation" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_the_folder_says_where_every_tensor_came_from(golden_dir: Path, tmp_path: Path) -> None:
    path = golden_dir / "conversion" / "paper.ckpt"
    result = convert(path, tmp_path / "student", keep_heads=True)
    account = json.loads((tmp_path / "student" / "conversion.json").read_text())
    checkpoint = read_checkpoint(path)
    assert account["sha256"] == result.sha256 == checkpoint.sha256
    assert (account["distiller"], account["step"]) == (checkpoint.distiller, checkpoint.step)
    assert account["tensors"].keys() == checkpoint.weights.keys()
    assert set(account["tensors"].values()) == load_file(tmp_path / "student" / "model.safetensors").keys()
    assert json.loads((tmp_path / "student" / "lineage.json").read_text())[0]["stage"] == "convert"
    features = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "student")
    assert (features.sampling_rate, features.do_normalize, features.return_attention_mask) == (
        16000,
        False,
        True,
    )


def test_no_mask_vector_is_made_up(golden_dir: Path, tmp_path: Path) -> None:
    convert(golden_dir / "conversion" / "paper.ckpt", tmp_path / "student")
    assert not any(
        "masked_spec_embed" in name for name in HubertModel.from_pretrained(tmp_path / "student").state_dict()
    )
    # A student that has one (SpecAugment was on) loses it on the way to S3PRL.
    HubertModel(tiny_config(mask_time_prob=0.1)).save_pretrained(tmp_path / "masked")
    names = read_checkpoint(export(tmp_path / "masked", tmp_path / "student.ckpt").file).weights
    assert not any("mask" in name for name in names)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(GOLDEN.glob("bad/*"))
        if not path.name.startswith(("LOADS-", "payload-in-args"))
    ],
    ids=lambda path: path.stem,
)
def test_a_bad_file_is_refused_in_one_line_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\A.+\Z"):
        convert(path, tmp_path / "student", keep_heads=True)
    assert list(tmp_path.iterdir()) == []
    assert not PAYLOAD.exists()


def test_a_payload_beside_the_model_is_left_out_with_a_warning(golden_dir: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="system"):
        convert(golden_dir / "conversion" / "bad" / "payload-in-args.ckpt", tmp_path / "student")
    account = json.loads((tmp_path / "student" / "conversion.json").read_text())
    assert any("system" in name for name in account["left_out"])
    assert not PAYLOAD.exists()


def test_an_existing_folder_or_file_is_kept(golden_dir: Path, tmp_path: Path) -> None:
    path = golden_dir / "conversion" / "paper.ckpt"
    convert(path, tmp_path / "student", keep_heads=True)
    with pytest.raises(UserError, match="--overwrite"):
        convert(path, tmp_path / "student")
    convert(path, tmp_path / "student", overwrite=True)
    assert json.loads((tmp_path / "student" / "config.json").read_text())["architectures"] == ["HubertModel"]
    export(tmp_path / "student", tmp_path / "student.ckpt")
    with pytest.raises(UserError, match="--overwrite"):
        export(tmp_path / "student", tmp_path / "student.ckpt")
    export(tmp_path / "student", tmp_path / "student.ckpt", overwrite=True)


def test_a_folder_that_is_not_read_back_as_written_never_gets_its_name(
    golden_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(model_class: Any, folder: Path, **kwargs: Any) -> Any:
        model = load_model(model_class, folder, **kwargs)
        model.encoder.layer_norm.bias.data[0] += 1
        return model

    monkeypatch.setattr("hf_distilhubert.loading.load_model", damaged)
    with pytest.raises(RuntimeError, match=r"encoder\.layer_norm\.bias was not read back"):
        convert(golden_dir / "conversion" / "paper.ckpt", tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


def test_heads_that_are_not_there_cannot_be_kept(tmp_path: Path) -> None:
    HubertModel(tiny_config()).save_pretrained(tmp_path / "student")
    exported = export(tmp_path / "student", tmp_path / "student.ckpt")
    assert exported.target_layers == ()
    with pytest.raises(UserError, match="no prediction heads"):
        convert(exported.file, tmp_path / "back", keep_heads=True)
    assert convert(exported.file, tmp_path / "back").model_class == "HubertModel"


def random_weights(rows: Any) -> dict[str, torch.Tensor]:
    return {row.s3prl: torch.randn(row.s3prl_shape) for row in rows}


@st.composite
def students(draw: Any) -> tuple[HubertConfig, Heads | None]:
    """Students of any small shape, in every mode that both sides know."""
    groups, attention = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
    convolutions = draw(st.integers(1, 3))
    config = tiny_config(
        hidden_size=draw(st.sampled_from([4, 8, 12])),
        intermediate_size=draw(st.integers(1, 9)),
        num_hidden_layers=draw(st.integers(1, 12)),
        num_attention_heads=attention,
        num_conv_pos_embeddings=draw(st.integers(1, 5)),
        num_conv_pos_embedding_groups=groups,
        conv_dim=draw(st.lists(st.integers(1, 12), min_size=convolutions, max_size=convolutions)),
        conv_kernel=draw(st.lists(st.integers(1, 4), min_size=convolutions, max_size=convolutions)),
        conv_stride=draw(st.lists(st.integers(1, 3), min_size=convolutions, max_size=convolutions)),
        feat_extract_norm=draw(st.sampled_from(["group", "layer"])),
        do_stable_layer_norm=draw(st.booleans()),
        hidden_act=draw(st.sampled_from(["gelu", "relu"])),
        hidden_dropout=draw(st.floats(0, 0.9)),
        layerdrop=0.0,
        final_dropout=0.0,
        distillation=None,
    )
    layers = draw(st.lists(st.integers(0, 24), min_size=1, max_size=4))
    heads = Heads(tuple(layers), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    return config, draw(st.sampled_from([None, heads]))


@given(students())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_names_and_settings_are_a_bijection(student: tuple[HubertConfig, Heads | None]) -> None:
    config, heads = student
    rows = list(table(config, heads))
    weights = random_weights(rows)
    assert len(weights) == len(rows)
    ours = to_hugging_face(weights, config, heads)
    assert_same_weights(to_s3prl(ours, config, heads), weights)
    if heads is not None:
        config.distillation = {
            "target_layers": list(heads.target_layers),
            "head_inner_size": heads.inner_size,
            "head_output_size": heads.output_size,
        }
        HubertForLayerDistillation(config).load_state_dict(ours, strict=True)
        del config.distillation
    distiller = to_distiller(config, heads)
    again, same_heads = from_distiller(distiller)
    assert same_heads == heads
    assert to_distiller(again, same_heads) == distiller
    for key in mapping_keys(config):
        assert getattr(again, key) == getattr(config, key), key


def mapping_keys(config: HubertConfig) -> list[str]:
    """The settings that say what a student computes."""
    chosen = re.compile(r"conv_|num_|hidden_|intermediate|feat_|do_stable|layer_norm_eps|attention_dropout")
    return [key for key in config.to_dict() if chosen.match(key)]


CONFIG = tiny_config()
HEADS = Heads((1, 3), 6, 10)


def s3prl_weights() -> dict[str, torch.Tensor]:
    return random_weights(table(CONFIG, HEADS))


@pytest.mark.parametrize(
    "name", ["encoder.layers.1.fc2.weight", "output_layer.2.bias", "post_extract_proj.bias"]
)
def test_missing_misshapen_and_infinite_tensors_are_named(name: str) -> None:
    shape = next(row.s3prl_shape for row in table(CONFIG, HEADS) if row.s3prl == name)
    changed = s3prl_weights()
    del changed[name]
    with pytest.raises(UserError, match=f"{re.escape(repr(name))} is missing.*{re.escape(str(shape))}"):
        to_hugging_face(changed, CONFIG, HEADS)
    with pytest.raises(UserError, match=f"{re.escape(repr(name))}.*\\(5, 5\\).*{re.escape(str(shape))}"):
        to_hugging_face(s3prl_weights() | {name: torch.zeros(5, 5)}, CONFIG, HEADS)
    with pytest.raises(UserError, match=f"{re.escape(repr(name))}.*not finite"):
        to_hugging_face(s3prl_weights() | {name: torch.full(shape, torch.inf)}, CONFIG, HEADS)


@given(st.text(min_size=1))
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown tensor"):
        to_hugging_face(s3prl_weights() | {name: torch.zeros(1)}, CONFIG, HEADS)
    with pytest.raises(UserError, match="unknown tensor"):
        to_s3prl(to_hugging_face(s3prl_weights(), CONFIG, HEADS) | {name: torch.zeros(1)}, CONFIG, HEADS)


def test_a_projection_that_s3prl_cannot_hold_is_refused() -> None:
    config = tiny_config(conv_dim=[8, 16])
    weights = random_weights(table(config, HEADS))
    assert not any("post_extract_proj" in name for name in weights)
    ours = to_hugging_face(weights, config, HEADS)
    projection = f"{mapping.PROJECTION[1]}.weight"
    assert torch.equal(ours[projection], torch.eye(16))
    ours[projection][0, 1] = 1e-3
    with pytest.raises(UserError, match="S3PRL's format cannot hold"):
        to_s3prl(ours, config, HEADS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_type", "sparse"),
        ("attention_type", "dynamic"),
        ("task_emb_type", "add"),
        ("task_emb_type", "concat"),
        ("task_emb_type", "concat-last"),
        ("task_emb_type", "none"),
        ("out_layer_type", "other"),
        ("activation_fn", "swish"),
        ("extractor_mode", "other"),
        ("layer_norm_first", "yes"),
        ("encoder_layers", 0),
        ("encoder_layers", 2.5),
        ("encoder_layers", True),
        ("encoder_embed_dim", 10**9),
        ("encoder_attention_heads", 5),
        ("conv_pos_groups", 5),
        ("dropout", 2),
        ("dropout", "much"),
        ("n_tasks", 5),
        ("pred_layer_id", ["one"]),
        ("pred_layer_id", 3),
        ("out_layer_inter_dim", "wide"),
        ("final_dim", 0),
        ("extractor_conv_feature_layers", [[512, 10]]),
        ("extractor_conv_feature_layers", "[(512,4001,1)]"),
        ("extractor_conv_feature_layers", "[(512,2,2)] * 12"),
        ("extractor_conv_feature_layers", [[1, 1, 1]] * 101),
        ("extractor_conv_feature_layers", "[(1,1,1)] * 99 + [(1,1,1)] * 2"),
        ("encoder_layers", 101),
        ("encoder_layers", "2.0"),
        ("encoder_layers", "9" * 5000),
        ("layer_norm_first", 2),
        ("dropout", "nan"),
    ],
)
def test_a_setting_that_transformers_cannot_express_is_named(key: str, value: Any) -> None:
    distiller = to_distiller(CONFIG, HEADS)
    with pytest.raises(UserError, match=key):
        from_distiller(distiller | {key: value})


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("encoder_layers", "2", 2),
        ("encoder_layers", 2.0, 2),
        ("dropout", "0.25", 0.25),
        ("dropout", 1, 1.0),
        ("layer_norm_first", 1, True),
        ("out_layer_inter_dim", "6", 6),
        ("activation_fn", "gelu_fast", "gelu_accurate"),
    ],
)
def test_settings_are_cast_as_s3prl_casts_them(key: str, given: Any, meant: Any) -> None:
    distiller = to_distiller(CONFIG, HEADS)
    ours, expected = (from_distiller(distiller | {key: value}) for value in (given, meant))
    assert (ours[0].to_dict(), ours[1]) == (expected[0].to_dict(), expected[1])


def test_absent_settings_are_those_of_s3prl() -> None:
    config, heads = from_distiller({})
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 768, 12)
    assert config.conv_dim == [512] * 7
    assert heads == Heads(tuple(range(1, 13)), 768, 768)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"feat_proj_layer_norm": True}, "feat_proj_layer_norm"),
        ({"conv_bias": True}, "conv_bias"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ({"hidden_act": "silu"}, "hidden_act"),
    ],
)
def test_a_model_that_s3prl_cannot_be_is_refused(changes: Any, named: str, tmp_path: Path) -> None:
    HubertModel(tiny_config(**changes)).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=named):
        export(tmp_path / "model", tmp_path / "model.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_kinds_of_models_are_refused_by_their_kind(tmp_path: Path) -> None:
    HubertForCTC(tiny_config()).save_pretrained(tmp_path / "ctc")
    with pytest.raises(UserError, match="holds a HubertForCTC"):
        export(tmp_path / "ctc", tmp_path / "model.ckpt")
    values = {key: value for key, value in tiny_config().to_dict().items() if key != "model_type"}
    Wav2Vec2Model(Wav2Vec2Config(**values)).save_pretrained(tmp_path / "wav2vec2")
    with pytest.raises(UserError, match="holds a Wav2Vec2Model"):
        export(tmp_path / "wav2vec2", tmp_path / "model.ckpt")


def test_a_folder_with_weights_missing_is_not_filled_up(tmp_path: Path) -> None:
    HubertModel(tiny_config()).save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["architectures"] = ["HubertForLayerDistillation"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit its config"):
        export(tmp_path / "model", tmp_path / "model.ckpt")


@given(
    st.lists(st.tuples(st.integers(1, 99_999), st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=9)
)
def test_the_layer_text_is_read_as_it_was_written(layers: list[tuple[int, int, int]]) -> None:
    assert parse_conv_layers(format_conv_layers(layers)) == layers
    # As a list, and as the text that S3PRL makes of a list.
    assert parse_conv_layers([list(layer) for layer in layers]) == layers
    assert parse_conv_layers(str(layers)) == layers


def test_the_papers_layer_text_is_written_as_s3prl_writes_it() -> None:
    assert format_conv_layers(parse_conv_layers(PAPER_CONV_LAYERS)) == PAPER_CONV_LAYERS


@given(st.text(alphabet="[]()*+, 0123456789", max_size=30) | st.text())
@settings(max_examples=500)
def test_a_layer_text_is_either_refused_or_means_what_python_says(text: str) -> None:
    try:
        layers = parse_conv_layers(text)
    except UserError:
        return
    assert re.fullmatch(r"[][()*+, 0-9]+", text)
    assert layers == eval(text)  # noqa: S307


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[(512,10)]",
        "[(512,10,0)]",
        "[(512,10,-5)]",
        "[(512,10,5)] * 1000",
        "[(512,10,5)] * [(512,3,2)]",
        "[(512,10,5)] +",
        "[(512,10,5)][0:]",
        "[(5_1,10,5)]",
        "[(٥,10,5)]",  # noqa: RUF001
        "__import__('os').system('true') or [(512,10,5)]",
        None,
        7,
    ],
)
def test_anything_but_layers_is_refused(text: object) -> None:
    with pytest.raises(UserError, match="extractor_conv_feature_layers"):
        parse_conv_layers(text)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `python -m NAME ARGUMENTS` in this process: exit status, standard output, standard error."""

    def run(name: str, *arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(SystemExit) as done:
            runpy.run_module(name, run_name="__main__")
        return done.value.code, *capsys.readouterr()

    return run


COMMANDS = pytest.mark.parametrize("name", ["conversion.from_s3prl", "conversion.to_s3prl"])


@COMMANDS
def test_help_has_examples_and_needs_no_torch(name: str) -> None:
    lazy = f"import sys, {name}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lazy], cwd=ROOT, timeout=60).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert f"examples:\n  python -m {name} " in done.stdout


@COMMANDS
@pytest.mark.parametrize("arguments", [[], ["--unknown"], ["./none", "./out"], ["./none"]])
def test_a_mistake_on_the_command_line_is_one_line(
    name: str, arguments: list[str], command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = command(name, *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_go_there_and_back(command: Any, golden_dir: Path, tmp_path: Path) -> None:
    source, back = golden_dir / "conversion" / "paper.ckpt", tmp_path / "back.ckpt"
    status, out, _ = command("conversion.from_s3prl", source, tmp_path / "student", "--keep_heads")
    assert (status, "HubertForLayerDistillation" in out) == (0, True)
    status, out, _ = command("conversion.to_s3prl", tmp_path / "student", back)
    assert (status, str(back) in out) == (0, True)
    assert_same_weights(read_checkpoint(back).weights, read_checkpoint(source).weights)
