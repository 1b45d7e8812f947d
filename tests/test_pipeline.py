"""The main job at toy size, each stage through its command line as a user would call it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT
from transformers import HubertForCTC, HubertModel, pipeline

TOY = {
    "model_type": "hubert",
    "conv_dim": [16] * 7,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def command(*arguments: object) -> str:
    """Run one command; its output."""
    run = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, f"{arguments}: {run.stderr[-2_000:]}"
    return run.stdout


@pytest.mark.slow
def test_the_main_job_runs_from_speech_to_card(spoken, tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps(TOY))
    teacher, student, converted = (tmp_path / name for name in ("teacher", "student", "converted"))
    recogniser, checkpoint = tmp_path / "recogniser", tmp_path / "student.ckpt"
    steps = ("--max_steps", 2, "--per_device_train_batch_size", 4)
    data = ("--data", spoken)

    command("finetune.train", "--from_scratch", tmp_path / "toy.json", *data, "--output_dir", teacher, *steps)
    command(
        *("hf_distilhubert", "distill", "--teacher", teacher, *data, "--output_dir", student),
        *("--target_layers", 2, 4, "--max_steps", 2, "--batch_size", 4),
    )
    command("conversion.to_s3prl", student, checkpoint)
    command("conversion.from_s3prl", checkpoint, converted)
    command("finetune.train", "--model", converted, *data, "--output_dir", recogniser, *steps)
    command("finetune.score", "--model", recogniser, *data, "--split", "test")
    clip = spoken / "test" / "0.flac"
    text = command("hf_distilhubert", "transcribe", "--model", recogniser, clip).rstrip("\n")
    card = Path(command("model_card.render", recogniser).split()[-1])

    recognise = pipeline("automatic-speech-recognition", model=str(recogniser))
    assert recognise(soundfile.read(clip, dtype="float32")[0])["text"] == text
    with (recogniser / "scores" / "test" / "utterances.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    score = json.loads((recogniser / "scores" / "test" / "results.json").read_text())
    assert score["wer"] >= 0
    assert (ROOT / card).read_text().startswith("---\n")
    HubertModel.from_pretrained(converted)
    HubertForCTC.from_pretrained(recogniser)


@pytest.mark.slow
def test_the_demo_runs_on_recordings(spoken, tmp_path):
    out = command(
        *("demo.run", "--data", spoken, "--output_dir", tmp_path / "out"),
        *("--teacher_steps", 2, "--distill_steps", 2, "--finetune_steps", 2),
    )
    card = Path(out.splitlines()[-1])
    assert [number for number in range(1, 8) if f"\n== {number}/7 " in out] == list(range(1, 8))
    assert "agree bit for bit" in out
    comparison = json.loads((card.parent / "comparison.json").read_text())
    assert [row["model"] for row in comparison["rows"]] == ["teacher", "distilled", "undistilled"]
    for row in comparison["rows"]:
        assert f"{row['num_parameters']:,}" in out
    assert len(list((card.parent / "figures").glob("*.png"))) == 2
    assert (tmp_path / "out" / "student" / "figures" / "losses.png").is_file()


def test_the_demos_speech_is_the_same_each_time_and_keeps_voices_aside(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("hibari")
    # espeak-ng remembers what it said: a set is the same when a process begins with it, as the command does.
    script = (
        "import sys; from demo.speech import SpeechSet, make_speech; "
        "make_speech(sys.argv[1], SpeechSet(voices=16, train=32, held_out=1))"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True, cwd=ROOT)
    with (first / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (first / row["file_name"]).read_bytes() == (second / row["file_name"]).read_bytes()
    heard = {row["speaker"] for row in rows if row["split"] == "train"}
    assert len(heard) == 16
    for split in ("validation", "test"):
        assert not heard & {row["speaker"] for row in rows if row["split"] == split}
