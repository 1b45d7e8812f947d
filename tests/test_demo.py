"""The demo's speech, its shipped teacher, and the whole of it at toy size."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import LARGE, ROOT, TINY, python
from transformers import AutoProcessor, HubertConfig, HubertForCTC

from demo.run import RECORDINGS, SHIPPED_TEACHER, Demo, _output_dir, main
from demo.ship_teacher import ship, widen_front_end
from demo.speech import ACCENTS, TEST_VOICES, TRAIN_VARIANTS, VALIDATION_VOICES, in_words
from hf_distilhubert.errors import UserError


def in_forks(arguments: list[str], **_: Any) -> SimpleNamespace:
    """What the demo starts, in a fork of a warm process: Python's start alone takes a minute otherwise."""
    out = python(*arguments[1:], cwd=Path.cwd())
    print(out)
    return SimpleNamespace(returncode=0, stdout=out)


@pytest.mark.slow
def test_the_demo_runs_on_recordings(spoken, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("demo.run.subprocess", SimpleNamespace(run=in_forks, PIPE=subprocess.PIPE))
    steps = ("--teacher_steps", "2", "--distill_steps", "2", "--finetune_steps", "2")
    folders = ("--data", str(spoken), "--output_dir", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", ["demo.run", *folders, *steps])
    main()
    out = capsys.readouterr().out
    card = Path(out.splitlines()[-1])
    assert [number for number in range(1, 8) if f"\n== {number}/7 " in out] == list(range(1, 8))
    assert "agree bit for bit" in out
    comparison = json.loads((card.parent / "comparison.json").read_text())
    assert [row["model"] for row in comparison["rows"]] == ["teacher", "distilled", "undistilled"]
    for row in comparison["rows"]:
        assert f"{row['num_parameters']:,}" in out
    drawn = ("comparison", "confusions", "training", "wer_by_speaker")
    there = {path.name for path in (card.parent / "figures").iterdir()}
    assert there == {f"{name}{theme}.png" for name in drawn for theme in ("", "-dark")}
    assert (tmp_path / "out" / "student" / "figures" / "losses.png").is_file()


def test_a_command_of_the_demo_is_shown_and_its_failure_stops_it(tmp_path, capfd):
    demo = Demo(tmp_path, tmp_path, RECORDINGS)
    assert demo._command("-c", "print('said')", capture=True) == "said\n"
    with pytest.raises(UserError, match=r"the demo stopped: `python -c 'exit\(3\)'` failed, see above"):
        demo._command("-c", "exit(3)")
    assert capfd.readouterr().out.startswith("$ python -c 'print('")


def test_the_demo_never_clears_the_recordings_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recordings = Path("runs/demo/recordings")
    recordings.mkdir(parents=True)
    (recordings / "metadata.csv").touch()
    with pytest.raises(UserError, match="lies where the demo would write"):
        _output_dir(None, recordings)
    with pytest.raises(UserError, match="there is no folder"):
        _output_dir(None, Path("absent"))
    with pytest.raises(UserError, match="exists already"):
        _output_dir(Path("runs"), None)
    assert (recordings / "metadata.csv").is_file()


def test_the_same_command_speaks_the_same_set(tmp_path):
    # espeak-ng remembers what it said: a set is the same when a process begins with it, as the command does.
    script = (
        "import sys; from demo.speech import SpeechSet, make_speech; "
        "make_speech(sys.argv[1], SpeechSet(voices=16, train=32, held_out=1))"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        python("-c", script, folder)
    with (first / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (first / row["file_name"]).read_bytes() == (second / row["file_name"]).read_bytes()
    assert len({row["speaker"] for row in rows if row["split"] == "train"}) == 16


def test_voices_kept_aside_are_never_heard_in_training():
    heard = {f"{accent}+{variant}" for accent in ACCENTS for variant in TRAIN_VARIANTS}
    assert not heard & {*TEST_VOICES, *VALIDATION_VOICES}
    assert not set(TEST_VOICES) & set(VALIDATION_VOICES)
    # Not the accent alone: the voice itself is unheard.
    variants = {voice.partition("+")[2] for voice in (*TEST_VOICES, *VALIDATION_VOICES)} - {""}
    assert not variants & set(TRAIN_VARIANTS)


def test_numbers_are_written_as_they_are_spoken():
    assert [in_words(n) for n in (7, 13, 40, 99, 100, 406, 812)] == [
        *("seven", "thirteen", "forty", "ninety nine", "one hundred"),
        *("four hundred and six", "eight hundred and twelve"),
    ]


def test_the_shipped_teacher_is_small_and_loads():
    weights = ROOT / "demo" / "teacher" / "model.safetensors"
    assert weights.stat().st_size <= 4 * 2**20
    model = HubertForCTC.from_pretrained(ROOT / "demo" / "teacher")
    assert model.dtype == torch.float16
    assert len(AutoProcessor.from_pretrained(ROOT / "demo" / "teacher").tokenizer) == model.config.vocab_size
    assert model.config.num_hidden_layers == 6
    # S3PRL's format has a projection only where these differ.
    assert model.config.conv_dim[-1] != model.config.hidden_size
    assert not SHIPPED_TEACHER.is_absolute()


def test_a_wider_front_end_computes_the_same(tmp_path):
    torch.manual_seed(0)
    config = HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False, **TINY, **LARGE)
    model = HubertForCTC(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    wider = widen_front_end(model)
    waveform = torch.randn(2, 8_000)
    with torch.no_grad():
        torch.testing.assert_close(wider(waveform).logits, model(waveform).logits, rtol=1e-4, atol=1e-4)
    assert wider.config.conv_dim[-1] == TINY["conv_dim"][-1] + 16
    model.save_pretrained(tmp_path / "model")
    shipped = HubertForCTC.from_pretrained(ship(tmp_path / "model", tmp_path / "shipped"))
    assert (shipped.dtype, shipped.config.conv_dim[-1]) == (torch.float16, wider.config.conv_dim[-1])
