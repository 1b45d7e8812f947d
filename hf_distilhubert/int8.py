"""The Transformer's layers and the largest convolution in 8-bit integers.

Bytes have equal steps for loud and quiet frames, and what a step rounds away in a pause, the norms behind it
make as loud as speech. So the convolution gets a scale of its own for each short stretch of sound. In the
Transformer the norms come before the bytes, and the ranges of its layers are taken from real clips. What is
between the two computes in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_distilhubert.packed import FloatPacking, Linear, with_whole_rows
from hf_distilhubert.processes import computes_in_bf16

LARGEST = "convolution 2"  # half of the multiplications of the paper's front end
STRETCH = 128  # rows of it with one scale: 80 ms of sound
LAYER = "layer "  # how the names of the Transformer's layers begin
SAMPLES = 10_000  # values of one input that are remembered
CUTS = [part / 20 for part in range(20, 2, -1)]  # shares of the widest range that are tried


@dataclass(frozen=True)
class Range:
    """The line from a float32 value x to its byte: `round(x / scale) + zero`.

    Attributes:
        scale: between two neighbouring bytes.
        zero: the byte of 0.0, which so is exact.
    """

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Range:
        """The one whose bytes lie between two values."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        # Where there is a NaN the scale is one, and makes one of all that it is for.
        return cls(scale, 0 if math.isnan(scale) else round(-low / scale))

    def bytes_of(self, values: Tensor) -> Tensor:
        """uint8; values outside the range become its ends."""
        # Conversion cuts off decimals, so that a half more rounds.
        moved = torch.add(values.new_tensor(self.zero + 0.5), values, alpha=1 / self.scale)
        return moved.clamp_(0, 255).to(torch.uint8)


class Int8Packing(FloatPacking):
    """Bytes in the largest convolution and in the Transformer.

    All else is bfloat16, or float32 where the hardware has no bfloat16.

    Args:
        ranges: of the inputs of the Transformer's layers, by name; see `Observer`. A layer that feeds another
            hands over bytes.
    """

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        super().__init__(torch.bfloat16 if computes_in_bf16() else torch.float32)
        self.transforms, self.winograd, self.ranges = torch.float32, False, ranges

    def entry(self, name: str | None) -> Linear:
        """See `Packing`."""
        return Tensor.float if name == LARGEST else super().entry(name)

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """See `Packing`."""
        if name == LARGEST:
            dtype = self.dtype if feeds else torch.float32
            return by_stretches(Int8Linear(weight, bias, dtype, gelu=gelu))
        if name not in self.ranges:
            return super().linear(name, weight, bias, gelu=gelu, feeds=feeds)
        taken, given = self.ranges[name], self.ranges[feeds] if feeds else None
        layer = Int8Linear(weight, bias, torch.uint8 if given else torch.float32, gelu=gelu)
        return lambda rows: layer(
            rows if rows.dtype == torch.uint8 else taken.bytes_of(rows), taken, given or Range(1.0, 0)
        )


class Int8Linear:
    """`weight @ x + bias` with bytes for x and a scale for each output, and GELU where asked for, by oneDNN.

    Args:
        weight: `(out, in)`, float32; it becomes int8, and sums are 32-bit integers.
        bias: `(out,)`.
        dtype: of the output.
        gelu: whether GELU comes after it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, gelu: bool) -> None:
        weight = weight.detach().float()
        self.scales = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        whole = torch.round(weight / self.scales[:, None]).to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zeros = self.scales.new_zeros(len(weight), dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().float()
        self.dtype, self.gelu = dtype, gelu

    def __call__(self, rows: Tensor, taken: Range, given: Range) -> Tensor:
        """From `(row, in)` bytes to `(row, out)`.

        Args:
            rows: the bytes.
            taken: what they mean.
            given: what the bytes of the output mean, where it is bytes.
        """
        out = torch.ops.onednn.qlinear_pointwise(
            with_whole_rows(rows).contiguous(),
            taken.scale,
            taken.zero,
            self.weight,
            self.scales,
            self.zeros,
            self.bias,
            given.scale,
            given.zero,
            self.dtype,
            "gelu" if self.gelu else "none",
            [],
            "none" if self.gelu else "",
        )
        return out[: len(rows)]


def by_stretches(layer: Int8Linear) -> Linear:
    """The layer for float32 rows, of which about `STRETCH` at a time have one range.

    The rows may overlap in memory, as a convolution's do; what lies under them becomes bytes once.
    """

    def stretch(rows: Tensor) -> Tensor:
        under = rows.as_strided((rows.stride(0) * (len(rows) - 1) + rows.shape[1],), (1,))
        taken = Range.over(*map(float, under.aminmax()))
        return layer(taken.bytes_of(under).as_strided(rows.shape, rows.stride()), taken, Range(1.0, 0))

    return lambda rows: torch.cat(
        [stretch(part) for part in rows.tensor_split(max(1, round(len(rows) / STRETCH)))]
    )


class Observer(FloatPacking):
    """Float32 layers, of which those of the Transformer remember what their inputs are like."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.seen: dict[str, list[Tensor]] = {}

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """See `Packing`."""
        inner = super().linear(name, weight, bias, gelu=gelu, feeds=feeds)
        if not name.startswith(LAYER):
            return inner
        seen = self.seen.setdefault(name, [])

        def layer(rows: Tensor) -> Tensor:
            values = rows.reshape(-1)
            seen.append(values[:: max(1, len(values) // SAMPLES)].clone())
            seen.append(torch.stack(values.aminmax()))
            return inner(rows)

        return layer

    def ranges(self) -> dict[str, Range]:
        """The range of each layer's input, over all that was heard."""
        return {name: best_range(torch.cat(seen)) for name, seen in self.seen.items()}


def best_range(values: Tensor) -> Range:
    """The range that loses least of these values, in the mean of squares.

    Rare large values are cut off where that makes the steps for all others smaller.
    """
    low, high = map(float, values.aminmax())

    def lost(found: Range) -> float:
        back = (found.bytes_of(values).float() - found.zero) * found.scale
        return float((back - values).square().mean())

    return min((Range.over(low * part, high * part) for part in CUTS), key=lost)
