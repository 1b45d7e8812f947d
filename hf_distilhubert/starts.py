"""What a student starts with: its teacher's weights, cut to the channels of largest norm where need be.

A channel is chosen once, and then kept or left out by all that writes or reads it. A choice is a tensor of
indices in ascending order; one of all channels changes nothing, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertModel

Weights = dict[str, Tensor]
# What the first two axes of a module's tensors are, by the module's name.
Axes = Mapping[str, tuple[Tensor, ...]]

CONVOLUTION_SCALE = "conv.parametrizations.weight.original0"
CONVOLUTION_DIRECTION = "conv.parametrizations.weight.original1"


@dataclass(frozen=True)
class Start:
    """How one part of a student starts.

    Attributes:
        part: its name in `HubertModel`.
        how: what happened, as words that follow the name.
        whole: it is all that the teacher has at this place.
    """

    part: str
    how: str
    whole: bool

    def __str__(self) -> str:
        return f"{self.part} {self.how}"


def copy_parts(student: HubertModel, teacher: Any, start_layers: Sequence[int]) -> list[Start]:
    """Start a student with the parts of its teacher that S3PRL takes over, cut to the student's sizes.

    These are the front end, the projection, the positional convolution and some layers
    (`pretrain/distiller/pretrain_expert.py`). A part comes over as one or not at all: a size that the teacher
    has less of, or a tensor that it lacks, leaves the part as it was drawn.

    Args:
        student: the model to change.
        teacher: a `HubertModel` or one with the same names for the same parts.
        start_layers: numbers of the teacher's layers, one for each of the student's.

    Returns:
        For each part, whether it was copied, cut or starts afresh, and what is left out, such as WavLM's
        relative positions.
    """
    config = student.config
    front_end = teacher.feature_extractor.state_dict()
    channels = choose_channels(front_end, config.conv_dim)
    projection = teacher.feature_projection.projection.state_dict()
    groups = config.num_conv_pos_embedding_groups
    hidden = choose_hidden(projection["weight"], channels[-1], config.hidden_size, groups)
    positions = teacher.encoder.pos_conv_embed.state_dict()
    starts = [
        _start(student, "feature_extractor", front_end, cut_front_end(front_end, channels)),
        _start(
            student,
            "feature_projection.projection",
            projection,
            _cut(projection, {"": (hidden, channels[-1])}),
        ),
        _start(student, "encoder.pos_conv_embed", positions, cut_positions(positions, hidden, groups)),
    ]
    for index, number in enumerate(start_layers):
        layer = teacher.encoder.layers[number - 1].state_dict()
        kept = cut_layer(layer, hidden, teacher.config.num_attention_heads, config)
        source = "" if number == index + 1 else f"from layer {number} "
        starts.append(_start(student, f"encoder.layers.{index}", layer, kept, source))
    return starts


def largest(norms: Tensor, count: int, blocks: int = 1) -> Tensor:
    """Indices of the `count` largest of `(channel,)`, ascending, as many from each of so many equal blocks.

    Of equal ones the first are taken; where there are fewer than `count`, all.
    """
    table = norms.reshape(blocks, -1)
    best = table.argsort(dim=1, descending=True, stable=True)[:, : count // blocks].sort(dim=1).values
    return (best + table.shape[1] * torch.arange(blocks, device=norms.device)[:, None]).flatten()


def choose_channels(front_end: Weights, conv_dim: Sequence[int]) -> list[Tensor]:
    """The channels of each convolution: of largest kernel, as seen from the channels chosen below it.

    Where a norm follows, its weight scales the channel and counts as well.
    """
    chosen: list[Tensor] = []
    for index, size in enumerate(conv_dim):
        kernels = front_end[f"conv_layers.{index}.conv.weight"].float()
        if chosen:
            kernels = kernels.index_select(1, chosen[-1])
        norms = kernels.flatten(1).norm(dim=1)
        scale = front_end.get(f"conv_layers.{index}.layer_norm.weight")
        chosen.append(largest(norms if scale is None else norms * scale.float().abs(), size))
    return chosen


def choose_hidden(projection: Tensor, channels: Tensor, size: int, groups: int) -> Tensor:
    """The units of the residual stream, one choice for the whole encoder: of largest row in the projection.

    As many from each group of the positional convolution, which keeps its groups.

    Args:
        projection: `(hidden, channel)`.
        channels: the chosen channels of the last convolution.
        size: number of units.
        groups: groups of the positional convolution.
    """
    return largest(_rows(projection, channels), size, groups)


def cut_front_end(front_end: Weights, channels: Sequence[Tensor]) -> Weights:
    """The convolutions, each with the chosen channels below it, and the norms behind them."""
    axes: dict[str, tuple[Tensor, ...]] = {}
    below = channels[0].new_zeros(1)  # the one channel of the waveform
    for index, chosen in enumerate(channels):
        axes[f"conv_layers.{index}.conv"] = chosen, below
        axes[f"conv_layers.{index}.layer_norm"] = (chosen,)
        below = chosen
    return _cut(front_end, axes)


def cut_positions(positions: Weights, hidden: Tensor, groups: int) -> Weights:
    """The grouped positional convolution, `(hidden, hidden / groups, kernel)`, under its weight norm.

    Kernels stay what they are: the scale takes up what the direction's norm loses. One without a weight norm
    of this kind comes back as it is, to be found unlike the student's.
    """
    if CONVOLUTION_DIRECTION not in positions:
        return positions
    scale, direction = positions[CONVOLUTION_SCALE], positions[CONVOLUTION_DIRECTION]
    width = direction.shape[1]
    parts = zip(direction.split(width), hidden.reshape(groups, -1) % width, strict=True)
    kept = torch.cat([part.index_select(0, chosen).index_select(1, chosen) for part, chosen in parts])
    lost = kept.norm(dim=(0, 1), keepdim=True) / direction.norm(dim=(0, 1), keepdim=True)
    bias = positions["conv.bias"].index_select(0, hidden)
    return {CONVOLUTION_SCALE: scale * lost, CONVOLUTION_DIRECTION: kept, "conv.bias": bias}


def cut_layer(layer: Weights, hidden: Tensor, teacher_heads: int, config: Any) -> Weights:
    """A Transformer layer with the chosen hidden units, heads and feed-forward units.

    A unit weighs what is written to it times what is read from it: one whose input or output is 0 goes first.

    Args:
        layer: the teacher's.
        hidden: chosen units of the residual stream.
        teacher_heads: its number of attention heads.
        config: the student's.
    """
    heads = config.num_attention_heads
    queries, values = choose_attention(layer, hidden, teacher_heads, heads, config.hidden_size // heads)
    inner = largest(
        _units(layer, "feed_forward.intermediate_dense", "feed_forward.output_dense", hidden),
        config.intermediate_size,
    )
    axes = {
        "attention.q_proj": (queries, hidden),
        "attention.k_proj": (queries, hidden),
        "attention.v_proj": (values, hidden),
        "attention.out_proj": (hidden, values),
        "layer_norm": (hidden,),
        "feed_forward.intermediate_dense": (inner, hidden),
        "feed_forward.output_dense": (hidden, inner),
        "final_layer_norm": (hidden,),
    }
    kept = _cut(layer, axes)
    # Scores are divided by the root of a head's size; smaller heads must not make them larger.
    shrink = (config.hidden_size // heads * teacher_heads / len(layer["attention.q_proj.bias"])) ** 0.5
    for name in ("attention.q_proj.weight", "attention.q_proj.bias"):
        kept[name] = kept[name] * shrink
    return kept


def choose_attention(
    layer: Weights, hidden: Tensor, teacher_heads: int, heads: int, head_size: int
) -> tuple[Tensor, Tensor]:
    """Heads of largest output; in each, the units of largest query and key, and of largest value and output.

    Returns:
        Rows of the queries and keys, and rows of the values, which are columns of the output.
    """
    rows = [_rows(layer[f"attention.{name}_proj.weight"], hidden) for name in ("q", "k")]
    queries = (rows[0] * rows[1]).reshape(teacher_heads, -1)
    values = _units(layer, "attention.v_proj", "attention.out_proj", hidden).reshape(teacher_heads, -1)
    kept = largest(values.sum(dim=1), heads)
    units = torch.arange(values.numel(), device=kept.device).reshape_as(values)[kept].flatten()
    count = len(kept) * head_size
    return (
        units[largest(queries[kept].flatten(), count, len(kept))],
        units[largest(values[kept].flatten(), count, len(kept))],
    )


def _units(layer: Weights, writer: str, reader: str, hidden: Tensor) -> Tensor:
    """Of each unit between two linear maps: norm of its row in the first times its column in the second."""
    return _rows(layer[f"{writer}.weight"], hidden) * _rows(layer[f"{reader}.weight"].T, hidden)


def _rows(weight: Tensor, columns: Tensor) -> Tensor:
    """Norm of each row over some of its columns."""
    return weight.float().index_select(1, columns).norm(dim=1)


def _cut(weights: Weights, axes: Axes) -> Weights:
    """Keep what is chosen of each module's tensors, axis by axis; what has no axes stays as it is."""
    kept = {}
    for name, tensor in weights.items():
        for axis, chosen in enumerate(axes.get(name.rpartition(".")[0], ())[: tensor.dim()]):
            tensor = tensor.index_select(axis, chosen)
        kept[name] = tensor
    return kept


def _start(student: nn.Module, part: str, taught: Weights, kept: Weights, source: str = "") -> Start:
    """Load all tensors of a part from what is kept of the teacher's, or none; what is to be said about it."""
    own = student.get_submodule(part)
    wanted = own.state_dict()
    unlike = [name for name in wanted if name not in kept or wanted[name].shape != kept[name].shape]
    if unlike:
        return Start(part, f"starts afresh: the teacher has no {unlike[0]} of that shape", whole=False)
    own.load_state_dict({name: kept[name] for name in wanted})
    here, there = (sum(weights[name].numel() for name in wanted) for weights in (kept, taught))
    cut = f"is cut {source}by norm, {here:,} of {there:,} weights"
    how = cut if here < there else f"is copied {source}whole"
    left_out = sorted(taught.keys() - wanted.keys())
    if left_out:
        how += f", and leaves out the teacher's {', '.join(left_out)}"
    return Start(part, how, whole=here == there and not left_out)
