"""The front end of a student on a CPU: its convolutions as matrix products, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distilhubert.audio import num_frames
from hf_distilhubert.fast_winograd import WinogradConvolution
from hf_distilhubert.group_norm import convolution_statistics
from hf_distilhubert.packed import Linear, Norm, PackedLinear, Packing

# Rows at once. The third layer has a quarter of the first one's rows; up to it they stay in the cache, and
# what comes behind works on larger pieces.
EARLY_LAYERS, EARLY_ROWS, ROWS = 3, 383, 511
ChannelStatistics = tuple[Tensor, Tensor]


class FastFrontEnd:
    """`HubertModel.feature_extractor` for one clip at a time; only the last layer's output is ever whole.

    Args:
        extractor: the layers, with GELU, and group or layer norm.
        packing: the numbers of everything behind the first layer, which is float32.
        feeds: the linear layer that takes the features; None where float32 is wanted.
    """

    def __init__(self, extractor: Any, packing: Packing, feeds: str | None) -> None:
        first, *others = extractor.conv_layers
        names = [*(f"convolution {number}" for number in range(2, len(others) + 2)), feeds]
        self.first = FirstLayer(first, packing.entry(names[0]))
        self.others = [
            WinogradConvolution(layer.conv)
            if packing.winograd and WinogradConvolution.takes(layer)
            else Convolution(layer, packing, str(name), feeds)
            for layer, name, feeds in zip(others, names, names[1:], strict=False)
        ]

    def __call__(self, samples: Tensor, given: ChannelStatistics | None = None) -> Tensor:
        """From `(time,)` to `(frame, channel)`.

        Args:
            samples: the clip.
            given: what group norm takes for the mean and variance of each channel of the first convolution
                (without its bias), where the clip is a part of a recording; `(channel,)` each, float32.
        """
        layers = [self.first, *self.others]
        frames = num_frames(
            len(samples), [layer.kernel for layer in layers], [layer.stride for layer in layers]
        )
        return self._rows(len(self.others), self.first.of(samples, given), 0, frames)

    def _rows(self, level: int, first: Callable[[int, int], Tensor], start: int, end: int) -> Tensor:
        """Rows from `start` to `end` of what a layer gives; 0 is the first layer."""
        if level == 0:
            return first(start, end)
        layer = self.others[level - 1]
        pieces = []
        for a, b in _slices(start, end, self._at_once(level)):
            below = self._rows(level - 1, first, a * layer.stride, (b - 1) * layer.stride + layer.kernel)
            pieces.append(layer(below))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _at_once(self, level: int) -> int | None:
        if level == min(EARLY_LAYERS - 1, len(self.others)):
            return EARLY_ROWS
        return ROWS if level == len(self.others) else None


def _slices(start: int, end: int, size: int | None) -> list[tuple[int, int]]:
    """Parts of a range, of `size` but for the last, which is half to one and a half times that.

    For every new number of rows oneDNN makes code first, so there should be few.
    """
    size = size or end - start
    return list(pairwise([*range(start, max(end - size // 2, start + 1), size), end]))


class Convolution:
    """A convolution over rows as one matrix product: `y[t] = gelu(W [x[s t]; x[s t + 1]; ...])`.

    With time outermost, the `kernel` rows under the filter lie side by side in memory, and the next ones
    begin `stride` rows later: the matrix of all of them is a view.

    Args:
        layer: convolution, weights `(out, in, kernel)`, with layer norm or none, and GELU.
        packing: in what numbers it computes.
        name: of the product in it.
        feeds: the linear layer that takes its output; see `Packing`.
    """

    def __init__(self, layer: Any, packing: Packing, name: str, feeds: str | None) -> None:
        conv: nn.Conv1d = layer.conv
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        weight = conv.weight.detach().permute(0, 2, 1).flatten(1)
        norm = getattr(layer, "layer_norm", None)
        if norm is None:
            self.product = packing.linear(name, weight, conv.bias, gelu=True, feeds=feeds)
        else:
            self.product = normed(packing.linear(name, weight, conv.bias), norm, packing.entry(feeds))

    def __call__(self, rows: Tensor) -> Tensor:
        """From `(row, in)` to `((row - kernel) // stride + 1, out)`."""
        places, channels = (len(rows) - self.kernel) // self.stride + 1, rows.shape[1]
        shape, strides = (places, self.kernel * channels), (self.stride * channels, 1)
        return self.product(rows.as_strided(shape, strides, rows.storage_offset()))


def normed(product: Linear, norm: nn.LayerNorm, convert: Linear) -> Linear:
    """Layer norm and GELU behind a product."""
    normalise = Norm(norm)
    return lambda rows: convert(F.gelu(normalise(product(rows))))


class FirstLayer:
    """Convolution over samples, norm and GELU. Group norm goes into the filters, anew for each clip.

    Normalising channel c over time is `(w_c . x - m_c) / d_c * g_c + b_c`: a convolution with the filter
    `w_c g_c / d_c` and the bias `b_c - m_c g_c / d_c`. Its mean m and deviation d follow from mean and
    covariance of the ten samples under the kernel (`convolution_statistics`). So nobody reads the layer's
    output, the largest array of all, to know them, and it need never be there as a whole.

    Args:
        layer: the layer, with group or layer norm.
        convert: what turns its float32 output into what the next layer takes.
    """

    def __init__(self, layer: Any, convert: Linear) -> None:
        conv: nn.Conv1d = layer.conv
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.weight = conv.weight.detach()[:, 0].float()
        self.convert, self.norm = convert, layer.layer_norm
        self.by_row: Linear | None = None
        if isinstance(self.norm, nn.LayerNorm):
            self.by_row = normed(PackedLinear(self.weight, conv.bias), self.norm, convert)

    def of(self, samples: Tensor, given: ChannelStatistics | None) -> Callable[[int, int], Tensor]:
        """What gives its rows for `(time,)` samples, from one to another."""
        count = (len(samples) - self.kernel) // self.stride + 1
        windows = samples.as_strided((count, self.kernel), (self.stride, 1), samples.storage_offset())
        product = self.by_row or self._folded(samples, count, given)
        return lambda start, end: product(windows[start:end])

    def _folded(self, samples: Tensor, count: int, given: ChannelStatistics | None) -> Linear:
        mean, variance = given or (
            row[0]
            for row in convolution_statistics(samples[None], self.weight, self.stride, torch.tensor([count]))
        )
        scale = torch.rsqrt(variance + self.norm.eps) * self.norm.weight.detach()
        # The convolution's own bias would move the mean along with it.
        shift = self.norm.bias.detach() - mean * scale
        product = PackedLinear(self.weight * scale[:, None], shift, gelu=True)
        return lambda windows: self.convert(product(windows))
