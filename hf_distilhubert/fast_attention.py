"""Attention of a student on a CPU, over the frames of one clip."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHORT = 200  # frames, up to which torch's own attention is as fast
QUERIES = 512  # at once, so that their scores stay in the cache


def attend(query: Tensor, key: Tensor, value: Tensor, *, frames: int) -> Tensor:
    """Scaled dot-product attention, in float32.

    torch computes it in small products by MKL, which is slow on AMD's processors; where there are many
    frames, oneDNN makes good for taking head by head.

    Args:
        query: `(head, row, size)`, as are the others.
        key: rows behind the frames are not attended to.
        value: what is mixed.
        frames: how many of the rows are frames.

    Returns:
        `(row, head * size)`.
    """
    heads, rows, size = query.shape
    if frames <= SHORT or not torch.backends.mkldnn.is_available():
        mixed = F.scaled_dot_product_attention(query[None], key[None, :, :frames], value[None, :, :frames])[0]
        return mixed.transpose(0, 1).reshape(rows, -1)
    query, key = query * size**-0.5, key.contiguous()
    value = value.transpose(1, 2).contiguous()
    hidden_rows = query.new_zeros(rows)
    hidden_rows[frames:] = -torch.inf
    out = query.new_empty(rows, heads, size)
    for head in range(heads):
        for start in range(0, rows, QUERIES):
            scores = _product(query[head, start : start + QUERIES], key[head], hidden_rows)
            out[start : start + QUERIES, head] = _product(scores.softmax(-1), value[head])
    return out.flatten(1)


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`rows @ weight.T + bias`, by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
