"""The table of names: S3PRL's distiller <-> `HubertForLayerDistillation`, one table for both directions.

Pure: nothing is read, written or run here. S3PRL's names and shapes are those of `model.py` and `module.py`
in `s3prl/upstream/distiller` (v0.4.18); ours are a `HubertModel` under `hubert.` and `prediction_heads.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_distilhubert.errors import UserError

FRONT_END = ("feature_extractor.conv_layers", "hubert.feature_extractor.conv_layers")
POSITIONAL = ("encoder.pos_conv.0", "hubert.encoder.pos_conv_embed.conv")
PROJECTION = ("post_extract_proj", "hubert.feature_projection.projection")
# Transformers creates this vector where SpecAugment is on; S3PRL has none and it does not touch inference.
MASK_VECTOR = "hubert.masked_spec_embed"


@dataclass(frozen=True)
class Heads:
    """Prediction heads: the teacher's layers they predict, and their sizes."""

    target_layers: tuple[int, ...]
    inner_size: int
    output_size: int


@dataclass(frozen=True)
class Row:
    """One tensor: name and shape on both sides; `transposed` where the last two axes change places too."""

    s3prl: str
    hugging_face: str
    s3prl_shape: tuple[int, ...]
    hugging_face_shape: tuple[int, ...]
    transposed: bool = False

    @property
    def flipped(self) -> Row:
        """The same row read from right to left."""
        return Row(self.hugging_face, self.s3prl, self.hugging_face_shape, self.s3prl_shape, self.transposed)


def table(config: Any, heads: Heads | None) -> Iterator[Row]:
    """Every tensor of a student, one after the other: a config from a stranger may speak of any number.

    Args:
        config: the student's `HubertConfig`.
        heads: its prediction heads, `None` for a student without them.
    """
    yield from _front_end(config)
    yield from _encoder(config)
    if has_projection(config):
        yield from _affine(*PROJECTION, config.hidden_size, config.conv_dim[-1])
    if heads is not None:
        yield from _heads(config.hidden_size, heads)


def has_projection(config: Any) -> bool:
    """S3PRL's rule: a projection stands between front end and encoder exactly where their sizes differ."""
    return bool(config.conv_dim[-1] != config.hidden_size)


def to_hugging_face(weights: Mapping[str, Tensor], config: Any, heads: Heads | None) -> dict[str, Tensor]:
    """S3PRL's tensors under the names of `HubertForLayerDistillation`.

    Where S3PRL has no projection, Transformers' is the identity.

    Raises:
        UserError: a tensor is unknown, missing, misshapen or not finite.
    """
    moved = _move(weights, table(config, heads))
    if not has_projection(config):
        moved |= _identity(config.hidden_size)
    return moved


def to_s3prl(weights: Mapping[str, Tensor], config: Any, heads: Heads | None) -> dict[str, Tensor]:
    """The tensors of `HubertForLayerDistillation` under S3PRL's names.

    Raises:
        UserError: a tensor is unknown, missing, misshapen or not finite, or a projection has no place.
    """
    kept = {name: tensor for name, tensor in weights.items() if name != MASK_VECTOR}
    if not has_projection(config):
        for name, expected in _identity(config.hidden_size).items():
            if not torch.equal(kept.pop(name, expected), expected):
                raise UserError(
                    f"tensor {name!r} is not the identity, and S3PRL's format cannot hold a projection where "
                    f"front end and encoder are both {config.hidden_size} wide; choose another hidden size"
                )
    return _move(kept, (row.flipped for row in table(config, heads)))


def _identity(size: int) -> dict[str, Tensor]:
    return {f"{PROJECTION[1]}.weight": torch.eye(size), f"{PROJECTION[1]}.bias": torch.zeros(size)}


def _move(weights: Mapping[str, Tensor], rows: Iterator[Row]) -> dict[str, Tensor]:
    """Rename and reshape along `rows`, read from left to right; every tensor must have exactly one row."""
    left, moved = dict(weights), {}
    for row in rows:
        name, shape = row.s3prl, row.s3prl_shape
        if name not in left:
            raise UserError(f"tensor {name!r} is missing; expected one of shape {shape}")
        tensor = left.pop(name)
        if tuple(tensor.shape) != shape:
            raise UserError(f"tensor {name!r} has shape {tuple(tensor.shape)}; expected {shape}")
        if not torch.isfinite(tensor).all():
            raise UserError(f"tensor {name!r} holds values that are not finite; expected finite numbers only")
        moved[row.hugging_face] = _reshape(tensor, row)
    if left:
        raise UserError(
            f"unknown tensor {next(iter(left))!r}; the config asks for {len(moved)} tensors, such as "
            f"{next(iter(weights))!r}: give a checkpoint whose config and weights belong together"
        )
    return moved


def _reshape(tensor: Tensor, row: Row) -> Tensor:
    turned = tensor.mT if row.transposed else tensor
    return turned.reshape(row.hugging_face_shape).contiguous()


def _affine(s3prl: str, hugging_face: str, size: int, *inputs: int) -> Iterator[Row]:
    """Weight `(size, *inputs)` and bias `(size,)` of a linear map or a normalisation."""
    for part, shape in (("weight", (size, *inputs)), ("bias", (size,))):
        yield Row(f"{s3prl}.{part}", f"{hugging_face}.{part}", shape, shape)


def _front_end(config: Any) -> Iterator[Row]:
    inputs = 1
    for i, (size, kernel) in enumerate(zip(config.conv_dim, config.conv_kernel, strict=True)):
        theirs, ours = (f"{side}.{i}" for side in FRONT_END)
        shape = (size, inputs, kernel)
        yield Row(f"{theirs}.0.weight", f"{ours}.conv.weight", shape, shape)
        if config.feat_extract_norm == "layer":
            yield from _affine(f"{theirs}.2.1", f"{ours}.layer_norm", size)
        elif i == 0:
            yield from _affine(f"{theirs}.2", f"{ours}.layer_norm", size)
        inputs = size


def _encoder(config: Any) -> Iterator[Row]:
    hidden, wide, kernel = config.hidden_size, config.intermediate_size, config.num_conv_pos_embeddings
    # Weight norm over the kernel axis (dim 2): one gain per tap, old names there, parametrisations here.
    gain, direction = (1, 1, kernel), (hidden, hidden // config.num_conv_pos_embedding_groups, kernel)
    theirs, ours = POSITIONAL
    yield Row(f"{theirs}.bias", f"{ours}.bias", (hidden,), (hidden,))
    yield Row(f"{theirs}.weight_g", f"{ours}.parametrizations.weight.original0", gain, gain)
    yield Row(f"{theirs}.weight_v", f"{ours}.parametrizations.weight.original1", direction, direction)
    for i in range(config.num_hidden_layers):
        yield from _layer(f"encoder.layers.{i}", f"hubert.encoder.layers.{i}", hidden, wide)
    yield from _affine("encoder.layer_norm", "hubert.encoder.layer_norm", hidden)


def _layer(theirs: str, ours: str, hidden: int, wide: int) -> Iterator[Row]:
    for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
        yield from _affine(f"{theirs}.self_attn.{part}", f"{ours}.attention.{part}", hidden, hidden)
    yield from _affine(f"{theirs}.self_attn_layer_norm", f"{ours}.layer_norm", hidden)
    yield from _affine(f"{theirs}.fc1", f"{ours}.feed_forward.intermediate_dense", wide, hidden)
    yield from _affine(f"{theirs}.fc2", f"{ours}.feed_forward.output_dense", hidden, wide)
    yield from _affine(f"{theirs}.final_layer_norm", f"{ours}.final_layer_norm", hidden)


def _heads(hidden: int, heads: Heads) -> Iterator[Row]:
    number, inner, size = len(heads.target_layers), heads.inner_size, heads.output_size
    yield from _affine("output_layer.0", "prediction_heads.inner", number * inner, hidden)
    weight, bias = "prediction_heads.output_weight", "prediction_heads.output_bias"
    if number == 1:
        # S3PRL's SplitLinear of one split is a plain Linear, whose weight is (out, in).
        yield Row("output_layer.2.layer.weight", weight, (size, inner), (1, inner, size), transposed=True)
        yield Row("output_layer.2.layer.bias", bias, (size,), (1, size))
    else:
        yield Row("output_layer.2.weight", weight, (number, inner, size), (number, inner, size))
        yield Row("output_layer.2.bias", bias, (1, 1, number, size), (number, size))
