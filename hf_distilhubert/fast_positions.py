"""The positional convolution of a student by Fourier transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCKS = 16  # at once, so that no clip has large spectra


class FastPositions:
    """`HubertPositionalConvEmbedding` for one clip: 128 wide in the paper's student, in 16 groups.

    The convolution theorem: block by block (overlap-save), the transform of the output is the product of the
    transforms of input and filter, channel by channel of a group and frequency by frequency. That takes 16
    times fewer multiplications than the sum over 128 neighbours. Weight normalisation is worked out once.

    A transform spreads the rounding of loud frames over all of a block, also over those near silence, which
    the norm behind it makes as loud as the others. Hence float64 where float32 is to be kept.

    Args:
        embedding: `HubertModel.encoder.pos_conv_embed` without batch norm, with GELU.
        dtype: what the transforms compute in: float64, or float32, which is quicker.
    """

    def __init__(self, embedding: Any, dtype: torch.dtype = torch.float64) -> None:
        conv = embedding.conv
        self.kernel, self.groups = conv.kernel_size[0], conv.groups
        self.bias = conv.bias.detach().float()[:, None]
        self.size = 2 * self.kernel
        self.step = self.size - self.kernel + 1  # outputs of a block that no edge reaches
        self.dtype = dtype
        filters = conv.weight.detach().to(dtype)
        filters = filters.view(self.groups, -1, filters.shape[1], self.kernel)  # group, out, in, place
        # What torch calls a convolution is a correlation, hence the conjugate.
        spectrum = torch.fft.rfft(filters, n=self.size).conj()
        self.spectrum = spectrum.permute(0, 3, 2, 1).resolve_conj().contiguous()  # group, frequency, in, out

    def __call__(self, hidden: Tensor) -> Tensor:
        """From `(frame, hidden)` to `(frame, hidden)`, float32."""
        frames = len(hidden)
        blocks = -(-frames // self.step)
        left = self.kernel // 2
        padded = F.pad(hidden.T, (left, blocks * self.step + self.kernel - 1 - left - frames))
        out = padded.new_empty(padded.shape[0], blocks * self.step)
        for start in range(0, blocks, BLOCKS):
            end = min(start + BLOCKS, blocks)
            piece = padded[:, start * self.step : (end - 1) * self.step + self.size]
            out[:, start * self.step : end * self.step] = self._blocks(piece.unfold(-1, self.size, self.step))
        return F.gelu(out[:, :frames].add_(self.bias)).T

    def _blocks(self, blocks: Tensor) -> Tensor:
        """From `(channel, block, size)` to `(channel, block * step)`."""
        channels, number, _ = blocks.shape
        spectrum = torch.fft.rfft(blocks.to(self.dtype)).view(
            self.groups, channels // self.groups, number, -1
        )
        product = spectrum.permute(0, 3, 2, 1) @ self.spectrum  # group, frequency, block, out
        out = torch.fft.irfft(product.permute(0, 3, 2, 1), n=self.size)[..., : self.step]
        return out.reshape(channels, number * self.step)
