"""Recordings of any length in flat memory: overlapping windows whose frames join to those of the whole.

A window begins at a multiple of the front end's stride, so its frames are frames of the whole recording.
Those near its edges, which lack the sound around them, are left to its neighbours. Statistics that a model
takes over a clip (input normalisation, a group norm over time) are taken over the whole recording beforehand.
What is left of the windows is that attention reaches no further than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hf_distilhubert.audio import MIN_SAMPLES, AudioError, Waveform, too_short


@dataclass(frozen=True)
class Window:
    """A stretch of a recording.

    Attributes:
        samples: `(time,)`.
        start: the first sample, counted in the window, whose frames count.
        end: the first whose frames do not; None at the end of the recording.
    """

    samples: Waveform
    start: int
    end: int | None


def windows(blocks: Iterable[Waveform], length: int, margin: int) -> Iterator[Window]:
    """Cut a recording into windows of `length` samples, the last one shorter.

    Each overlaps the next by twice `margin`; both give up the half of it that is at their edge.

    Args:
        blocks: the recording, `(time,)` each, of any lengths.
        length: samples of a window.
        margin: samples at its edges whose frames do not count, but at the edges of the recording.
    """
    held, start = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > length:
            yield Window(held[:length], start, length - margin)
            held, start = held[length - 2 * margin :], margin
    yield Window(held, start, None)


@dataclass(frozen=True)
class Statistics:
    """What a recording is like as a whole.

    Attributes:
        num_samples: its length.
        mean: of the samples.
        variance: of the samples.
        frame_mean: mean of the samples under the front end's first kernel, `(kernel,)`.
        frame_covariance: their covariance, `(kernel, kernel)`.
    """

    num_samples: int
    mean: float
    variance: float
    frame_mean: npt.NDArray[np.float64]
    frame_covariance: npt.NDArray[np.float64]


def statistics(blocks: Iterable[Waveform], kernel: int, stride: int) -> Statistics:
    """Go through a recording once.

    Args:
        blocks: the recording, `(time,)` each.
        kernel: of the front end's first convolution.
        stride: likewise.

    Raises:
        AudioError: it is shorter than one frame.
    """
    # float64 keeps the digits of a small variance beside a large mean.
    count, total, squares = 0, 0.0, 0.0
    frames, frame_sum, products = 0, np.zeros(kernel), np.zeros((kernel, kernel))
    held = np.zeros(0)
    for block in blocks:
        wide = block.astype(np.float64)
        count, total, squares = count + len(wide), total + float(wide.sum()), squares + float(wide @ wide)
        held = np.concatenate([held, wide])
        if len(held) < kernel:
            continue
        rows = np.lib.stride_tricks.sliding_window_view(held, kernel)[::stride]
        frames, frame_sum = frames + len(rows), frame_sum + rows.sum(0)
        products += rows.T @ rows
        held = held[len(rows) * stride :]
    if count < MIN_SAMPLES:
        raise AudioError(too_short(count))
    mean, frame_mean = total / count, frame_sum / frames
    covariance = products / frames - np.outer(frame_mean, frame_mean)
    return Statistics(count, mean, max(squares / count - mean**2, 0.0), frame_mean, covariance)


def normalise_as(waveform: Waveform, whole: Statistics) -> Waveform:
    """`audio.normalise` with the mean and variance of the whole recording."""
    return np.asarray((waveform - whole.mean) / np.sqrt(whole.variance + 1e-7), dtype=np.float32)


@contextmanager
def group_norm_as(model: nn.Module, whole: Statistics, *, normalised: bool) -> Iterator[None]:
    """Give the front end's group norm, where it has one, the statistics of a recording, not of a window.

    The model is to be called without an attention mask meanwhile.

    Args:
        model: one that `mask_group_norm` knows.
        whole: the statistics of the recording.
        normalised: whether the model is given what `normalise_as` makes of it.
    """
    first: Any = next(
        module for name, module in model.named_modules() if name.endswith("extractor.conv_layers.0")
    )
    norm = getattr(first, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        yield
        return
    mean, variance = channel_statistics(first.conv.weight[:, 0], whole, normalised=normalised)
    if first.conv.bias is not None:
        mean = mean + first.conv.bias.detach().double().cpu().numpy()
    first.layer_norm = ChannelNorm(norm, mean, variance)
    try:
        yield
    finally:
        first.layer_norm = norm


def channel_statistics(
    weight: Tensor, whole: Statistics, *, normalised: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and variance over a recording of every channel that a convolution makes of it, `(channel,)` each.

    They follow from those of the samples under the kernel, as in `group_norm.convolution_statistics`.

    Args:
        weight: `(channel, kernel)`.
        whole: the statistics of the recording.
        normalised: whether the convolution is given what `normalise_as` makes of it.
    """
    frame_mean, covariance = whole.frame_mean, whole.frame_covariance
    if normalised:
        scale = whole.variance + 1e-7
        frame_mean, covariance = (frame_mean - whole.mean) / np.sqrt(scale), covariance / scale
    filters = weight.detach().double().cpu().numpy()
    return filters @ frame_mean, np.einsum("ck,kl,cl->c", filters, covariance, filters)


class ChannelNorm(nn.Module):
    """A group norm of one channel a group whose mean and variance are given, `(channel,)` each."""

    def __init__(
        self, norm: nn.GroupNorm, mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]
    ) -> None:
        super().__init__()
        scale = norm.weight / torch.from_numpy(np.sqrt(variance.clip(0) + norm.eps)).to(norm.weight)
        self.scale, self.shift = scale, norm.bias - torch.from_numpy(mean).to(norm.weight) * scale

    def forward(self, values: Tensor) -> Tensor:
        """Normalise `(batch, channel, frame)`."""
        return values * self.scale[:, None] + self.shift[:, None]
