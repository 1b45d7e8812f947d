"""Linear layers in 8-bit integers, with the ranges of their inputs taken from real clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_distilhubert.packed import FloatPacking, Linear

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
        return cls(scale, round(-low / scale))

    def bytes_of(self, values: Tensor) -> Tensor:
        """uint8; values outside the range become its ends."""
        # Conversion cuts off decimals, so that a half more rounds.
        return values.mul(1 / self.scale).add_(self.zero + 0.5).clamp_(0, 255).to(torch.uint8)


class Int8Packing:
    """uint8 inputs and int8 weights, a scale for each output channel, sums in 32-bit integers.

    Layers behind one another hand over bytes; the last of a chain gives float32.

    Args:
        ranges: of the input of every layer, by name; see `Observer`.
    """

    transforms = torch.float32

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        self.ranges = ranges

    def entry(self, name: str | None) -> Linear:
        """See `Packing`."""
        return self.ranges[name].bytes_of if name else Tensor.float

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """See `Packing`."""
        out = self.ranges[feeds] if feeds else None
        return Int8Linear(weight, bias, self.ranges[name], out, gelu=gelu)


class Int8Linear:
    """`weight @ x + bias` with bytes for x, and GELU of it where asked for, by oneDNN.

    Args:
        weight: `(out, in)`, float32.
        bias: `(out,)`.
        taken: range of the input.
        given: range of the output; None for float32.
        gelu: whether GELU comes after it.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, taken: Range, given: Range | None, *, gelu: bool
    ) -> None:
        weight = weight.detach().float()
        self.scales = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        whole = torch.round(weight / self.scales[:, None]).to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().float()
        self.taken, self.given, self.gelu = taken, given, gelu

    def __call__(self, rows: Tensor) -> Tensor:
        """From `(row, in)` bytes or float32 to `(row, out)`."""
        rows = rows if rows.dtype == torch.uint8 else self.taken.bytes_of(rows)
        given = self.given or Range(1.0, 0)
        return torch.ops.onednn.qlinear_pointwise(
            rows.contiguous(),
            self.taken.scale,
            self.taken.zero,
            self.weight,
            self.scales,
            self.zeros,
            self.bias,
            given.scale,
            given.zero,
            torch.uint8 if self.given else torch.float32,
            "gelu" if self.gelu else "none",
            [],
            "none" if self.gelu else "",
        )


class Observer(FloatPacking):
    """Float32 layers that remember what their inputs are like."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.seen: dict[str, list[Tensor]] = {}

    def linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, feeds: str | None = None
    ) -> Linear:
        """See `Packing`."""
        inner = super().linear(name, weight, bias, gelu=gelu, feeds=feeds)
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
