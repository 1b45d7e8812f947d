"""What a file tells of the machine, its user or a secret is found before it is sent, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_card.leaks import Machine, leaks
from model_card.selection import File

MACHINE = Machine("alice", "/home/alice", "hf_token-of-the-tests")


def told(folder: Path, name: str, content: str | bytes, machine: Machine = MACHINE) -> list[str]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(leaks(File(name, path, path.stat().st_size), machine))


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.yaml", "x: 1\ndata: /nfs/team/speech\n", "a.yaml:2 names the absolute path '/nfs/team/speech'"),
        ("a.json", '{"a": "C:\\\\Users\\\\alice\\\\x"}', "names the absolute path 'C:"),
        ("a.txt", "file:///nfs/team/speech", "names the absolute path '/nfs/team/speech'"),
        ("a.yaml", "data: ~/speech/train", "names the absolute path '~/speech/train'"),
        ("a.yaml", "data: ../../alice/speech", "names the user 'alice'"),
        ("a.json", '{"author": "alice"}', "names the user 'alice'"),
        ("a.txt", "alice@laptop", "names the user 'alice'"),
        ("a.txt", "write to bob.b@mail.example.org", "the e-mail address 'bob.b@mail.example.org'"),
        ("a.txt", "export HF_TOKEN=hf_" + "x" * 34, "a token or a password"),
        ("a.txt", "hf_token-of-the-tests", "a token or a password"),
        ("a.txt", "key sk-proj-" + "x" * 30, "a token or a password"),
        ("a.txt", "-----BEGIN OPENSSH PRIVATE KEY-----", "a token or a password"),
        ("a.txt", "\ufeffdata: /nfs/team/speech".encode("utf-16-le"), "the absolute path"),
        ("a.onnx", b"\x00\xff/home/alice/code/model.py\x00", "a.onnx holds a path in /home/alice"),
    ],
)
def test_what_must_not_be_told_is_found(name: str, content: str | bytes, part: str, tmp_path: Path) -> None:
    (line,) = told(tmp_path, name, content)
    assert part in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "See https://huggingface.co/docs/hub/models and [this](https://a.b/c/d). and/or, 3/4/5."),
        ("a.csv", "clip,reference\ntest/0.flac,alice said hello\n"),
        ("a.html", "<table><tr><td>alice</td></tr></table><br/><p>x</p>"),
        ("a.html", '<audio src="data:audio/flac;base64,AA//b/c+/d/e/f=="></audio>'),
        ("a.json", '{"tokens": "\\u00e4\\u00f6\\n\\t"}'),
        (
            "a.yaml",
            "model: someone/model\ndata: ../speech/train\nrevision: refs/pr/1\nlibrary: torch@2.13.0\n",
        ),
        ("a.png", b"\x89PNG\x00/home/bob/x"),
    ],
)
def test_what_is_no_secret_passes(name: str, content: str | bytes, tmp_path: Path) -> None:
    assert told(tmp_path, name, content) == []


def test_an_account_that_stands_for_nobody_is_no_secret(tmp_path: Path) -> None:
    assert told(tmp_path, "a.txt", '"root" user/model root@', Machine("root", "/home/root")) == []


def test_the_notes_in_weights_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"made": "in /home/alice/x"})
    (line,) = leaks(File(path.name, path, path.stat().st_size), MACHINE)
    assert line == "a.safetensors (its metadata) names the absolute path '/home/alice/x'"
