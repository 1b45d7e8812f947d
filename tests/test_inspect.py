"""What is in a checkpoint is said without running any of it, also where it cannot be converted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import command

from conversion.checkpoint import read_checkpoint
from conversion.inspect import inspect, report
from hf_distilhubert.errors import UserError

PAYLOAD = Path(tempfile.gettempdir()) / "checkpoint_payload_ran"


def test_a_good_checkpoint_is_laid_open(golden_dir: Path) -> None:
    path = golden_dir / "conversion" / "paper.ckpt"
    found, checkpoint = inspect(path), read_checkpoint(path)
    assert {tensor.name: tensor.shape for tensor in found.tensors} == {
        name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()
    }
    assert {tensor.dtype for tensor in found.tensors} == {"float32"}
    assert found.num_parameters == sum(tensor.numel() for tensor in checkpoint.weights.values())
    assert (found.settings, found.step, found.sha256) == (
        checkpoint.distiller,
        checkpoint.step,
        checkpoint.sha256,
    )
    assert found.target_layers == tuple(checkpoint.distiller["pred_layer_id"])
    assert {"Distiller", "Config", "Step"} <= found.parts.keys()
    assert (found.foreign, found.refusal) == ((), "")


def test_the_command_prints_every_tensor_and_setting(golden_dir: Path) -> None:
    path = golden_dir / "conversion" / "paper.ckpt"
    printed = command("conversion.inspect", path)
    found = inspect(path)
    assert all(f"{tensor.name} " in printed for tensor in found.tensors)
    assert all(f"{key}: {json.dumps(value)}" in printed for key, value in found.settings.items())
    assert printed.splitlines()[-1] == "verdict   can be converted"


def test_foreign_objects_are_named_and_not_run(golden_dir: Path) -> None:
    found = inspect(golden_dir / "conversion" / "bad" / "payload-in-args.ckpt")
    assert any("system" in name for name in found.foreign)
    assert "system" in report(found)
    assert not PAYLOAD.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unsupported-attention", "attention_type"),
        ("missing-tensor", "is missing"),
        ("unknown-tensor", "unknown tensor"),
        ("payload-in-layer-string", "extractor_conv_feature_layers"),
        ("fairseq-layout", "fairseq"),
        ("no-config", "no 'Config'"),
        ("a-list", "holds a list"),
    ],
)
def test_what_cannot_be_converted_is_shown_all_the_same(golden_dir: Path, name: str, said: str) -> None:
    found = inspect(golden_dir / "conversion" / "bad" / f"{name}.ckpt")
    assert said in found.refusal
    assert found.parts
    assert report(found).splitlines()[-1] == f"verdict   {found.refusal}"
    if name not in ("a-list", "no-config"):
        assert found.tensors


def test_what_no_torch_wrote_is_one_line(golden_dir: Path) -> None:
    for name in ("text", "empty", "truncated"):
        with pytest.raises(UserError, match=r"\A.+cannot be read.+\Z"):
            inspect(golden_dir / "conversion" / "bad" / f"{name}.ckpt")


def test_names_in_a_file_cannot_forge_lines_or_steer_a_terminal(tmp_path: Path) -> None:
    name = "a\nverdict   fine\x1b[2J\ud800"
    torch.save(
        {"Distiller": {name: torch.ones(1)}, name: 1, "Config": {"distiller": {name: "\x1b"}}}, tmp_path / "f"
    )
    printed = report(inspect(tmp_path / "f"))
    assert "\nverdict   fine" not in printed
    assert printed.replace("\n", "").isprintable()
