"""A teacher: any model of the HuBERT or wav2vec2 kind, with its own input normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_distilhubert.loading import load, load_model
from hf_distilhubert.students import check_teacher


class Teacher(nn.Module):
    """Hidden states of some layers of a speech model that is never trained.

    Args:
        model: `HubertModel`, `Wav2Vec2Model` or one with the same call.
        layers: numbers of the layers wanted; 1 is the output of the first Transformer layer.
        do_normalize: whether the model expects waveforms of zero mean and unit variance.
    """

    def __init__(self, model: Any, layers: Sequence[int], *, do_normalize: bool) -> None:
        super().__init__()
        self.model, self.layers, self.do_normalize = model, list(layers), do_normalize
        self.config = model.config
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode: S3PRL's teacher ran with its dropout on, which only blurs the targets."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """The wanted layers `(batch, layer, frame, hidden)` of `(batch, time)` waveforms."""
        if self.do_normalize:
            input_values = normalise_batch(input_values, attention_mask)
        output = self.model(input_values, attention_mask=attention_mask, output_hidden_states=True)
        last = self.config.num_hidden_layers
        # A stable-layer-norm model normalises its last layer only in last_hidden_state.
        states = [
            output.last_hidden_state if layer == last else output.hidden_states[layer]
            for layer in self.layers
        ]
        return torch.stack(states, dim=1)


def normalise_batch(input_values: Tensor, attention_mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the samples of each clip; `(batch, time)`, padding stays 0."""
    mask = attention_mask.to(input_values.dtype)
    count = mask.sum(dim=1, keepdim=True)
    centred = (input_values - (input_values * mask).sum(dim=1, keepdim=True) / count) * mask
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)


def load_teacher(source: str | Path, layers: Sequence[int], num_hidden_layers: int) -> Teacher:
    """Load a teacher from a folder or the Hub.

    Args:
        source: folder or repository; a CTC model's encoder is taken.
        layers: numbers of the layers wanted.
        num_hidden_layers: how many of its layers the student will start with.

    Raises:
        UserError: no such model, or it lacks what is asked for.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    check_teacher(load(AutoConfig, source), layers, num_hidden_layers)
    extractor = load(AutoFeatureExtractor, source)
    return Teacher(load_model(AutoModel, source), layers, do_normalize=bool(extractor.do_normalize))
