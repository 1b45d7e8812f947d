"""A model as a file for other runtimes: as exact as PyTorch, whole or not there at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LARGE, ROOT, save_teacher
from exports import trace_no_more
from kinds import difference, padded
from transformers import (
    AutoModelForCTC,
    AutoProcessor,
    HubertConfig,
    HubertForSequenceClassification,
    HubertModel,
    WhisperConfig,
)

from hf_distilhubert import Transcriber
from hf_distilhubert.errors import UserError
from hf_distilhubert.export import FILES, export, main
from hf_distilhubert.export_check import TOLERANCE, deviation
from hf_distilhubert.export_graph import FramesAndLengths, write_onnx
from hf_distilhubert.export_model import load_exportable
from hf_distilhubert.export_runners import onnx_runner
from hf_distilhubert.layer_sum import with_layer_sum
from hf_distilhubert.loading import load_model

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")


def assert_equal_to_stock(model, file: Path) -> None:
    """Clips of lengths that the check has not, in a padded batch, against stock PyTorch's for each alone."""
    lengths = [401, 31_999, 12_345, 70_000]
    values, mask = padded(lengths, 71_000)
    found, counts = onnx_runner(file)(values.numpy(), mask.numpy())
    assert found.shape[1] == model._get_feat_extract_output_lengths(71_000)
    for clip, length, frames, count in zip(values, lengths, found, counts, strict=True):
        with torch.no_grad():
            output = model(clip[None, :length])
        expected = output["logits" if "logits" in output else "last_hidden_state"][0]
        assert len(expected) == count
        assert difference(torch.from_numpy(frames[:count]), expected) < 1e-5


def test_a_clip_in_a_padded_batch_gives_the_logits_that_pytorch_gives_for_it_alone(exported):
    model, folder, report = exported
    stock = load_model(AutoModelForCTC, model)
    assert_equal_to_stock(stock, folder / FILES["onnx"])
    assert report.file == folder / FILES["onnx"]
    assert report.deviation.worst < 1e-5


def test_a_layer_norm_model_without_a_head_gives_its_last_layer(tmp_path):
    # Three convolutions in place of seven, at the same stride: the exporter needs half as long.
    front_end = {"conv_dim": (16,) * 3, "conv_kernel": (10, 8, 8), "conv_stride": (5, 8, 8)}
    teacher = save_teacher(tmp_path / "teacher", num_hidden_layers=1, **LARGE, **front_end)
    report = export(teacher, tmp_path / "onnx")
    assert_equal_to_stock(load_model(HubertModel, teacher), report.file)
    session = onnxruntime.InferenceSession(str(report.file))
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state", "frame_lengths"]
    assert "vocabulary" not in session.get_modelmeta().custom_metadata_map
    assert not (tmp_path / "onnx" / "tokenizer.json").exists()


def test_the_file_says_all_that_is_needed_to_use_it_and_nothing_of_this_machine(exported):
    _, folder, _ = exported
    session = onnxruntime.InferenceSession(str(folder / FILES["onnx"]))
    said = session.get_modelmeta().custom_metadata_map
    assert (said["sampling_rate"], said["frame_stride"], said["frame_rate"]) == ("16000", "320", "50")
    assert (said["do_normalize"], said["blank_id"], said["word_delimiter"]) == ("true", "0", "|")
    assert json.loads(said["vocabulary"])[:5] == ["<pad>", "<unk>", "|", "e", "f"]
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input_values", "tensor(float)", ["batch", "time"]),
        ("attention_mask", "tensor(int64)", ["batch", "time"]),
    ]
    content = (folder / FILES["onnx"]).read_bytes()
    assert not [word for word in (str(ROOT), "site-packages", "hf_distilhubert/") if word.encode() in content]


def test_no_number_in_the_graph_has_64_bits_of_float_which_browsers_lack(exported):
    graph = onnx.load(exported[1] / FILES["onnx"]).graph
    wide = onnx.TensorProto.DOUBLE
    assert not any(weight.data_type == wide for weight in graph.initializer)
    assert not any(node.op_type == "Cast" and node.attribute[0].i == wide for node in graph.node)


def test_the_folder_is_whole_and_says_how_exact_it_is(exported):
    model, folder, report = exported
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json", "export.json"}
    assert [path.name for path in (folder / "onnx").iterdir()] == ["model.onnx"]
    assert {path.name for path in folder.parent.iterdir()} == {model.name, folder.name}
    said = json.loads((folder / "export.json").read_text())
    assert set(said["deviation"]["alone"]) == {"400", "16000", "84801"}
    assert said["deviation"]["batch"] == report.deviation.batch < said["deviation"]["allowed"] == 1e-4
    assert said["bytes"] == (folder / FILES["onnx"]).stat().st_size


def test_onnx_runtime_and_the_processor_write_what_the_transcriber_writes(exported):
    model, folder, _ = exported
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(n).astype(np.float32) for n in (9_000, 30_000)]
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        clips, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="np"
    )
    logits, lengths = onnx_runner(folder / FILES["onnx"])(inputs["input_values"], inputs["attention_mask"])
    texts = [processor.decode(row[:count].argmax(-1)) for row, count in zip(logits, lengths, strict=True)]
    assert texts == Transcriber(model, device="cpu").transcribe_waveforms(clips)


# ----- the check ------------------------------------------------------------------------------------------


def test_the_check_sees_a_group_norm_that_hears_padding(tmp_path):
    folder = save_teacher(tmp_path / "teacher", num_hidden_layers=1)
    module, stock = FramesAndLengths(load_model(HubertModel, folder)), load_model(HubertModel, folder)

    @torch.no_grad()
    def run(values, mask):
        frames = stock(torch.from_numpy(values), attention_mask=torch.from_numpy(mask)).last_hidden_state
        return frames.numpy(), stock._get_feat_extract_output_lengths(torch.from_numpy(mask.sum(-1))).numpy()

    found = deviation(run, module, do_normalize=False)
    assert max(found.alone.values()) < 1e-5
    assert found.batch > 100 * TOLERANCE


def test_a_file_that_is_not_exact_is_refused_and_nothing_is_left(exported, tmp_path, monkeypatch):
    model, folder, _ = exported
    trace_no_more(monkeypatch, folder / FILES["onnx"])
    other = shutil.copytree(model, tmp_path / "other")
    changed = load_model(AutoModelForCTC, other)
    changed.lm_head.bias.data[3] += 0.1
    changed.save_pretrained(other)
    with pytest.raises(
        UserError, match=r"model.onnx is off by \d.* over the allowed 1e-04, and was not kept"
    ):
        export(other, tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# ----- other formats --------------------------------------------------------------------------------------


def test_8_bits_are_for_linear_layers_alone_and_their_cost_is_measured(
    exported, numbers, tmp_path, monkeypatch, capsys
):
    model, folder, whole = exported
    trace_no_more(monkeypatch, folder / FILES["onnx"])
    arguments = ["--model", model, "--output", tmp_path / "int8", "--format", "onnx-int8", "--data", numbers]
    report = main([*map(str, arguments)])
    nodes = [node.op_type for node in onnx.load(report.file).graph.node]
    assert nodes.count("Conv") == 8
    assert nodes.count("MatMulInteger") == 2 * 6 + 2  # two layers of six, the projection, the head
    assert report.size < 0.8 * whole.size
    assert 1e-4 < report.deviation.worst < 0.1
    assert [path.name for path in report.file.parent.iterdir()] == ["model_quantized.onnx"]
    cost = json.loads((tmp_path / "int8" / "export.json").read_text())["cost"]
    assert cost["clips"] == 7
    assert cost["float32"]["wer"] > 0.5
    assert cost["points"]["wer"] == pytest.approx(100 * (cost["int8"]["wer"] - cost["float32"]["wer"]))
    assert "WER" in (said := capsys.readouterr().out)
    assert f"{cost['different']} of 7 texts differ" in said


def test_openvino_is_as_exact(exported, tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")
    model, folder, _ = exported
    trace_no_more(monkeypatch, folder / FILES["onnx"])
    report = export(model, tmp_path / "openvino", "openvino")
    assert report.deviation.worst < 1e-5
    assert {path.suffix for path in report.file.parent.iterdir()} == {".xml", ".bin"}
    said = openvino.Core().read_model(str(report.file)).get_rt_info(["hf_distilhubert", "sampling_rate"])
    assert said.astype(str) == "16000"


def test_a_weighted_sum_of_layers_goes_out_as_a_stock_recogniser(exported, tmp_path):
    model = shutil.copytree(exported[0], tmp_path / "summed")
    with_layer_sum(load_model(AutoModelForCTC, model)).save_pretrained(model)
    exportable = load_exportable(model)
    (tmp_path / "out").mkdir()
    exportable.save(tmp_path / "out", "fp32")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("hubert", ["HubertForCTC"])
    assert exportable.module.output == "logits"


# ----- what is refused ------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_said_before_anything_is_done(tmp_path, monkeypatch, exported):
    model, folder, _ = exported
    monkeypatch.setattr("hf_distilhubert.export_graph.write_onnx", lambda *_: pytest.fail("too late"))
    teacher = save_teacher(tmp_path / "teacher", num_hidden_layers=1)
    classifier = save_teacher(tmp_path / "classifier", num_hidden_layers=1)
    HubertForSequenceClassification(HubertConfig.from_pretrained(classifier)).save_pretrained(classifier)
    WhisperConfig(architectures=["WhisperModel"]).save_pretrained(tmp_path / "whisper")
    refused = [
        (["nowhere/at-all"], {}, "cannot load AutoConfig"),
        ([tmp_path / "whisper"], {}, "of type 'whisper', which cannot be exported; give one of hubert, "),
        ([classifier], {}, "holds a HubertForSequenceClassification; give a model with a CTC head"),
        ([model], {"file_format": "onnx-int4"}, "no format 'onnx-int4'; give one of onnx, "),
        ([model], {"data": "x"}, "give onnx-int8, or leave the data out"),
        ([teacher], {"data": "x", "file_format": "onnx-int8"}, "no words to measure"),
        ([model], {"data": tmp_path / "x", "file_format": "onnx-int8"}, "there is no data at"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, settings, reason in refused:
        with pytest.raises(UserError, match=reason):
            export(*arguments, tmp_path / "out", **settings)
    with pytest.raises(UserError, match="exists already"):
        export(model, folder)
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distilhubert.export_runners.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxscript .*pip install 'hf-distilhubert\[onnx\]'"):
        export(tmp_path / "model", tmp_path / "out")
    monkeypatch.setattr("hf_distilhubert.export_runners.find_spec", lambda name: name != "openvino" or None)
    with pytest.raises(UserError, match=r"needs openvino, .*pip install 'hf-distilhubert\[openvino\]'"):
        export(tmp_path / "model", tmp_path / "out", "openvino")


def test_a_model_too_large_for_one_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distilhubert.export_graph.LARGEST", 50_000)
    module = FramesAndLengths(load_model(HubertModel, save_teacher(tmp_path / "teacher")))
    with pytest.raises(UserError, match="GB of weights do not fit"):
        write_onnx(module, tmp_path / "model.onnx", {})


def test_what_the_tracer_trips_over_is_one_line(tmp_path, monkeypatch):
    module = FramesAndLengths(load_model(HubertModel, save_teacher(tmp_path / "teacher")))

    def trip(*_args, **_kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("torch.onnx.export", trip)
    with pytest.raises(UserError, match="a HubertModel cannot be exported: first line second line"):
        write_onnx(module, tmp_path / "model.onnx", {})
