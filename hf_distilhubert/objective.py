"""The distillation loss: pure functions of predictions, targets and a frame mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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
