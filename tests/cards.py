"""Folders as the stages leave them, for the tests of the card; every figure is a number of its own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from model_card import figures
from model_card.facts import Facts
from model_card.render import Card

LETTERS = ["<pad>", "<unk>", "|", "e", "n", "o", "t", "w"]
CONVERT = {"stage": "convert", "source": "paper.ckpt", "step": 200_017, "num_parameters": 23_493_001}
CONVERT["keeps_heads"] = True
DISTILL = {
    "stage": "distill",
    "source": "someone/small-teacher",
    "data": "hub:someone/clean-speech:train",
    "steps": 611,
    "batch_size": 7,
    "audio_hours": 1.31,
    "seconds": 733.0,
    "seed": 131,
    "target_layers": [2, 4, 6],
    "num_parameters": 1_237_001,
    "teacher_parameters": 1_981_001,
    "final": {"loss": 0.9011, "l1": {"2": 0.4111, "4": 0.5111}, "cosine": {"2": 0.3511, "4": 0.3611}},
}
FINETUNE = {
    "stage": "finetune",
    "source": "student",
    "data": "numbers",
    "steps": 409,
    "batch_size": 24,
    "learning_rate": 0.0005,
    "seed": 137,
    "train_clips": 1_489,
    "train_hours": 0.4271,
    "train_speakers": 17,
    "skipped": 13,
    "seconds": 97.0,
    "num_parameters": 1_238_021,
    "vocabulary_size": len(LETTERS),
    "vocabulary": LETTERS,
    "eval": {"wer": 0.2234, "cer": 0.0871},
}
SCORE = {
    "stage": "score",
    "model": "recogniser",
    "data": "numbers",
    "split": "test",
    "utterances": 157,
    "words": 463,
    "speakers": 4,
    "wer": 0.2512,
    "cer": 0.0919,
    "substitutions": 71,
    "deletions": 29,
    "insertions": 11,
    "audio_seconds": 301.0,
    "seconds": 3.7,
    "real_time_factor": 0.01231,
    "num_parameters": 1_238_021,
    "threads": 2,
    "skipped": 19,
    "text": "basic, lower case",
    "decoding": "greedy",
    "wer_interval": [0.2211, 0.2891],
    "cer_interval": [0.0711, 0.1141],
    "resampled": "utterances",
    "groups": {
        "clip length": {
            "1 to 2 s": {"utterances": 101, "words": 293, "wer": 0.2311, "cer": 0.0881},
            "2 to 5 s": {"utterances": 56, "words": 170, "wer": 0.2861, "wer_interval": [0.2011, 0.3621]},
        }
    },
    "against": {
        "model": "smaller",
        "utterances": 149,
        "wer": 0.2561,
        "other_wer": 0.3161,
        "difference": -0.0599,
        "interval": [-0.0811, -0.0391],
        "p_value": 0.0131,
    },
}
TIMES = {"1 s": {"wall": 0.0411, "cpu": 0.0431}, "5 s": {"wall": 0.1361, "cpu": 0.1321}}
SLOWER = {"1 s": {"wall": 0.1511, "cpu": 0.1551}, "5 s": {"wall": 0.5161, "cpu": 0.5111}}
AUDIO = {"1 s": 1.0, "5 s": 5.0}
BENCHMARK = {
    "stage": "benchmark",
    "model": "recogniser",
    "machine": {"processor": "Some CPU", "cores": 8, "threads": 1, "torch": "2.13.0"},
    "speech": "noise",
    "rounds": 9,
    "memory_seconds": 30.0,
    "clock": "cpu",
    "ways": [
        {
            "name": "FastEncoder float32",
            "same_model": True,
            "parameters": 1_238_021,
            "multiply_adds_per_second": 531_000_001.0,
            "file_bytes": 4_960_001,
            "extra_memory": 21_300_001,
            "times": TIMES,
            "audio": AUDIO,
            "deviations": {"1 s": 1e-6},
        },
        {"name": "teacher", "same_model": False, "parameters": 94_371_712, "times": SLOWER, "audio": AUDIO},
    ],
    "left_out": {"onnx": "it needs a package"},
    "ratios": {
        "FastEncoder float32": {
            "teacher": {
                "1 s": {"wall": 3.67, "cpu": 3.59, "believed": True},
                "5 s": {"wall": 3.79, "cpu": 3.86, "believed": True},
            }
        }
    },
}
ROWS = [
    {
        "model": "teacher",
        "num_parameters": 1_981_001,
        "wer": 0.0821,
        "cer": 0.0301,
        "real_time_factor": 0.0311,
    },
    {"model": "scratch", "num_parameters": 1_238_021, "wer": 1.0401, "cer": 0.7101},
]
EXAMPLES = [
    {"clip": "clip_53.wav", "reference": "two ten", "hypothesis": "two | tne"},
    {"clip": "clip_59.wav", "reference": "one", "hypothesis": ""},
]
LOSSES = [
    {
        "step": step,
        "loss": 1.0,
        "l1": {"2": 9 / step, "4": 8 / step},
        "cosine": {"2": 3 / step, "4": 2 / step},
    }
    for step in range(1, 200)
]
TRAINING = [
    *({"step": step, "loss": 30 / step, "learning_rate": 1e-4, "epoch": 1.0} for step in range(10, 410, 10)),
    *(
        {"step": step, "eval_loss": 1.0, "eval_wer": 90 / step, "eval_cer": 70 / step}
        for step in (100, 200, 400)
    ),
]


def write(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(json.dumps(entry) for entry in value) if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(lines + "\n")


def tiny_config(**changes: Any) -> Any:
    from transformers import HubertConfig

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    front = {
        "conv_dim": (8, 8),
        "conv_stride": (20, 16),
        "conv_kernel": (20, 16),
        "num_feat_extract_layers": 2,
    }
    position = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return HubertConfig(**shape, **front, **position, vocab_size=len(LETTERS), pad_token_id=0, **changes)


def save_weights(folder: Path) -> Path:
    """A tiny recogniser and its processor, as `finetune` saves them."""
    from transformers import HubertForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    write(folder, "vocab.json", {letter: place for place, letter in enumerate(LETTERS)})
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)
    HubertForCTC(tiny_config()).save_pretrained(folder)
    return folder


def make_recogniser(folder: Path, weights: Path | None = None) -> Path:
    """A recogniser's folder with everything that its stages may leave in one; copies `weights`."""
    if weights is not None:
        shutil.copytree(weights, folder)
    else:
        tiny_config(architectures=["HubertForCTC"]).save_pretrained(folder)
        write(folder, "preprocessor_config.json", {"sampling_rate": 16_000, "do_normalize": True})
        write(folder, "vocab.json", {letter: place for place, letter in enumerate(LETTERS)})
    versions = {"python": "3.11", "torch": "2.13.0", "transformers": "5.23"}
    write(folder, "lineage.json", [CONVERT, DISTILL, {**FINETUNE, "versions": versions}])
    write(folder, "results.json", FINETUNE)
    write(folder, "log.jsonl", TRAINING)
    write(folder, "scores/test/results.json", SCORE)
    write(folder, "benchmark.json", BENCHMARK)
    write(folder, "text.json", {"text": "basic", "case": "lower"})
    note = "Teacher read from /home/somebody/private/teacher; same steps and seed."
    write(folder, "comparison.json", {"data": "numbers", "split": "test", "note": note, "rows": ROWS})
    write(folder, "examples.json", EXAMPLES)
    return folder


def make_student(folder: Path) -> Path:
    """A distilled student's folder, with its log and without weights."""
    config = {"target_layers": [2, 4, 6], "objective": "several-layers"}
    tiny_config(architectures=["HubertForLayerDistillation"], distillation=config).save_pretrained(folder)
    write(folder, "preprocessor_config.json", {"sampling_rate": 16_000, "do_normalize": False})
    write(folder, "lineage.json", [DISTILL])
    write(folder, "log.jsonl", LOSSES)
    return folder


def make_bare(folder: Path) -> Path:
    """A folder with a config and nothing else."""
    tiny_config(architectures=["HubertForCTC"]).save_pretrained(folder)
    return folder


def named_figures(facts: Facts, folder: Path) -> dict[str, Any]:
    """The figures as a card's text shows them, without drawing them, which takes longer than all the rest."""
    return {
        name: figures.Figure(f"figures/{name}.png", f"figures/{name}-dark.png", alt)
        for name, *_, alt in figures._drawings(facts)
    }


def prose(card: Card) -> str:
    """The card without its metadata, code and citation."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", ModelCard(card.text).text, flags=re.DOTALL)
    return re.sub(r"<picture>.*?</picture>", "", text)


def headings(card: Card) -> list[str]:
    return re.findall(r"^## (.*)", card.text, flags=re.MULTILINE)
