"""Stock classes push and load what is made here, and data sets come whole or streamed: the real client."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import NUMBERS, python, save_recogniser

from hf_distilhubert.speech_data import load_clips

STOCK = """
import sys
import torch
from transformers import AutoProcessor, HubertForCTC, HubertModel, Trainer, TrainingArguments, pipeline
from finetune.data import ClipDataset, SpeechCollator
from hf_distilhubert import HubertForLayerDistillation
from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.students import student_config

recogniser, data = sys.argv[1:]
model, processor = HubertForCTC.from_pretrained(recogniser), AutoProcessor.from_pretrained(recogniser)
sound = torch.linspace(-1, 1, 8_000).sin()[None]

def same(name, cls, given, part):
    with torch.inference_mode():
        loaded = cls.from_pretrained(name).eval()(sound)[part]
        expected = given.eval()(sound)[part]
        assert torch.equal(loaded, expected), (name, cls, (loaded - expected).abs().max())

# 1. Model and processor, each by its own method.
model.push_to_hub("someone/by-model", private=True)
processor.push_to_hub("someone/by-model")
same("someone/by-model", HubertForCTC, model, "logits")
by_name = pipeline("automatic-speech-recognition", model="someone/by-model")
here = pipeline("automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
                feature_extractor=processor.feature_extractor)
assert by_name(sound[0].numpy()) == here(sound[0].numpy())

# 2. A student with its heads: stock classes load the student, ours the heads too.
heads = HubertForLayerDistillation(student_config(model.config, [1, 2]))
heads.push_to_hub("someone/student")
same("someone/student", HubertModel, heads, "last_hidden_state")
same("someone/student", HubertForLayerDistillation, heads, "predictions")
fast = FastEncoder.from_pretrained("someone/student")(sound).last_hidden_state
with torch.inference_mode():
    expected = heads(sound).last_hidden_state
torch.testing.assert_close(fast, expected, rtol=1e-4, atol=1e-5)

# 3. Trainer, with a model of ours and our data.
arguments = TrainingArguments("by-trainer", max_steps=1, hub_model_id="someone/by-trainer", report_to="none",
                              push_to_hub=True, save_strategy="no", remove_unused_columns=False)
clips = ClipDataset(load_clips(data, "all", need_text=True).clips[4:6], processor.tokenizer)
trainer = Trainer(model=model, args=arguments, train_dataset=clips, processing_class=processor,
                  data_collator=SpeechCollator(True, pad_multiple=3_200))
trainer.train()
trainer.push_to_hub()
same("someone/by-trainer", HubertForCTC, model, "logits")
vocabulary = AutoProcessor.from_pretrained("someone/by-trainer").tokenizer.get_vocab()
assert vocabulary == processor.tokenizer.get_vocab()
"""


@pytest.mark.slow
def test_what_stock_classes_push_they_load_again_with_the_same_outputs(hub_and_processes, numbers, tmp_path):
    hub, server = hub_and_processes
    recogniser = save_recogniser(tmp_path / "recogniser")
    python("-c", STOCK, recogniser, numbers, cwd=tmp_path, server=server)
    for name in ("by-model", "by-trainer"):
        pushed = hub.root / "someone" / name
        there = {path.name for path in pushed.iterdir()}
        assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer_config.json"} <= there


READ = """
import json, sys
import numpy as np
from hf_distilhubert.hub_data import HubStream
from hf_distilhubert.audio import read_audio
from hf_distilhubert.speech_data import load_clips

name, folder = sys.argv[1:]
data = load_clips(name, "train", need_text=True)
stream = HubStream(name, "train", 0, need_text=True)
streamed = list(stream.rows(0, None))
rows = [(clip.text, clip.speaker, clip.read()) for clip in data.clips]
rows += [(row.text, row.speaker, read_audio(row.audio)) for row in streamed]
np.savez(folder + "/sound.npz", *[sound for _, _, sound in rows])
seconds = [clip.num_samples for clip in data.clips]
print(json.dumps({"rows": [row[:2] for row in rows], "samples": seconds, "texts": stream.transcripts()}))
"""
FEATURES = {
    "audio": {"sampling_rate": 16_000, "_type": "Audio"},
    "text": {"dtype": "string", "_type": "Value"},
    "speaker_id": {"dtype": "int64", "_type": "Value"},
}
HEAD = "---\nconfigs:\n- config_name: clean\n  data_files:\n  - split: train\n    path: clean/train-*\n---\n"


def write_data_set(folder: Path, numbers: Path) -> None:
    """The clips in two Parquet files that say, as those of the Hub do, that their audio is audio."""
    (folder / "clean").mkdir(parents=True)
    (folder / "README.md").write_text(HEAD)
    rows = [
        {"audio": {"bytes": (numbers / f"{index}.wav").read_bytes(), "path": f"{index}.wav"}, "text": text}
        | {"speaker_id": index % 3}
        for index, text in enumerate(NUMBERS)
    ]
    for number in range(2):
        table = pyarrow.Table.from_pylist(rows[4 * number :][:4])
        said = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
        path = folder / "clean" / f"train-{number:05}-of-00002.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata(said), path)


@pytest.mark.slow
def test_a_data_set_with_sound_comes_whole_or_streamed_with_the_same_clips(
    hub_and_processes, numbers, tmp_path
):
    hub, server = hub_and_processes
    write_data_set(hub.root / "datasets" / "someone" / "numbers", numbers)
    said = json.loads(python("-c", READ, "hub:someone/numbers:clean", tmp_path, server=server))
    expected = [clip.read() for clip in load_clips(numbers, "all").clips]
    sounds = list(np.load(tmp_path / "sound.npz").values())
    whole, streamed = said["rows"][: len(NUMBERS)], said["rows"][len(NUMBERS) :]
    assert whole == [[text, str(index % 3)] for index, text in enumerate(NUMBERS)]
    assert said["samples"] == [len(sound) for sound in expected]
    # A file at a time, and files in an order of their own.
    assert [text for text, _ in streamed] in (NUMBERS, NUMBERS[4:] + NUMBERS[:4])
    assert said["texts"] == NUMBERS
    order = [NUMBERS.index(text) for text, _ in streamed]
    for found, index in zip(sounds, [*range(len(NUMBERS)), *order], strict=True):
        assert np.array_equal(found, expected[index])
