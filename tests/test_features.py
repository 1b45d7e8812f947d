"""`distilhubert features` writes what the model computes, file by file, and goes on where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import HubertConfig, HubertModel

from hf_distilhubert.audio import feature_extractor, normalise, read_audio
from hf_distilhubert.errors import UserError
from hf_distilhubert.features import FeatureSettings, main, write_features

SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**SHAPE)).eval()
    model.save_pretrained(tmp_path / "model")
    feature_extractor(do_normalize=True).save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    for name, length in (("a", 9_000), ("deep/b", 16_000), ("deep/c", 5_000)):
        path = tmp_path / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.normal(0, 0.1, length), 16_000)
    return tmp_path


def right(folder, name: str, layer: int | None = None) -> torch.Tensor:
    model = HubertModel.from_pretrained(folder / "model").eval()
    waveform = torch.from_numpy(normalise(read_audio(folder / "audio" / f"{name}.wav")))
    with torch.no_grad():
        output = model(waveform[None], output_hidden_states=True)
    return (output.last_hidden_state if layer is None else output.hidden_states[layer])[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_file_gets_what_the_model_computes_of_it(folder, processes):
    settings = FeatureSettings(str(folder / "model"))
    result = write_features(
        settings, [str(folder / "audio")], folder / "out", batch_seconds=1.0, processes=processes
    )
    assert (result.written, result.found, result.problems) == (3, 0, [])
    for name in ("a", "deep/b", "deep/c"):
        found = load_file(folder / "out" / f"{name}.safetensors")["features"]
        assert (found - right(folder, name)).norm() / right(folder, name).norm() < 1e-5
    assert result.frames == 27 + 49 + 15
    assert not list((folder / "out").rglob("*.partial"))


def test_a_layer_is_taken_by_number_and_numpy_reads_it(folder):
    settings = FeatureSettings(str(folder / "model"), layer=1, format="npy")
    write_features(settings, [str(folder / "audio")], folder / "out")
    found = torch.from_numpy(np.load(folder / "out" / "a.npy"))
    assert (found - right(folder, "a", 1)).abs().max() < 1e-4


def test_a_folder_that_was_begun_goes_on_and_no_other_features_join_it(folder):
    model, audio, out = str(folder / "model"), [str(folder / "audio")], folder / "out"
    write_features(FeatureSettings(model), audio, out)
    (out / "a.safetensors").unlink()
    before = (out / "deep/b.safetensors").stat().st_mtime_ns
    result = write_features(FeatureSettings(model), audio, out)
    assert (result.written, result.found) == (1, 2)
    assert (out / "deep/b.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds features with layer None, not 1"):
        write_features(FeatureSettings(model, layer=1), audio, out)
    assert json.loads((out / "features.json").read_text())["model"] == "model"


def test_an_empty_file_of_a_machine_that_went_down_is_written_anew(folder):
    settings, out = FeatureSettings(str(folder / "model"), format="npy"), folder / "out"
    write_features(settings, [str(folder / "audio" / "a.wav")], out)
    (out / "a.npy").write_bytes(b"")
    assert write_features(settings, [str(folder / "audio" / "a.wav")], out).written == 1


def test_a_bad_file_is_named_and_the_others_go_on(folder, capsys):
    (folder / "audio" / "bad.wav").write_bytes(b"not audio")
    soundfile.write(folder / "audio" / "short.wav", np.ones(100) * 0.1, 16_000)
    arguments = ["--model", str(folder / "model"), "--output", str(folder / "out"), str(folder / "audio")]
    with pytest.raises(UserError, match="2 files could not be read"):
        main(arguments)
    printed = capsys.readouterr().out
    assert "3 files, 91 frames" in printed
    assert "bad.wav" in printed
    assert "short.wav" in printed


def test_another_model_of_the_same_name_does_not_join_a_folder(folder):
    audio, out = [str(folder / "audio")], folder / "out"
    write_features(FeatureSettings(str(folder / "model")), audio, out)
    model = HubertModel.from_pretrained(folder / "model")
    with torch.no_grad():
        model.encoder.layer_norm.weight.mul_(1.01)
    model.save_pretrained(folder / "model")
    with pytest.raises(UserError, match="holds features with sha256"):
        write_features(FeatureSettings(str(folder / "model")), audio, out)


def test_a_file_of_another_length_under_the_same_name_is_written_anew(folder):
    settings, out = FeatureSettings(str(folder / "model")), folder / "out"
    write_features(settings, [str(folder / "audio" / "a.wav")], out)
    (folder / "other").mkdir()
    soundfile.write(folder / "other" / "a.wav", np.random.default_rng(1).normal(0, 0.1, 20_000), 16_000)
    result = write_features(settings, [str(folder / "other" / "a.wav")], out)
    assert (result.written, result.found) == (1, 0)
    assert len(load_file(out / "a.safetensors")["features"]) == 62


def test_a_name_as_long_as_the_file_system_has_it_is_no_trouble(folder):
    (folder / "audio" / "a.wav").rename(folder / "audio" / f"{'n' * 240}.wav")
    result = write_features(FeatureSettings(str(folder / "model")), [str(folder / "audio")], folder / "out")
    assert result.written == 3


def test_what_cannot_be_done_is_said_and_leaves_no_folder(folder):
    model, audio, out = str(folder / "model"), [str(folder / "audio")], folder / "out"
    with pytest.raises(UserError, match="--layer 3; .* has 0 to 2"):
        write_features(FeatureSettings(model, layer=3), audio, out)
    assert not out.exists()
    with pytest.raises(UserError, match="there is no folder"):
        write_features(FeatureSettings(str(folder / "none")), audio, out)
    assert not out.exists()
    with pytest.raises(UserError, match="dtype 'int8'; give one of float32"):
        write_features(FeatureSettings(model, dtype="int8"), audio, out)
    with pytest.raises(UserError, match="0 processes"):
        write_features(FeatureSettings(model), audio, out, processes=0)
    with pytest.raises(UserError, match="holds no features"):
        write_features(FeatureSettings(model), audio, folder / "audio")
    soundfile.write(folder / "audio" / "a.flac", np.ones(1_000) * 0.1, 16_000)
    with pytest.raises(UserError, match="two of the files would be written to"):
        write_features(FeatureSettings(model), audio, out)
