"""Convolutions of width 3 and stride 2 with five sixths of the multiplications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_distilhubert.packed import PackedLinear, with_whole_rows


class WinogradConvolution:
    """`y[t] = gelu(A x[2t] + B x[2t + 1] + C x[2t + 2] + bias)`, two outputs at a time.

    Winograd's F(2, 2) on the even rows: with `m[k] = (A + C) x[4k + 2] + bias`, which both outputs need,

        y[2k]     = gelu(m[k] + A (x[4k] - x[4k + 2])     + B x[4k + 1])
        y[2k + 1] = gelu(m[k] + C (x[4k + 4] - x[4k + 2]) + B x[4k + 3])

    are five products of a matrix with a row in place of six. What it costs is GELU and a sum in passes of
    their own, and bits: sums and differences are rounded before they are multiplied, so it is for float32.

    Args:
        conv: `nn.Conv1d` of width 3 and stride 2, weights `(out, in, 3)`.
    """

    kernel, stride = 3, 2

    def __init__(self, conv: nn.Conv1d) -> None:
        a, b, c = conv.weight.detach().float().unbind(-1)
        self.shared = PackedLinear(a + c, conv.bias)
        self.even = PackedLinear(torch.cat([a, b], 1), None)
        self.odd = PackedLinear(torch.cat([b, c], 1), None)

    @classmethod
    def takes(cls, layer: Any) -> bool:
        """Whether a layer of the front end is such a convolution, with nothing between it and GELU."""
        sizes = layer.conv.kernel_size[0], layer.conv.stride[0]
        return sizes == (cls.kernel, cls.stride) and not hasattr(layer, "layer_norm")

    def __call__(self, rows: Tensor) -> Tensor:
        """From `(row, in)` to `((row - 3) // 2 + 1, out)`."""
        places, channels = (len(rows) - self.kernel) // self.stride + 1, rows.shape[1]
        even, odd = (places + 1) // 2, places // 2
        middle = with_whole_rows(rows[2::4][:even])  # what comes of the rows behind is nobody's output
        shared = self.shared(middle)
        taken = rows.new_empty(len(middle), 2, channels)
        taken[even:] = 0
        out = rows.new_empty(len(middle), 2, shared.shape[1])

        torch.sub(rows[0::4][:even], middle[:even], out=taken[:even, 0])
        taken[:even, 1] = rows[1::4][:even]
        torch.add(self.even(taken.flatten(1)), shared, out=out[:, 0])

        taken[:odd, 0] = rows[3::4][:odd]
        torch.sub(rows[4::4][:odd], middle[:odd], out=taken[:odd, 1])
        torch.add(self.odd(taken.flatten(1)), shared, out=out[:, 1])
        return torch.ops.aten.gelu_(out).flatten(0, 1)[:places]
