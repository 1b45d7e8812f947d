"""What a student predicts of its teacher, and the loss: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Heads = Callable[[Tensor], Tensor]


def from_last_layer(states: Sequence[Tensor], heads: Heads) -> Tensor:
    """Every head predicts from the student's last layer."""
    return heads(states[-1])


def from_own_layers(states: Sequence[Tensor], heads: Heads) -> Tensor:
    """Head i of n predicts from the student's i-th of its last n layers."""
    every = [heads(state) for state in states]
    number = every[0].shape[1]
    return torch.stack([every[i - number][:, i] for i in range(number)], dim=1)


def as_they_are(targets: Tensor) -> Tensor:
    """The teacher's layers as they are."""
    return targets


def last_layer(targets: Tensor) -> Tensor:
    """The last of the teacher's layers alone."""
    return targets[:, -1:]


def mean_of_layers(targets: Tensor) -> Tensor:
    """Mean of the teacher's layers, each brought to zero mean and unit variance (data2vec, 2202.03555)."""
    return F.layer_norm(targets.float(), targets.shape[-1:]).mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class Objective:
    """What is predicted, and from what.

    Attributes:
        predict: the student's layers, `(batch, frame, hidden)` each and first to last, and its heads, to
            predictions `(batch, heads, frame, size)`.
        target: the teacher's wanted layers `(batch, layers, frame, size)` to as many as there are heads.
        one_head: one head for all wanted layers instead of one each.
        every_layer: whether `predict` needs the student's other layers, not its last alone.
    """

    predict: Callable[[Sequence[Tensor], Heads], Tensor] = from_last_layer
    target: Callable[[Tensor], Tensor] = as_they_are
    one_head: bool = False
    every_layer: bool = False


PAPER_OBJECTIVE = "several-layers"
OBJECTIVES = {
    # DistilHuBERT: one head per wanted layer, all on the student's last.
    PAPER_OBJECTIVE: Objective(),
    # As in DistilBERT (1910.01108), here through a head too.
    "last-layer": Objective(target=last_layer, one_head=True),
    # Hints, as in TinyBERT (1909.10351) and FitHuBERT (2207.00555).
    "layer-to-layer": Objective(predict=from_own_layers, every_layer=True),
    "mean-of-layers": Objective(target=mean_of_layers, one_head=True),
}


@dataclass(frozen=True)
class DistillationLoss:
    """A loss and its parts.

    Attributes:
        total: scalar to descend, the mean over heads of `l1 + cosine_weight * cosine`.
        l1: `(heads,)`, mean absolute difference per predicted layer.
        cosine: `(heads,)`, mean of -log sigmoid(cosine similarity) per predicted layer.
    """

    total: Tensor
    l1: Tensor
    cosine: Tensor


def distillation_loss(
    predictions: Tensor,
    targets: Tensor,
    frame_mask: Tensor | None = None,
    *,
    cosine_weight: float = 1.0,
    num_frames: Tensor | float | None = None,
) -> DistillationLoss:
    """DistilHuBERT's loss (arXiv 2110.01900, section 2): L1 and log-sigmoid cosine, means over frames.

    Args:
        predictions: `(batch, heads, frame, size)`.
        targets: `(batch, heads, frame, size)`, the teacher's hidden states.
        frame_mask: `(batch, frame)`, true where a frame is speech. Without it padded frames count too, as in
            S3PRL (`pretrain/distiller/pretrain_expert.py`).
        cosine_weight: weight of the cosine part (the paper's lambda).
        num_frames: the number of frames to average over, by default those of this batch. Give that of a whole
            step where it is spread over several batches or processes: the sum of the losses is the step's.
    """
    # float32 keeps half-precision teachers with large norms from overflowing (S3PRL issue 378).
    predictions, targets = predictions.float(), targets.float()
    if frame_mask is None:
        frame_mask = predictions.new_ones(predictions.shape[0], predictions.shape[2], dtype=torch.bool)
    if num_frames is None:
        num_frames = frame_mask.sum().clamp(min=1)
    weights = frame_mask[:, None].to(predictions.dtype) / num_frames
    distance = (predictions - targets).abs().mean(dim=-1)
    similarity = F.cosine_similarity(predictions, targets, dim=-1)
    l1 = (distance * weights).sum(dim=(0, 2))
    cosine = (-F.logsigmoid(similarity) * weights).sum(dim=(0, 2))
    return DistillationLoss((l1 + cosine_weight * cosine).mean(), l1.detach(), cosine.detach())


def mean_norms(states: Tensor, frame_mask: Tensor, num_frames: Tensor | float) -> Tensor:
    """The length of a layer's vectors, averaged over frames: `(layer,)` of `(batch, layer, frame, size)`.

    Args:
        states: hidden states.
        frame_mask: `(batch, frame)`, true where a frame is speech.
        num_frames: the number of frames to average over, see `distillation_loss`.
    """
    weights = frame_mask[:, None].float() / num_frames
    return (states.float().norm(dim=-1) * weights).sum(dim=(0, 2))
