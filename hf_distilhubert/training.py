"""The one training loop, on Accelerate: the same step on one core, one GPU or many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from hf_distilhubert.errors import UserError

Batch = Mapping[str, Tensor]
# (model, batch, number of frames to average over) -> loss, and scalars to log (`a/b`: figure b of group a)
LossFunction = Callable[[nn.Module, Batch, Tensor], tuple[Tensor, dict[str, Tensor]]]

MAX_BAD_STEPS = 10


@dataclass(frozen=True)
class LoopSettings:
    """How long and how carefully to train.

    Attributes:
        max_steps: optimiser steps.
        accumulation: batches per step and process.
        max_grad_norm: the gradient is scaled down to this norm.
        logging_steps: steps between two lines of the log.
    """

    max_steps: int
    accumulation: int = 1
    max_grad_norm: float = 5.0
    logging_steps: int = 10


class StepLog:
    """Means over the steps since the last line, as lines of JSON and, away from a terminal, as plain text."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.last: dict[str, Any] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Take in the figures of one step."""
        self._count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value

    @property
    def has_figures(self) -> bool:
        """Whether any step was taken since the last line."""
        return self._count > 0

    def write(self, step: int, learning_rate: float) -> None:
        """Write one line: step, means, learning rate."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self.last = {"step": step, **to_plain(means), "learning_rate": learning_rate}
        self._sums, self._count = {}, 0
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.last) + "\n")


def run_loop(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Any,
    optimizer: Any,
    scheduler: Any,
    loss_function: LossFunction,
    log: StepLog,
    settings: LoopSettings,
) -> int:
    """Train; every argument has been through `accelerator.prepare`.

    A step's loss is a mean over all its frames, so batches, accumulation and processes can be cut in any way.
    A step with a loss or gradient that is not finite is left out.

    Returns:
        The number of steps that were left out.

    Raises:
        UserError: `MAX_BAD_STEPS` steps in a row were left out.
    """
    skipped = bad_run = 0
    model.train()
    bar = tqdm(total=settings.max_steps, unit="step", disable=None if accelerator.is_main_process else True)
    source = iter(batches)
    for step in range(1, settings.max_steps + 1):
        figures = _accumulate(accelerator, model, islice(source, settings.accumulation), loss_function)
        grad_norm = torch.as_tensor(accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm))
        finite = bool(torch.isfinite(grad_norm) and torch.isfinite(figures["loss"]))
        if finite or accelerator.scaler is not None:  # the scaler of float16 leaves such a step out itself
            optimizer.step()
        if finite:
            bad_run = 0
            log.add({**figures, "grad_norm": grad_norm})
        else:
            skipped, bad_run = skipped + 1, bad_run + 1
            if bad_run == MAX_BAD_STEPS:
                raise UserError(
                    f"{MAX_BAD_STEPS} steps in a row without a finite loss; lower the learning rate"
                )
        learning_rate = optimizer.param_groups[0]["lr"]
        scheduler.step()
        optimizer.zero_grad()
        bar.update()
        if step % settings.logging_steps == 0 or step == settings.max_steps:
            _report(log, step, learning_rate, bar, settings.max_steps)
    bar.close()
    return skipped


def _accumulate(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Iterator[Batch],
    loss_function: LossFunction,
) -> dict[str, Tensor]:
    """Add up the gradients of one step; gradients are exchanged between processes once, at the last batch."""
    step_batches = list(batches)
    own = torch.stack([batch["frame_mask"].sum() for batch in step_batches]).sum()
    frames = accelerator.reduce(own, reduction="sum").clamp(min=1)
    totals: dict[str, Tensor] = {}
    for number, batch in enumerate(step_batches, start=1):
        with accelerator.no_sync(model) if number < len(step_batches) else nullcontext():
            with accelerator.autocast():
                loss, figures = loss_function(model, batch, frames)
            # Distributed training averages gradients over processes; a step's loss is their sum.
            accelerator.backward(loss * accelerator.num_processes)
        for name, value in {"loss": loss.detach(), **figures}.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
    return {name: accelerator.reduce(value, reduction="sum") for name, value in totals.items()}


def _report(log: StepLog, step: int, learning_rate: float, bar: Any, max_steps: int) -> None:
    if not log.has_figures:
        return
    log.write(step, learning_rate)
    bar.set_postfix(loss=f"{log.last['loss']:.4f}")
    if bar.disable and log.accelerator.is_main_process:
        print(f"step {step} of {max_steps}: loss {log.last['loss']:.4f}", flush=True)


def to_plain(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors as numbers for JSON; a name `a/b` becomes `{"a": {"b": …}}`."""
    plain: dict[str, Any] = {}
    for name, value in figures.items():
        group, _, key = name.partition("/")
        if key:
            plain.setdefault(group, {})[key] = value.item()
        else:
            plain[name] = value.item()
    return plain
