"""Training learns: eight real sentences by heart, to the last letter."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from demo.run import SHIPPED_TEACHER
from finetune.arguments import CTCTrainingArguments
from finetune.score import score
from finetune.settings import FinetuneConfig
from finetune.train import train
from hf_distilhubert.speech_data import load_clips

SENTENCES = 8
STEPS = 150


@pytest.mark.slow
def test_eight_real_sentences_are_learned_by_heart(speech_dir: Path, tmp_path: Path) -> None:
    found = load_clips(speech_dir / "librispeech_mini", "all", need_text=True).clips
    shortest = sorted(found, key=lambda clip: clip.num_samples)[:SENTENCES]
    data = tmp_path / "sentences.csv"
    with data.open("w", encoding="utf-8", newline="") as file:
        rows = [(clip.audio, clip.text, "train") for clip in shortest]
        csv.writer(file).writerows([("file_name", "transcription", "split"), *rows])

    config = FinetuneConfig(model=str(SHIPPED_TEACHER), data=str(data), new_head=True, eval_split="none")
    arguments = CTCTrainingArguments(
        output_dir=str(tmp_path / "recogniser"),
        max_steps=STEPS,
        learning_rate=2e-3,
        per_device_train_batch_size=SENTENCES,
        bf16=False,
        save_strategy="no",
    )
    folder = train(config, arguments).folder
    scored = score(str(folder), str(data), split="train", batch_size=3)
    assert {u.clip: u.hypothesis for u in scored.utterances} == {
        u.clip: u.reference for u in scored.utterances
    }
    assert (scored.cer, scored.wer) == (0.0, 0.0)
    assert sorted(u.reference for u in scored.utterances) == sorted(
        str(clip.text).lower() for clip in shortest
    )
