"""A stage writes down how it was called and what it ran on, and nothing private."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import command

from hf_distilhubert.machine import command_line, hardware
from hf_distilhubert.provenance import record


def test_a_command_is_written_down_without_the_folders_of_this_machine(
    golden_dir: Path, tmp_path: Path
) -> None:
    command(
        "conversion.from_s3prl",
        golden_dir / "conversion" / "paper.ckpt",
        tmp_path / "student",
        "--keep_heads",
    )
    (stage,) = json.loads((tmp_path / "student" / "lineage.json").read_text())
    assert stage["command"] == "python -m conversion.from_s3prl paper.ckpt student --keep_heads"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["distill", "--data", "/home/me/my speech"], "distilhubert distill --data 'my speech'"),
        (["distill", "--data=/home/me/speech"], "distilhubert distill --data=speech"),
        (["distill", "--data=/home/me/a=b", "/home/me/a=b"], "distilhubert distill --data=a=b a=b"),
        (["distill", "--data", "hub:a/b:c", "--seed", "1"], "distilhubert distill --data hub:a/b:c --seed 1"),
        (["export", "--model", "runs/student"], "distilhubert export --model runs/student"),
    ],
)
def test_paths_are_cut_down_and_names_stay(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/distilhubert", *arguments])
    assert command_line() == line


def test_other_programs_are_no_command(tmp_path: Path) -> None:
    record(tmp_path, "distill", {}, {"steps": 1})
    (stage,) = json.loads((tmp_path / "lineage.json").read_text())
    assert "command" not in stage


def test_hardware_names_the_processor_and_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    found = hardware(torch.device("cpu"))
    assert found["processor"]
    assert (found["device"], found["processes"]) == ("cpu", 1)
    assert found["cores"] >= 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    found = hardware(torch.device("cuda:1"))
    assert (found["device_name"], found["processes"]) == ("GPU 1", 4)
