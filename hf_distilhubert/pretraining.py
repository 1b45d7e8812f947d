"""The published pretraining: its optimiser, its schedule, its loss, and the loss on held-out clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hf_distilhubert.objective import Objective, distillation_loss, last_layer, mean_norms
from hf_distilhubert.training import Batch
from hf_distilhubert.training_log import to_plain

if TYPE_CHECKING:
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.teachers import Teacher


@dataclass(frozen=True)
class TeacherLoss:
    """The loss of a student against its teacher, as the training loop calls it.

    Attributes:
        teacher: runs along, unless a batch brings its `targets` with it.
        objective: what is predicted of it.
        cosine_weight: of the loss.
    """

    teacher: Teacher
    objective: Objective
    cosine_weight: float = 1.0

    def __call__(
        self, student: nn.Module, batch: Batch, num_frames: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch averaged over `num_frames` frames, and L1, cosine, teacher norms."""
        inputs = batch["input_values"], batch["attention_mask"]
        targets = batch["targets"] if "targets" in batch else self.teacher(*inputs)
        loss = distillation_loss(
            student(*inputs).predictions,
            self.objective.target(targets),
            batch["frame_mask"],
            cosine_weight=self.cosine_weight,
            num_frames=num_frames,
        )
        count = batch["frame_mask"].sum().clamp(min=1) if num_frames is None else num_frames
        norms = mean_norms(targets, batch["frame_mask"], count)
        figures = {
            f"teacher_norm/{layer}": norm for layer, norm in zip(self.teacher.layers, norms, strict=True)
        }
        for name, l1, cosine in zip(self.names, loss.l1, loss.cosine, strict=True):
            figures |= {f"l1/{name}": l1, f"cosine/{name}": cosine}
        return loss.total, figures

    @property
    def names(self) -> list[str]:
        """What each prediction is of: the number of a layer, or several."""
        layers = [str(layer) for layer in self.teacher.layers]
        if self.objective.target is last_layer:
            return layers[-1:]
        return ["+".join(layers)] if self.objective.one_head else layers


def learning_rate_factor(step: int, max_steps: int, warmup: float) -> float:
    """S3PRL's schedule, steps from 1: linear up over a share `warmup` of the steps, then linear to 0."""
    progress = min(step / max(max_steps, 1), 1.0)
    if progress < warmup:
        return progress / warmup
    return (1 - progress) / (1 - warmup) if warmup < 1 else 1.0


def make_optimizer(config: DistillConfig, student: nn.Module) -> tuple[AdamW, LambdaLR]:
    """AdamW and its schedule; biases do not decay, all else does, as in S3PRL."""
    named = [(name, parameter) for name, parameter in student.named_parameters() if parameter.requires_grad]
    biases = [parameter for name, parameter in named if "bias" in name]
    weights = [parameter for name, parameter in named if "bias" not in name]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    optimizer = AdamW(
        groups,
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=config.weight_decay,
    )
    factor = partial(learning_rate_factor, max_steps=config.max_steps, warmup=config.warmup)
    return optimizer, LambdaLR(optimizer, lambda done: factor(done + 1))


def scale_gradient(module: nn.Module, factor: float) -> None:
    """Multiply the gradients of a module's parameters (S3PRL: `feature_grad_mult`)."""
    for parameter in module.parameters():
        parameter.register_hook(lambda gradient: gradient * factor)


@torch.no_grad()
def held_out_loss(
    loss_function: TeacherLoss,
    student: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    cut_short: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """The loss's figures, averaged over all frames of the held-out clips; None if cut short."""
    student.eval()
    totals: dict[str, Tensor] = {}
    frames = 0
    one = torch.ones((), device=device)
    for batch in batches:
        if cut_short():
            return None
        on_device = {name: value.to(device) for name, value in batch.items()}
        loss, figures = loss_function(student, on_device, num_frames=one)
        frames += int(batch["frame_mask"].sum())
        for name, value in {"loss": loss, **figures}.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
    return to_plain({name: value / frames for name, value in totals.items()})
