"""Projection and Transformer of a student on a CPU, for one clip at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_distilhubert.fast_attention import attend
from hf_distilhubert.fast_positions import FastPositions
from hf_distilhubert.packed import Linear, Norm, Packing, with_whole_rows

PROJECTION = "projection"


class FastTransformer:
    """`feature_projection` and `encoder` of a `HubertModel`, norms behind or before the parts of a layer.

    Args:
        model: the model.
        packing: the numbers of the linear layers; norms, residual sums, positions and attention are float32.
    """

    def __init__(self, model: Any, packing: Packing) -> None:
        projection = model.feature_projection
        self.feature_norm = Norm(projection.layer_norm) if model.config.feat_proj_layer_norm else None
        self.projection = linear(packing, PROJECTION, projection.projection)
        self.positions = FastPositions(model.encoder.pos_conv_embed, packing.transforms)
        self.norm, self.norms_first = Norm(model.encoder.layer_norm), model.config.do_stable_layer_norm
        self.layers = [
            FastLayer(layer, packing, f"layer {number}", norms_first=self.norms_first)
            for number, layer in enumerate(model.encoder.layers, start=1)
        ]

    def __call__(self, features: Tensor) -> list[Tensor]:
        """All hidden states and the last one as the model gives it (normalised here in large models).

        Args:
            features: `(frame, channel)`.

        Returns:
            `layers + 2` tensors `(frame, hidden)`.
        """
        frames = len(features)
        features = with_whole_rows(features)
        if self.feature_norm:
            features = self.feature_norm(features)
        projected = self.projection(features)
        placed = projected + with_whole_rows(self.positions(projected[:frames]))
        states = [placed if self.norms_first else self.norm(placed)]
        for layer in self.layers:
            states.append(layer(states[-1], frames))
        states.append(self.norm(states[-1]) if self.norms_first else states[-1])
        return [state[:frames] for state in states]


class FastLayer:
    """A `HubertEncoderLayer` or `HubertEncoderLayerStableLayerNorm`, which has its norms before the parts.

    The three projections of attention are one product, and GELU is in another.
    """

    def __init__(self, layer: Any, packing: Packing, name: str, *, norms_first: bool) -> None:
        attention, feed_forward = layer.attention, layer.feed_forward
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.heads, self.norms_first = attention.num_heads, norms_first
        self.query_key_value = packing.linear(
            f"{name} attention",
            torch.cat([part.weight for part in parts]),
            torch.cat([part.bias for part in parts]),
        )
        self.out = linear(packing, f"{name} attention out", attention.out_proj)
        self.attention_norm, self.norm = Norm(layer.layer_norm), Norm(layer.final_layer_norm)
        inner, outer = f"{name} feed forward", f"{name} feed forward out"
        self.intermediate = linear(packing, inner, feed_forward.intermediate_dense, gelu=True, feeds=outer)
        self.output = linear(packing, outer, feed_forward.output_dense)

    def __call__(self, hidden: Tensor, frames: int) -> Tensor:
        """From `(row, hidden)` to `(row, hidden)`, of which so many are frames."""
        if self.norms_first:
            hidden = hidden + self._attention(self.attention_norm(hidden), frames)
            return hidden + self.output(self.intermediate(self.norm(hidden)))
        hidden = self.attention_norm(hidden + self._attention(hidden, frames))
        return self.norm(hidden + self.output(self.intermediate(hidden)))

    def _attention(self, hidden: Tensor, frames: int) -> Tensor:
        rows = len(hidden)
        parts = self.query_key_value(hidden).view(rows, 3, self.heads, -1).permute(1, 2, 0, 3)
        return self.out(attend(*parts, frames=frames))


def linear(
    packing: Packing, name: str, layer: nn.Linear, *, gelu: bool = False, feeds: str | None = None
) -> Linear:
    """The same layer, packed."""
    return packing.linear(name, layer.weight, layer.bias, gelu=gelu, feeds=feeds)
