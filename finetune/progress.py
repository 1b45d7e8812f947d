"""What is seen of a training run: what goes in, bars on a terminal, a line now and then, `log.jsonl`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from finetune.recogniser import Recogniser
from finetune.vocabulary import unknown_characters
from hf_distilhubert.errors import UserError
from hf_distilhubert.layer_sum import MODEL_TYPE
from hf_distilhubert.speech_data import SpeechData

if TYPE_CHECKING:
    from finetune.streaming import StreamedTraining

TRAINING = ("loss", "learning_rate", "grad_norm", "epoch")
EVALUATION = ("eval_loss", "eval_wer", "eval_cer")


def announce(
    recogniser: Recogniser, training: SpeechData | StreamedTraining, evaluation: SpeechData | None
) -> None:
    """Print what is trained on what, and what was left out."""
    tokenizer = recogniser.processor.tokenizer
    head = "new head" if recogniser.new_head else "its own head"
    print(
        f"training on {_amount(training)}; {recogniser.model.num_parameters():,} parameters, "
        f"{len(tokenizer)} tokens, {head}",
        flush=True,
    )
    if recogniser.model.config.model_type == MODEL_TYPE:
        print(
            "its output layer hears a weighted sum of all layers: Transformers alone, its pipeline among it, "
            "will refuse the folder; this package loads it (import hf_distilhubert.layer_sum)",
            flush=True,
        )
    if evaluation:
        unknown = unknown_characters((str(clip.text) for clip in evaluation.clips), tokenizer)
        lacking = f"; the vocabulary lacks {' '.join(unknown)}, which count as errors" if unknown else ""
        print(
            f"evaluation on {len(evaluation.clips)} clips ({len(evaluation.skipped)} left out){lacking}",
            flush=True,
        )


def _amount(training: SpeechData | StreamedTraining) -> str:
    if not isinstance(training, SpeechData):
        return str(training)
    speakers = f"{training.num_speakers} speakers, " if training.num_speakers else ""
    return f"{len(training.clips)} clips ({training.hours:.2f} h, {speakers}{len(training.skipped)} left out)"


class TrainingLog(TrainerCallback):
    """Write a line to `log.jsonl` and to the terminal each time Trainer logs.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write again what was logged up to the checkpoint that the run goes on from."""
        for logs in state.log_history:
            if state.is_world_process_zero and {"loss", "eval_loss"} & set(logs):
                self._write(logs["step"], logs)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Take over what Trainer logged.

        Raises:
            UserError: the loss is no longer finite.
        """
        if not logs or not state.is_world_process_zero or not {"loss", "eval_loss"} & set(logs):
            return
        if not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(
                f"the loss is {logs['loss']} at step {state.global_step}; lower --learning_rate "
                f"(it is {args.learning_rate:g}), and check the audio with finetune.score"
            )
        entry = self._write(state.global_step, logs)
        tqdm.write(f"step {state.global_step}/{state.max_steps}  {_line(entry)}")

    def _write(self, step: int, logs: dict[str, Any]) -> dict[str, float]:
        names = TRAINING if "loss" in logs else EVALUATION
        entry = {name: float(logs[name]) for name in names if name in logs}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
        return entry


def _line(entry: dict[str, float]) -> str:
    if "loss" in entry:
        rate, epoch = entry["learning_rate"], entry["epoch"]
        return f"loss {entry['loss']:.3f}  learning rate {rate:.1e}  epoch {epoch:.1f}"
    rates = (
        f"{name.removeprefix('eval_').upper()} {entry[name]:.1%}" for name in EVALUATION[1:] if name in entry
    )
    return "  ".join((f"evaluation: loss {entry['eval_loss']:.3f}", *rates))


class QuietProgress(ProgressCallback):
    """Trainer's bars without the dictionaries that it prints between them."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing: `TrainingLog` does."""


def watch(trainer: Trainer, log: Path) -> None:
    """Replace what Trainer prints by `TrainingLog`, with bars where it would draw them."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(QuietProgress())
    trainer.add_callback(TrainingLog(log))
