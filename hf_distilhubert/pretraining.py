"""The published pretraining: its optimiser, its schedule, its loss, and a run of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_distilhubert.distillation_data import Collator, HeldOutBatches, training_batches
from hf_distilhubert.objective import distillation_loss
from hf_distilhubert.training import Batch, LoopSettings, StepLog, run_loop, to_plain

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_distilhubert.distill import DistillConfig
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.teachers import Teacher


@dataclass(frozen=True)
class Objective:
    """The loss of a student against a teacher, as the training loop calls it."""

    teacher: Teacher
    cosine_weight: float

    def __call__(
        self, student: nn.Module, batch: Batch, num_frames: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch averaged over `num_frames` frames, and L1 and cosine per predicted layer."""
        inputs = batch["input_values"], batch["attention_mask"]
        loss = distillation_loss(
            student(*inputs).predictions,
            self.teacher(*inputs),
            batch["frame_mask"],
            cosine_weight=self.cosine_weight,
            num_frames=num_frames,
        )
        figures: dict[str, Tensor] = {}
        for layer, l1, cosine in zip(self.teacher.layers, loss.l1, loss.cosine, strict=True):
            figures |= {f"l1/{layer}": l1, f"cosine/{layer}": cosine}
        return loss.total, figures


def learning_rate_factor(step: int, max_steps: int, warmup: float) -> float:
    """S3PRL's schedule, steps from 1: linear up over a share `warmup` of the steps, then linear to 0."""
    progress = min(step / max(max_steps, 1), 1.0)
    if progress < warmup:
        return progress / warmup
    return (1 - progress) / (1 - warmup) if warmup < 1 else 1.0


def scale_gradient(module: nn.Module, factor: float) -> None:
    """Multiply the gradients of a module's parameters (S3PRL: `feature_grad_mult`)."""
    for parameter in module.parameters():
        parameter.register_hook(lambda gradient: gradient * factor)


@torch.no_grad()
def held_out_loss(
    objective: Objective, student: nn.Module, batches: Iterable[Batch], device: torch.device
) -> dict[str, Any]:
    """Loss, L1 and cosine per layer, averaged over all frames of the held-out clips."""
    student.eval()
    totals: dict[str, Tensor] = {}
    frames = 0
    one = torch.ones((), device=device)
    for batch in batches:
        on_device = {name: value.to(device) for name, value in batch.items()}
        loss, figures = objective(student, on_device, num_frames=one)
        frames += int(batch["frame_mask"].sum())
        for name, value in {"loss": loss, **figures}.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
    return to_plain({name: value / frames for name, value in totals.items()})


@dataclass(frozen=True)
class PretrainingData:
    """Clips to learn from, and clips to measure the loss on (possibly none)."""

    train: SpeechData
    held_out: SpeechData


@dataclass(frozen=True)
class Run:
    """The figures of a training run.

    Attributes:
        final: loss, L1 and cosine per layer, means over the last logged steps.
        held_out: the same over the held-out clips, `before` and `after`; None without such clips.
        seconds: duration of the training steps.
        skipped_steps: steps that were left out, their loss or gradient not being finite.
    """

    final: dict[str, Any]
    held_out: dict[str, Any] | None
    seconds: float
    skipped_steps: int


def pretrain(
    config: DistillConfig,
    accelerator: Accelerator,
    teacher: Teacher,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    log_path: Path,
) -> Run:
    """Train `student` in place, as `config` says."""
    teacher.to(accelerator.device)
    objective = Objective(teacher, config.cosine_weight)
    collator = Collator(student.config.conv_kernel, student.config.conv_stride, config.pad_multiple)
    scale_gradient(student.hubert.feature_extractor, config.feature_grad_mult)
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=config.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: learning_rate_factor(done + 1, config.max_steps, config.warmup)
    )
    loader = training_batches(
        data.train.clips,
        collator,
        batch_size=config.batch_size,
        num_batches=config.max_steps,
        parts=config.accumulation,
        max_samples=config.max_samples,
        seed=config.seed,
        num_workers=config.num_workers,
    )
    model, optimizer, loader, scheduler = accelerator.prepare(student, optimizer, loader, scheduler)
    batches = HeldOutBatches(data.held_out.clips, collator, config.batch_size, config.max_samples)
    before = held_out_loss(objective, student, batches, accelerator.device)
    log = StepLog(log_path, accelerator)
    settings = LoopSettings(config.max_steps, config.accumulation, config.max_grad_norm, config.logging_steps)
    started = time.perf_counter()
    skipped = run_loop(accelerator, model, loader, optimizer, scheduler, objective, log, settings)
    seconds = time.perf_counter() - started
    after = held_out_loss(objective, student, batches, accelerator.device)
    final = {name: value for name, value in log.last.items() if name in ("loss", "l1", "cosine")}
    held_out = {"before": before, "after": after} if data.held_out.clips else None
    return Run(final, held_out, seconds, skipped)
