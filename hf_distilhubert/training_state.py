"""How long a training run is to be, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoopSettings:
    """How long and how carefully to train.

    Attributes:
        max_steps: optimiser steps.
        accumulation: batches per step and process.
        max_grad_norm: the gradient is scaled down to this norm.
        logging_steps: steps between two lines of the log.
        eval_steps: steps between two evaluations; 0 evaluates before the first step and after the last.
        save_steps: steps between two checkpoints; 0 saves when the run is asked to stop.
        seed: of all that is random in a step.
    """

    max_steps: int
    accumulation: int = 1
    max_grad_norm: float = 5.0
    logging_steps: int = 10
    eval_steps: int = 0
    save_steps: int = 0
    seed: int = 0


@dataclass
class TrainingState:
    """How far a run is; what a checkpoint holds of it beside weights and optimiser. Plain values only.

    Attributes:
        step: optimiser steps done, those left out among them.
        skipped: steps left out, their loss or gradient not being finite.
        bad_run: how many of them came last.
        seconds: duration of the steps.
        evaluated_at: step of the last evaluation, -1 before the first.
        before: figures of the first evaluation.
        after: figures of the last one.
        best_step: step of the checkpoint with the lowest evaluated loss.
        best_loss: that loss.
        data: what the data needs to be taken up again, see `PretrainingData.record`.
    """

    step: int = 0
    skipped: int = 0
    bad_run: int = 0
    seconds: float = 0.0
    evaluated_at: int = -1
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    best_step: int | None = None
    best_loss: float = float("inf")
    data: dict[str, Any] | None = None

    def take_in(self, figures: dict[str, Any]) -> None:
        """Note an evaluation of the model as it is now."""
        self.evaluated_at, self.after = self.step, figures
        self.before = figures if self.before is None else self.before

    def compare_with_best(self) -> None:
        """Note, before a checkpoint is written, whether it is the best so far."""
        if self.after and self.evaluated_at == self.step and self.after["loss"] < self.best_loss:
            self.best_step, self.best_loss = self.step, self.after["loss"]
