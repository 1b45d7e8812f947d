"""Checkpoints lie beside a run's result: a stopped run leaves them to go on from, a finished one none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments

from finetune.arguments import CTCTrainingArguments, changed
from finetune.settings import FinetuneConfig
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.resume import refuse_others

if TYPE_CHECKING:
    from finetune.exact import ExactTrainer

STATE = "trainer_state.json"  # what Trainer writes last into a checkpoint
SETTINGS = "settings.json"  # beside it
# What may be another when a run goes on: how long it is, how it is cut, watched and saved.
FREE = ("output_dir", "overwrite", "max_steps", "num_train_epochs", "eval_split", "report_to", "run_name")
FREE_KINDS = ("logging_", "eval_", "save_", "dataloader_", "per_device_", "gradient_accumulation", "ddp_")


@contextmanager
def checkpoint_folder(arguments: TrainingArguments, *, overwrite: bool) -> Iterator[tuple[Path, Path | None]]:
    """Yield `OUTPUT_DIR.checkpoints`, and the checkpoint to go on from, if any.

    Both are the same for all processes. Once the block has ended without an error, the checkpoints go.

    Args:
        arguments: `output_dir`, and `resume_from_checkpoint`: `true` for the newest there, or a path.
        overwrite: throw away what a stopped run left, where this one does not go on from it.

    Raises:
        UserError: there is nothing to go on from, or a stopped run left checkpoints that would be lost.
    """
    target = Path(str(arguments.output_dir)).absolute()
    folder = target.with_name(f"{target.name}.checkpoints")
    checkpoint = _resumed(str(arguments.resume_from_checkpoint or "false"), folder)
    first = arguments.process_index == 0
    if first and checkpoint is None and _whole(folder):
        if not overwrite:
            raise UserError(
                f"{folder} holds checkpoints of a stopped run; "
                "go on with --resume_from_checkpoint true, or begin again with --overwrite true"
            )
        _remove(folder)
    try:
        yield folder, checkpoint
        if first:
            _remove(folder)
    finally:
        with suppress(OSError):
            folder.rmdir()  # Trainer makes it also where nothing is saved; one with checkpoints stays


def run_settings(config: FinetuneConfig, arguments: CTCTrainingArguments) -> dict[str, Any]:
    """All that the weights of a run depend on."""
    told = asdict(config) | changed(arguments)
    kept = {
        name: value for name, value in told.items() if name not in FREE and not name.startswith(FREE_KINDS)
    }
    parts = arguments.gradient_accumulation_steps * arguments.world_size
    return kept | {"clips in a step": arguments.train_batch_size * parts}


def fit(trainer: ExactTrainer, checkpoint: Path | None) -> None:
    """Train, going on from a checkpoint where one is given.

    Args:
        trainer: what trains.
        checkpoint: what it goes on from.

    Raises:
        UserError: the checkpoint is damaged, that of another model or of other settings, or a setting cannot
            work.
    """
    if checkpoint is not None and (begun_with := _read_settings(checkpoint)):
        names = sorted({*begun_with, *trainer.settings})
        now = {name: trainer.settings.get(name) for name in names}
        refuse_others(checkpoint.parent, begun_with, now)
    begun = _Begun()
    trainer.add_callback(begun)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # Damaged files raise classes of many libraries, with Exception as their only base.
    except Exception as error:
        if begun.yes or isinstance(error, UserError):
            raise
        reason = one_line(error, 300)
        if checkpoint is not None:
            raise UserError(
                f"cannot go on from {checkpoint}: {reason}; give another checkpoint, or begin again"
            ) from error
        if isinstance(error, (ValueError, ImportError, ZeroDivisionError)):
            raise UserError(f"training cannot begin with these settings: {reason}") from error
        raise


class _Begun(TrainerCallback):
    """Whether everything is loaded and training has begun."""

    yes = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.yes = True


def _resumed(asked: str, folder: Path) -> Path | None:
    if asked.lower() == "false":
        return None
    if asked.lower() != "true":
        if not Path(asked, STATE).is_file():
            raise UserError(
                f"{asked} is no checkpoint: it has no {STATE}; give true, or a checkpoint's folder"
            )
        return Path(asked)
    checkpoints = _whole(folder)
    if not checkpoints:
        raise UserError(
            f"{folder} holds no checkpoint to go on from; leave out --resume_from_checkpoint, "
            "and give --save_strategy for the next time"
        )
    return checkpoints[-1]


def _whole(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, without one that was being written when the run stopped."""
    steps = {path.parent.name.removeprefix("checkpoint-"): path.parent for path in folder.glob(f"*/{STATE}")}
    return [
        steps[step] for step in sorted(filter(str.isdigit, steps), key=int) if _ended(steps[step] / STATE)
    ]


def _read_settings(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((checkpoint / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _ended(state: Path) -> bool:
    """Whether the file was written to its end."""
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _remove(folder: Path) -> None:
    # Trackers may have left their logs in there, which stay.
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
