"""What a card is made from, out of what a `Trainer` knows, where no stage has written it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hf_distilhubert.machine import hardware
from hf_distilhubert.provenance import record, short_name
from hf_distilhubert.tokens import tokens_of
from model_card import forms
from model_card.files import read_json

if TYPE_CHECKING:
    from transformers import Trainer

STAGE = "finetune"
UNNAMED = "weights of no name"  # which may be any: that they were random is not known
# Of an earlier run in the same folder they are not true any more; where they are, Trainer says them again.
ITS_OWN = ("earlier_steps", "eval", "seconds")
# Of `TrainingArguments`, what a training command takes up again from `finetune.yaml`.
SETTINGS = (
    *("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2"),
    *("max_grad_norm", "seed", "bf16", "fp16"),
)


@dataclass(frozen=True)
class History:
    """What a model went through before the part of its training that Trainer knows.

    Attributes:
        model: which one; None before the first training.
        state: of that training, which counts its steps.
        earlier_steps: of other trainings before, whose state Trainer has thrown away.
        resumed: the training goes on from a checkpoint, and Trainer's clock knows the last part alone.
    """

    model: object = None
    state: Any = None
    earlier_steps: int = 0
    resumed: bool = False

    def then(self, model: object, state: Any) -> History:
        """When another training begins."""
        if state.global_step:
            return History(model, state, self.earlier_steps, resumed=True)
        earlier = self.earlier_steps + self.state.global_step if model is self.model else 0
        return History(model, state, earlier)


def write_records(
    trainer: Trainer, folder: Path, dataset: str | None = None, history: History | None = None
) -> None:
    """Write what a card is made from: `log.jsonl`, `finetune.yaml`, `results.json`, `lineage.json`.

    Nothing is written of a Trainer that has not trained. What is there of the same number of steps, from a
    stage or a notebook that knows more, stays beside what Trainer knows.

    Args:
        trainer: after some steps, also those of the run that it goes on with.
        folder: where its model lies.
        dataset: what it trained on, as the Hub calls it.
        history: what was before; by default nothing.

    Raises:
        UserError: a file that is there is none of ours.
    """
    if not trainer.state.global_step:
        return
    (folder / "log.jsonl").write_text("".join(_log_lines(trainer)), encoding="utf-8")
    figures = _figures(trainer, history or History())
    found = read_json(folder / "results.json", dict, forms.STAGE)
    if (found.pop("stage", None), found.get("steps")) == (STAGE, figures["steps"]):
        figures = {key: value for key, value in found.items() if key not in ITS_OWN} | figures
    if dataset:
        figures["data"] = f"hub:{dataset}"
    name = cast(Any, trainer.model).name_or_path or None
    values = trainer.args.to_dict()
    settings = {"model": short_name(name), "data": figures.get("data")}
    known = {name: value for name, value in settings.items() if value is not None}
    record(folder, STAGE, known | {key: values[key] for key in SETTINGS}, figures, source=name or UNNAMED)


def _log_lines(trainer: Trainer) -> Iterator[str]:
    """What Trainer logged, the part before a resume too."""
    for entry in trainer.state.log_history:
        if {"loss", "eval_loss"} & set(entry):
            finite = {name: value for name, value in entry.items() if math.isfinite(value)}
            yield json.dumps({"step": entry["step"], **finite}) + "\n"


def _figures(trainer: Trainer, before: History) -> dict[str, Any]:
    """What Trainer knows of a training, by the names that a card reads."""
    args, history, model = trainer.args, trainer.state.log_history, cast(Any, trainer.model)
    # A processor has one, and a tokenizer is one.
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    figures: dict[str, Any] = {
        "steps": trainer.state.global_step,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "num_parameters": model.num_parameters(),
        "hardware": hardware(args.device),
    }
    if isinstance(trainer.train_dataset, Sized):
        figures["train_clips"] = len(trainer.train_dataset)
    if hasattr(tokenizer, "get_vocab"):
        figures["vocabulary"] = tokens_of(tokenizer)
    if before.earlier_steps:
        figures["earlier_steps"] = before.earlier_steps
    if (trained := _trained(history)) and not before.resumed:
        figures["seconds"] = history[trained - 1]["train_runtime"]
    measured = _evaluation(trainer)
    if rates := {key: measured[f"eval_{key}"] for key in ("wer", "cer") if f"eval_{key}" in measured}:
        figures["eval"] = rates
    return figures


def _trained(history: Sequence[Mapping[str, float]]) -> int:
    """How many entries were logged when the training ended, 0 if it has not."""
    return max((place for place, entry in enumerate(history, 1) if "train_runtime" in entry), default=0)


def _evaluation(trainer: Trainer) -> Mapping[str, float]:
    """What was measured of the very weights that are pushed; empty where nothing was."""
    state, history = trainer.state, trainer.state.log_history
    end = _trained(history)
    step = state.global_step
    if end and trainer.args.load_best_model_at_end and state.best_global_step:
        step = state.best_global_step
    found = [
        entry
        for place, entry in enumerate(history, 1)
        if "eval_loss" in entry and (place > end > 0 or entry["step"] == step)
    ]
    return found[-1] if found else {}
