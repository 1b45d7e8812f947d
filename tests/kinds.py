"""Tiny random models of every kind that can teach, and clips that are padded to one length."""

from __future__ import annotations

from typing import Any

import torch
from conftest import LARGE, TINY
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

KINDS = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
    "unispeech": (UniSpeechConfig, UniSpeechModel),
    "unispeech-sat": (UniSpeechSatConfig, UniSpeechSatModel),
    "data2vec-audio": (Data2VecAudioConfig, Data2VecAudioModel),
}
SHAPES = {"base": {}, "large": LARGE, "batch-norm": {"conv_pos_batch_norm": True}}

# The two arrangements that the published models have; data2vec-audio has one for both sizes.
BASE = [(kind, "base") for kind in KINDS]
EVERY = [*BASE, *((kind, "large") for kind in KINDS if kind != "data2vec-audio")]


def tiny_config(kind: str, shape: str = "base", **changes: Any) -> Any:
    """A config of three narrow layers."""
    settings = TINY | {"num_hidden_layers": 3} | SHAPES[shape]
    if kind == "data2vec-audio":  # five small positional convolutions, as published
        settings |= {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 7}
    return KINDS[kind][0](**settings | changes)


def tiny_model(kind: str, shape: str = "base", **changes: Any) -> Any:
    """A random model in evaluation mode, with no bias and no norm left at the 0 or 1 that it starts with."""
    torch.manual_seed(0)
    model = KINDS[kind][1](tiny_config(kind, shape, **changes)).eval()
    tensors = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
    with torch.no_grad():
        for tensor in tensors:
            if tensor.dim() == 1:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def padded(lengths: list[int], total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with an offset, and its attention mask, `(batch, total)` both."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(total) < torch.tensor(lengths)[:, None]).long()
    return (0.1 * torch.randn(len(lengths), total, generator=generator) + 0.02) * mask, mask


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest absolute difference over largest absolute value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
