"""Linear layers whose weights lie ready for oneDNN, the fastest way that torch has on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Linear = Callable[[Tensor], Tensor]
SIZES = 32  # of products between any number of rows and twice that many


def whole_rows(rows: int) -> int:
    """With how many rows a product of so many is computed: a few more, at most one in 32.

    oneDNN makes code for every number of rows that it has not seen lately, which takes longer than a few rows
    more. As clips have all lengths, there should be few.
    """
    step = 1 << max((rows - 1).bit_length() - SIZES.bit_length(), 0)
    return -(-rows // step) * step


def with_whole_rows(rows: Tensor) -> Tensor:
    """`(row, size)` with rows of zeros behind, as many as `whole_rows` wants."""
    number = whole_rows(len(rows))
    if number == len(rows):
        return rows
    whole = rows.new_empty(number, rows.shape[1])
    whole[: len(rows)] = rows
    whole[len(rows) :] = 0
    return whole


class Packing(Protocol):
    """In what numbers the linear layers of a model compute; each has a name in it.

    Attributes:
        transforms: what the transforms of the positional convolution compute in, see `FastPositions`.
        winograd: whether convolutions may take fewer products of rounded sums, see `WinogradConvolution`.
    """

    transforms: torch.dtype
    winograd: bool

    def entry(self, name: str | None) -> Linear:
        """What turns float32 values into what the layer of this name takes; None: float32."""
        ...

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """A layer from `(row, in)` to `(row, out)`.

        Args:
            name: its name.
            weight: `(out, in)`.
            bias: `(out,)`.
            gelu: whether GELU comes after it (the exact one, by the error function).
            feeds: the layer that takes its output as it is; None where float32 is wanted.
        """
        ...


class FloatPacking:
    """Float32 or bfloat16 all through; sums are float32 in any case.

    Args:
        dtype: of weights, inputs and what feeds another layer.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.winograd = dtype == torch.float32
        self.transforms = torch.float64 if dtype == torch.float32 else torch.float32

    def entry(self, name: str | None) -> Linear:
        """See `Packing`; every layer takes the same."""
        dtype = self.dtype if name else torch.float32
        return lambda values: values.to(dtype)

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """See `Packing`."""
        packed = PackedLinear(weight, bias, self.dtype, gelu=gelu)
        if self.dtype == torch.float32:
            return packed
        return lambda rows: packed(rows.to(self.dtype)).to(self.dtype if feeds else torch.float32)


class PackedLinear:
    """`x @ weight.T + bias`, and GELU of it where asked for.

    `F.linear` goes to MKL in float32, which stays well below an AMD core's peak; oneDNN with reordered
    weights comes near it, in bfloat16 too, and computes GELU on its way out. They differ by the rounding of
    sums in another order.

    Args:
        weight: `(out, in)`.
        bias: `(out,)`.
        dtype: of inputs, weights and outputs.
        gelu: whether GELU comes after it.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32, *, gelu: bool = False
    ) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.gelu = gelu
        self.packs = torch.backends.mkldnn.is_available() and self.weight.device.type == "cpu"
        if self.packs:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def __call__(self, rows: Tensor) -> Tensor:
        """From `(row, in)` to `(row, out)`."""
        if not self.packs:
            out = F.linear(rows, self.weight, self.bias)
            return F.gelu(out) if self.gelu else out
        name, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        whole = with_whole_rows(rows)
        out = torch.ops.mkldnn._linear_pointwise(whole, self.weight, self.bias, name, [], algorithm)
        return out[: len(rows)]


class Norm:
    """Layer normalisation, in float32 whatever comes in.

    Args:
        norm: the layer.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.weight, self.bias = norm.weight.detach().float(), norm.bias.detach().float()
        self.eps = norm.eps

    def __call__(self, hidden: Tensor) -> Tensor:
        """From `(frame, hidden)` to `(frame, hidden)`."""
        return F.layer_norm(hidden, hidden.shape[-1:], self.weight, self.bias, self.eps)
