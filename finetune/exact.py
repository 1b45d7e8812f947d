"""A Trainer whose run goes on from a checkpoint bit for bit, and gives the same loss however a batch is cut.

Trainer's own order of clips is drawn from random numbers that dropout has moved, so a run that goes on in its
second epoch would hear other batches; it forgets the loss since it last logged; and a checkpoint of an
epoch's last step is written before that epoch is evaluated, which then never happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback

from finetune.checkpoints import SETTINGS
from hf_distilhubert.batches import ByCount
from hf_distilhubert.provenance import write_json


class LengthOrder(Sampler[int]):
    """The clips of an epoch: a function of the seed and the epoch, the same for any cut of a step's batch.

    Args:
        lengths: of the clips, in samples; all the same for an order that heeds none.
        batch_size: clips of a step, in all processes. An epoch is filled up to whole steps.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.seed, self.epoch = np.asarray(lengths, np.int64), seed, 0
        self.cut = ByCount(min(batch_size, len(lengths)))

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.cut.multiple) * self.cut.multiple

    def __iter__(self) -> Iterator[int]:
        for batch in self.cut(self.lengths, np.random.default_rng((self.seed, self.epoch))):
            yield from batch.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass this is."""
        self.epoch = epoch


class ExactTrainer(Trainer):
    """Trainer with an order of clips, and checkpoints, that make a run which goes on an exact one."""

    train_dataset: Any
    settings: dict[str, Any]  # of the run, see `finetune.checkpoints.run_settings`

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The order of the clips; other strategies than these two are Trainer's own."""
        args, clips = self.args, self.train_dataset.clips
        if args.train_sampling_strategy not in ("group_by_length", "random"):
            return super()._get_train_sampler(train_dataset)
        by_length = args.train_sampling_strategy == "group_by_length"
        self.order = LengthOrder(
            [clip.num_samples if by_length else 0 for clip in clips],
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.seed if args.data_seed is None else args.data_seed,
        )
        return self.order

    def _run_epoch(self, *args: Any, **named: Any) -> None:
        """One pass; Trainer would take a step more than asked for after the checkpoint of the last one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        if hasattr(self, "order"):
            self.order.set_epoch(named["epoch"])  # Accelerate does not reach it after a resume
        super()._run_epoch(*args, **named)

    def _save_rng_state(self, output_dir: str) -> None:
        """What each process has for itself; the file that makes a checkpoint whole is written after it."""
        super()._save_rng_state(output_dir)
        window = {"loss": float(self._tr_loss), "logged": self._globalstep_last_logged}
        self._window(output_dir).write_text(json.dumps(window), encoding="utf-8")
        if self.args.process_index == 0:
            write_json(Path(output_dir, SETTINGS), self.settings)
        self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Take up what `_save_rng_state` wrote, before the first step."""
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self._window(checkpoint).is_file():
            window = json.loads(self._window(checkpoint).read_text(encoding="utf-8"))
            self._tr_loss.fill_(window["loss"])
            self._globalstep_last_logged = window["logged"]

    def _window(self, folder: str) -> Path:
        """The loss since it was last logged, of this process."""
        return Path(folder, f"loss_{self.args.process_index}_of_{self.args.world_size}.json")


class LateCheckpoints(TrainerCallback):
    """The checkpoint of an epoch's last step is written once the epoch is logged and evaluated."""

    due = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put off what is due now."""
        last = control.should_training_stop or float(state.epoch).is_integer()
        self.due = control.should_save and last
        control.should_save = control.should_save and not last

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for it again."""
        control.should_save = control.should_save or self.due
