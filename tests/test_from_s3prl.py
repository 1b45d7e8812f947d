"""What the folder of a conversion can be: with heads, for CTC, in half precision, verified on speech."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import command
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoProcessor, HubertForCTC, HubertModel

from conversion.checkpoint import read_checkpoint, write_checkpoint
from conversion.from_s3prl import convert
from conversion.parity import TOLERANCE
from conversion.to_s3prl import export
from hf_distilhubert.errors import UserError

TOKENS = ["<pad>", "<unk>", "|", "a", "b", "'"]


@pytest.fixture
def paper(golden_dir: Path) -> Path:
    return golden_dir / "conversion" / "paper.ckpt"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({token: number for number, token in enumerate(TOKENS)}))
    return path


def test_every_folder_is_compared_with_s3prls_arithmetic_and_says_so(paper: Path, tmp_path: Path) -> None:
    result = convert(paper, tmp_path / "student", keep_heads=True)
    account = json.loads((tmp_path / "student" / "conversion.json").read_text())
    names = [part["name"] for part in account["parity"]]
    assert names[:2] == ["front end", "projection"]
    layers = read_checkpoint(paper).distiller["pred_layer_id"]
    assert names[-len(layers) :] == [f"prediction of layer {layer}" for layer in layers]
    assert all(part["relative_difference"] <= TOLERANCE for part in account["parity"])
    assert [part.name for part in result.parity] == names
    assert account["verified_on"] == "made-up sound"


def test_a_folder_that_computes_something_else_is_never_written(
    paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conversion import reference

    monkeypatch.setitem(reference.ACTIVATIONS, "gelu", torch.relu)  # type: ignore[index]
    with pytest.raises(RuntimeError, match="differs from S3PRL's arithmetic"):
        convert(paper, tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


def test_recordings_of_the_users_own_are_compared_on(paper: Path, speech_dir: Path, tmp_path: Path) -> None:
    clips = sorted(path for path in speech_dir.glob("fsdd_digits/**/*.flac"))[:2]
    clips = clips or sorted(speech_dir.glob("**/*.flac"))[:2]
    printed = command("conversion.from_s3prl", paper, tmp_path / "student", "--verify", *clips)
    assert "projection" in printed
    assert "layer 1" in printed
    account = json.loads((tmp_path / "student" / "conversion.json").read_text())
    assert account["verified_on"] == ", ".join(clip.name for clip in clips)
    with pytest.raises(UserError, match="there is no such file"):
        convert(paper, tmp_path / "other", verify=[tmp_path / "none.wav"])
    assert not (tmp_path / "other").exists()


def test_a_ctc_folder_has_the_students_weights_and_a_head_for_the_vocabulary(
    paper: Path, vocabulary: Path, tmp_path: Path
) -> None:
    result = convert(paper, tmp_path / "ctc", ctc=vocabulary)
    convert(paper, tmp_path / "plain")
    assert (result.model_class, result.vocabulary_size) == ("HubertForCTC", len(TOKENS))
    model, report = HubertForCTC.from_pretrained(tmp_path / "ctc", output_loading_info=True)
    assert not report["missing_keys"]
    assert model.lm_head.out_features == len(TOKENS)
    assert not model.lm_head.weight.eq(0).any()
    assert (model.config.ctc_loss_reduction, model.config.ctc_zero_infinity) == ("mean", True)
    plain = HubertModel.from_pretrained(tmp_path / "plain").state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in model.hubert.state_dict().items())
    processor = AutoProcessor.from_pretrained(tmp_path / "ctc")
    assert processor.tokenizer.get_vocab() == json.loads(vocabulary.read_text())
    assert (processor.feature_extractor.do_normalize, model.config.pad_token_id) == (False, 0)
    again = convert(paper, tmp_path / "again", ctc=vocabulary)
    weights = [load_file(folder / "model.safetensors") for folder in (result.folder, again.folder)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_ctc_folder_goes_straight_into_fine_tuning(paper: Path, spoken: Path, tmp_path: Path) -> None:
    tokens = ["<pad>", "<unk>", "|", *"efhnortuw"]
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    convert(paper, tmp_path / "ctc", ctc=vocabulary)
    flags = {"model": tmp_path / "ctc", "data": spoken, "output_dir": tmp_path / "tuned", "max_steps": 1}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    command("finetune.train", *words, "--per_device_train_batch_size", 2)
    assert (tmp_path / "tuned" / "results.json").is_file()


def test_heads_and_ctc_exclude_each_other(paper: Path, vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of them"):
        convert(paper, tmp_path / "student", keep_heads=True, ctc=vocabulary)
    with pytest.raises(UserError, match="there is no file"):
        convert(paper, tmp_path / "student", ctc=tmp_path / "none.json")
    assert not (tmp_path / "student").exists()


def test_half_precision_halves_the_folder_and_says_what_it_costs(paper: Path, tmp_path: Path) -> None:
    full, half = (convert(paper, tmp_path / dtype, dtype=dtype) for dtype in ("float32", "float16"))
    weights = [load_file(result.folder / "model.safetensors") for result in (full, half)]
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor.half()), name
    assert HubertModel.from_pretrained(half.folder).dtype == torch.float16
    assert max(part.relative_difference for part in full.parity) <= TOLERANCE
    assert TOLERANCE < max(part.relative_difference for part in half.parity) < 1e-2


def test_weights_too_large_for_half_precision_are_named(paper: Path, tmp_path: Path) -> None:
    source = read_checkpoint(paper)
    source.weights["encoder.layers.0.fc1.bias"][0] = 1e5
    path = write_checkpoint(tmp_path / "large.ckpt", source.weights, source.distiller)
    with pytest.raises(UserError, match=r"layers\.0.*too large for float16"):
        convert(path, tmp_path / "student", dtype="float16")
    with pytest.raises(UserError, match="dtype 'int8' is unknown"):
        convert(path, tmp_path / "student", dtype="int8")


def test_the_first_card_says_where_the_model_comes_from(paper: Path, tmp_path: Path) -> None:
    result = convert(paper, tmp_path / "student")
    card = (tmp_path / "student" / "README.md").read_text()
    assert result.sha256 in card
    assert "paper.ckpt" in card


def test_a_warning_on_the_command_line_is_one_line(golden_dir: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    path = golden_dir / "conversion" / "bad" / "payload-in-args.ckpt"
    words = [sys.executable, "-m", "conversion.from_s3prl", str(path), str(tmp_path / "student")]
    run = subprocess.run(words, capture_output=True, text=True)
    assert (run.returncode, len(run.stderr.splitlines())) == (0, 1)
    assert run.stderr.startswith("warning: ")


def test_no_input_is_ever_in_a_folder_that_is_replaced(paper: Path, vocabulary: Path, tmp_path: Path) -> None:
    result = convert(paper, tmp_path / "student", keep_heads=True)
    inside = tmp_path / "student" / "source.ckpt"
    inside.write_bytes(paper.read_bytes())
    for arguments in ({"checkpoint": inside}, {"checkpoint": paper, "ctc": result.folder}):
        with pytest.raises(UserError, match="lies in the output folder"):
            convert(output_dir=result.folder, overwrite=True, **arguments)
    with pytest.raises(UserError, match="the model's folder"):
        export(result.folder, result.folder / "model.safetensors", overwrite=True)
    assert inside.is_file()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (OSError(28, "No space left on device"), SafetensorError("File too large")):

        def full_disk(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(HubertModel, "save_pretrained", full_disk)
            with pytest.raises(UserError, match="cannot write.*make room"):
                convert(paper, tmp_path / "student")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 300, "\udcff"])
def test_a_name_that_no_file_can_have_is_one_line(paper: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        convert(paper, tmp_path / name)
    with pytest.raises(UserError, match="cannot be the name"):
        convert(tmp_path / name, tmp_path / "student")


def test_a_link_is_written_through(paper: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for overwrite in (False, True):
        convert(paper, tmp_path / "link", overwrite=overwrite)
        assert (tmp_path / "real" / "model.safetensors").is_file()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_settings_say_no_path_of_this_machine(paper: Path, tmp_path: Path) -> None:
    convert(paper, tmp_path / "student")
    for file in (tmp_path / "student").iterdir():
        if file.suffix != ".safetensors":
            assert str(paper.parent) not in file.read_text()
