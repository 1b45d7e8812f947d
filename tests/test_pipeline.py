"""The main job at toy size, each stage through its command line as a user would call it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT, command
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
