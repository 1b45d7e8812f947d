"""Fine-tuning hears the same, however a step's batch is cut; evaluation keeps no logits."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
from conftest import LARGE, RUNS, TINY

from finetune.arguments import CTCTrainingArguments
from finetune.evaluation import argmax_tokens
from finetune.settings import FinetuneConfig
from finetune.train import train

CUTS = {
    "whole": {"per_device_train_batch_size": 8},
    "parts": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "two processes": {"per_device_train_batch_size": 4, "processes": 2},
}


def logged(folder: Path, data: Path, shape: Path, processes: int = 1, **changes: object) -> list[dict]:
    """Loss and gradient norm of each step of the command in so many processes."""
    flags = {"data": data, "from_scratch": shape, "output_dir": folder, "max_steps": 4, "logging_steps": 1}
    flags |= {"use_cpu": "true", "bf16": "false", "eval_split": "none", "learning_rate": 1e-5} | changes
    words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
    answer = RUNS.ask(stage="finetune", flags=words, output=f"{folder}.out", processes=processes)
    assert set(answer["statuses"]) == {0}, answer["printed"]
    return [json.loads(line) for line in (folder / "log.jsonl").open()]


@pytest.mark.parametrize(("front_end", "strategy"), [("group", "group_by_length"), ("layer", "random")])
def test_accumulation_and_processes_change_neither_loss_nor_gradient(tmp_path, spoken, front_end, strategy):
    # Twelve clips of many lengths, with texts of three to five letters: the second step is filled up.
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps(TINY | {"num_hidden_layers": 2} | (LARGE if front_end == "layer" else {})))
    changes = {"train_sampling_strategy": strategy, "augment": "true", "spec_augment": "true"}
    whole, *others = (
        logged(tmp_path / name, spoken, shape, **changes | cut, pad_multiple=1) for name, cut in CUTS.items()
    )
    assert len(whole) == 4
    for other in others:
        for one, two in zip(whole, other, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)


def test_evaluation_keeps_no_logits_and_no_predictions_of_earlier_batches(tmp_path, spoken, monkeypatch):
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps(TINY | {"num_hidden_layers": 1}))
    seen: list[tuple[int, weakref.ref]] = []
    alive: list[int] = []

    def watched(model):
        tokens_of = argmax_tokens(model)

        def tokens(logits, labels):
            batch = len(alive)
            alive.append(sum(earlier < batch - 1 and tensor() is not None for earlier, tensor in seen))
            tokens = tokens_of(logits, labels)
            seen.extend((batch, weakref.ref(tensor)) for tensor in (logits, tokens))
            return tokens

        return tokens

    monkeypatch.setattr("finetune.trainer.argmax_tokens", watched)
    arguments = CTCTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, per_device_eval_batch_size=1, use_cpu=True
    )
    train(FinetuneConfig(data=str(spoken), from_scratch=str(shape), eval_split="all"), arguments)
    assert alive == [0] * 20
