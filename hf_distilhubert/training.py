"""The one training loop, on Accelerate: the same step on one core, one GPU or many, also after a stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hf_distilhubert.errors import UserError
from hf_distilhubert.processes import StopRequest
from hf_distilhubert.training_log import ProgressDisplay, TrainingLog
from hf_distilhubert.training_state import LoopSettings, TrainingState

Batch = Mapping[str, Tensor]
# (model, batch, number of frames to average over) -> loss, and scalars to log (`a/b`: figure b of group a)
LossFunction = Callable[[nn.Module, Batch, Tensor], tuple[Tensor, dict[str, Tensor]]]

MAX_BAD_STEPS = 10
FRAME_SECONDS = 0.02


@dataclass(frozen=True)
class Parts:
    """What is trained; model, optimiser and scheduler have been through `accelerator.prepare`."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    scheduler: Any
    loss_function: LossFunction


@dataclass(frozen=True)
class Hooks:
    """What the loop does beside training.

    Attributes:
        evaluate: figures of the model as it is now, `loss` among them; None if it was cut short by a stop.
        save: write a checkpoint.
        stop: where signals are taken down.
    """

    evaluate: Callable[[], dict[str, Any] | None] | None = None
    save: Callable[[TrainingState], None] | None = None
    stop: StopRequest = field(default_factory=StopRequest)


def run_loop(
    parts: Parts, batches: Any, log: TrainingLog, settings: LoopSettings, state: TrainingState, hooks: Hooks
) -> bool:
    """Train from `state` to the last step, evaluating and saving on the way.

    A step's loss is a mean over all its frames, so batches, accumulation and processes can be cut in any way.
    What is random in a step depends on the seed, its number and the process alone, so a run goes on from a
    checkpoint as if it had never stopped. A step with a loss or gradient that is not finite is left out.

    Args:
        parts: what is trained.
        batches: those from step `state.step` on.
        log: takes the figures.
        settings: how long, and how often what is done.
        state: how far the run is; kept up to date.
        hooks: evaluation, checkpoints, stopping.

    Returns:
        Whether the last step is done; if not, a signal asked to stop, and a checkpoint is saved.

    Raises:
        UserError: `MAX_BAD_STEPS` steps in a row were left out.
    """
    display = ProgressDisplay(parts.accelerator, state.step, settings.max_steps)
    parts.model.train()
    source = iter(batches) if state.step == 0 else _rehearsed(parts, iter(batches))
    saved = state.step
    with display.bar:
        while True:
            _evaluate_if_due(parts.model, log, settings, state, hooks)
            stopped = hooks.stop.agreed(parts.accelerator)
            due = stopped or _is_due(state.step, settings, settings.save_steps)
            if hooks.save and due and state.step > saved:
                state.compare_with_best()
                hooks.save(state)
                saved = state.step
            if stopped or state.step == settings.max_steps:
                return not stopped
            started = time.perf_counter()
            frames, learning_rate = _step(parts, islice(source, settings.accumulation), log, settings, state)
            seconds = time.perf_counter() - started
            state.seconds += seconds
            display.update(frames * FRAME_SECONDS, seconds)
            if log.has_figures and _is_due(state.step, settings, settings.logging_steps):
                log.write(state.step, learning_rate)
                display.show(state.step, log.last["loss"])


def _is_due(step: int, settings: LoopSettings, interval: int) -> bool:
    """Whether something is done after a step: every `interval` steps (0: never) and after the last."""
    return interval > 0 and (step % interval == 0 or step == settings.max_steps)


def _evaluate_if_due(
    model: nn.Module, log: TrainingLog, settings: LoopSettings, state: TrainingState, hooks: Hooks
) -> None:
    due = state.step in (0, settings.max_steps) or _is_due(state.step, settings, settings.eval_steps)
    if hooks.evaluate is None or not due or state.evaluated_at == state.step:
        return
    figures = hooks.evaluate()
    model.train()
    if figures is not None:
        state.take_in(figures)
        log.write_held_out(state.step, figures)


def _step(
    parts: Parts,
    batches: Iterator[Batch],
    log: TrainingLog,
    settings: LoopSettings,
    state: TrainingState,
) -> tuple[Tensor, float]:
    """One step of the optimiser: how many frames it heard, in all processes, and its learning rate."""
    accelerator, optimizer = parts.accelerator, parts.optimizer
    _seed_step(settings.seed, state.step, accelerator.process_index)
    frames, figures = _accumulate(parts, batches)
    norm = accelerator.clip_grad_norm_(parts.model.parameters(), settings.max_grad_norm)
    grad_norm = torch.as_tensor(norm)
    finite = bool(torch.isfinite(grad_norm) and torch.isfinite(figures["loss"]))
    if finite or accelerator.scaler is not None:  # the scaler of float16 leaves such a step out itself
        optimizer.step()
    if finite:
        state.bad_run = 0
        log.add({**figures, "grad_norm": grad_norm})
    else:
        state.skipped, state.bad_run = state.skipped + 1, state.bad_run + 1
        if state.bad_run == MAX_BAD_STEPS:
            raise UserError(
                f"{MAX_BAD_STEPS} steps in a row without a finite loss; begin anew with a lower learning rate"
            )
    learning_rate = optimizer.param_groups[0]["lr"]
    parts.scheduler.step()
    optimizer.zero_grad()
    state.step += 1
    return frames, learning_rate


def _seed_step(seed: int, step: int, process: int) -> None:
    """Make dropout (and all else that is random) a function of the seed, the step and the process."""
    set_seed(int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0]))


def _rehearsed(parts: Parts, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Go through the first batch once without learning from it; the batches, none of them used up.

    DistributedDataParallel settles in its first backward pass in which order it adds up gradients from then
    on. With more than two processes a run that goes on would round its first step otherwise than one that
    was never stopped.
    """
    if not isinstance(parts.model, DistributedDataParallel):
        return batches
    first = list(islice(batches, 1))
    if first:
        _accumulate(parts, iter(first))
        parts.optimizer.zero_grad()
    return chain(first, batches)


def _accumulate(parts: Parts, batches: Iterator[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up the gradients of one step; they are exchanged between processes once, at the last batch.

    Returns:
        The number of frames and the figures of the step, in all processes.
    """
    accelerator, step_batches = parts.accelerator, list(batches)
    own = torch.stack([batch["frame_mask"].sum() for batch in step_batches]).sum()
    frames = accelerator.reduce(own, reduction="sum").clamp(min=1)
    totals: dict[str, Tensor] = {}
    for number, batch in enumerate(step_batches, start=1):
        with accelerator.no_sync(parts.model) if number < len(step_batches) else nullcontext():
            with accelerator.autocast():
                loss, figures = parts.loss_function(parts.model, batch, frames)
            # Distributed training averages gradients over processes; a step's loss is their sum.
            accelerator.backward(loss * accelerator.num_processes)
        for name, value in {"loss": loss.detach(), **figures}.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
    reduced = accelerator.reduce(torch.stack(list(totals.values())), reduction="sum")
    return frames, dict(zip(totals, reduced, strict=True))
