"""S3PRL's arithmetic in plain torch: the judge of a conversion where S3PRL itself is not at hand.

Follows `DistillerModel` (`s3prl/upstream/distiller/model.py`, `module.py`, v0.4.18) in evaluation mode, from
S3PRL's own tensors, names and settings. Neither Transformers nor `mapping.py` has a say in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from conversion.conv_layers import parse_conv_layers

Weights = Mapping[str, Tensor]
Settings = Mapping[str, Any]

# `DistillerConfig`, as far as it has a part in the result.
DEFAULTS: Settings = {
    "extractor_mode": "default",
    "extractor_conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_pos_groups": 16,
    "encoder_layers": 1,
    "encoder_embed_dim": 768,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "out_layer_type": "expand-last",
    "task_emb_type": "expand-last",
    "n_tasks": 12,
}
# `get_activation_fn` of `s3prl/upstream/wav2vec2/wav2vec2_model.py`.
APPROXIMATE = partial(F.gelu, approximate="tanh")
GELU = {"gelu": F.gelu, "gelu_accurate": APPROXIMATE, "gelu_fast": APPROXIMATE}
ACTIVATIONS: Settings = {**GELU, "relu": F.relu, "tanh": torch.tanh, "linear": lambda x: x}


@torch.no_grad()
def reference_parts(weights: Weights, distiller: Settings, waveforms: Sequence[Tensor]) -> dict[str, Tensor]:
    """What S3PRL computes from waveforms, part by part (`DistillerModel.forward`).

    Args:
        weights: float32 tensors under S3PRL's names.
        distiller: S3PRL's settings of the model; an absent one has S3PRL's default.
        waveforms: `(time,)` each, 16 kHz, at least 400 samples, not padded.

    Returns:
        `conv_features`, `projected_features` (0 in padded frames) and the layers `hidden_states.1`, `.2`, …,
        all `(batch, frame, feature)`; `predictions` `(batch, heads, frame, size)` where the model makes any;
        `frame_mask` `(batch, frame)`, true for speech.
    """
    # `DistillerConfig.__init__` casts every setting to the type of its default.
    settings = {key: type(default)(distiller.get(key, default)) for key, default in DEFAULTS.items()}
    convolutions = parse_conv_layers(settings["extractor_conv_feature_layers"])
    features = _front_end(weights, settings["extractor_mode"], convolutions, waveforms)
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    for _, kernel, stride in convolutions:  # `cal_pad_mask`
        lengths = (lengths - kernel) // stride + 1
    mask = torch.arange(features.shape[1]) < lengths[:, None]
    same_size = features.shape[2] == settings["encoder_embed_dim"]
    projected = features if same_size else _linear(weights, "post_extract_proj", features)
    projected = projected.masked_fill(~mask[:, :, None], 0)
    layers, last = _encoder(weights, settings, projected, mask)
    parts = {"conv_features": features, "projected_features": projected, "frame_mask": mask}
    parts |= {f"hidden_states.{number}": layer for number, layer in enumerate(layers, start=1)}
    if settings["task_emb_type"] == "self-hidden":
        parts["predictions"] = torch.stack([projected, *layers], dim=1)
    elif settings["out_layer_type"] == "expand-last":
        parts["predictions"] = _output_layer(weights, last, settings["n_tasks"])
    return parts


def _front_end(weights: Weights, mode: str, convolutions: Any, waveforms: Sequence[Tensor]) -> Tensor:
    """`ConvFeatureExtractionModel` over the padded batch; its GroupNorm hears the padding too."""
    x = pad_sequence(list(waveforms), batch_first=True)[:, None]
    for i, (size, _, stride) in enumerate(convolutions):
        name = f"feature_extractor.conv_layers.{i}"
        x = F.conv1d(x, weights[f"{name}.0.weight"], stride=stride)
        if mode == "layer_norm":
            x = _layer_norm(weights, f"{name}.2.1", x.mT).mT
        elif i == 0:
            x = F.group_norm(x, size, weights[f"{name}.2.weight"], weights[f"{name}.2.bias"])
        x = F.gelu(x)
    return x.mT


def _encoder(weights: Weights, settings: Settings, x: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
    """`TransformerEncoder`: the outputs of its layers, raw, and what the heads are given."""
    norm_first, layers = settings["layer_norm_first"], []
    x = x + _positions(weights, "encoder.pos_conv.0", x, settings["conv_pos_groups"])
    if not norm_first:
        x = _layer_norm(weights, "encoder.layer_norm", x)
    for i in range(settings["encoder_layers"]):
        x = _layer(weights, f"encoder.layers.{i}", settings, x, mask)
        layers.append(x)
    return layers, _layer_norm(weights, "encoder.layer_norm", x) if norm_first else x


def _positions(weights: Weights, name: str, x: Tensor, groups: int) -> Tensor:
    """`pos_conv`: weight norm with one gain per tap (`dim=2`), `SamePad` (frames in = frames out), GELU."""
    gain, direction = weights[f"{name}.weight_g"], weights[f"{name}.weight_v"]
    weight = direction * (gain / direction.norm(dim=(0, 1), keepdim=True))
    x_conv = F.conv1d(x.mT, weight, weights[f"{name}.bias"], padding=weight.shape[2] // 2, groups=groups)
    return F.gelu(x_conv[:, :, : x.shape[1]]).mT


def _layer(weights: Weights, name: str, settings: Settings, x: Tensor, mask: Tensor) -> Tensor:
    """`TransformerSentenceEncoderLayer`: two blocks, each with its residual and its LayerNorm."""
    attend = partial(_attention, weights, f"{name}.self_attn", settings["encoder_attention_heads"], mask)
    feed_forward = partial(_feed_forward, weights, name, settings["activation_fn"])
    for block, norm in ((attend, "self_attn_layer_norm"), (feed_forward, "final_layer_norm")):
        normalise = partial(_layer_norm, weights, f"{name}.{norm}")
        x = x + block(normalise(x)) if settings["layer_norm_first"] else normalise(x + block(x))
    return x


def _feed_forward(weights: Weights, name: str, activation: str, x: Tensor) -> Tensor:
    return _linear(weights, f"{name}.fc2", ACTIVATIONS[activation](_linear(weights, f"{name}.fc1", x)))


def _attention(weights: Weights, name: str, heads: int, mask: Tensor, x: Tensor) -> Tensor:
    """fairseq's `MultiheadAttention` of `x` to itself; padded frames are heard by none."""
    projected = (_linear(weights, f"{name}.{part}_proj", x) for part in "qkv")
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected)
    scores = (query @ key.mT) / math.sqrt(query.shape[-1])
    heard = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(dim=-1) @ value
    return _linear(weights, f"{name}.out_proj", heard.transpose(1, 2).flatten(2))


def _output_layer(weights: Weights, x: Tensor, heads: int) -> Tensor:
    """Linear, GELU, `SplitLinear` (a plain Linear for one head): `(batch, heads, frame, size)`."""
    inner = F.gelu(_linear(weights, "output_layer.0", x))
    if heads == 1:
        return _linear(weights, "output_layer.2.layer", inner)[:, None]
    split = inner.unflatten(-1, (heads, -1)).transpose(1, 2)
    return split @ weights["output_layer.2.weight"] + weights["output_layer.2.bias"].transpose(1, 2)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])
