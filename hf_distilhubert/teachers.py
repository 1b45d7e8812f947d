"""A teacher: any model of the HuBERT or wav2vec2 kind, with its own input normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_distilhubert import group_norm
from hf_distilhubert.audio import SAMPLING_RATE
from hf_distilhubert.errors import UserError
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.shapes import StudentShape
from hf_distilhubert.students import check_teacher


class Teacher(nn.Module):
    """Hidden states of some layers of a speech model that is never trained.

    It runs no layer above the highest that is wanted, and keeps no hidden state that is not.

    Args:
        model: `HubertModel`, `Wav2Vec2Model` or one with the same call; it is taken over.
        layers: numbers of the layers wanted; 1 is the output of the first Transformer layer. The last one of
            a model with `do_stable_layer_norm` is its normalised output, `last_hidden_state`.
        do_normalize: whether the model expects waveforms of zero mean and unit variance.
        mask_group_norm: make a clip's hidden states independent of the padding in its batch; S3PRL's are not.
        train_mode: run with the model's dropout on, as S3PRL's teacher does (though without LayerDrop).
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[int],
        *,
        do_normalize: bool,
        mask_group_norm: bool = True,
        train_mode: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.layers, self.do_normalize = model, list(layers), do_normalize
        self.config, self.train_mode = model.config, train_mode
        if mask_group_norm:
            group_norm.mask_group_norm(model)
        if train_mode:
            # LayerDrop would leave layers out, SpecAugment would hide parts of the input.
            self.config.layerdrop, self.config.apply_spec_augment = 0.0, False
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in the mode that `train_mode` says, whatever the training loop around it does."""
        return super().train(self.train_mode)

    @torch.no_grad()
    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """The wanted layers `(batch, layer, frame, hidden)` of `(batch, time)` waveforms."""
        if self.do_normalize:
            input_values = normalise_batch(input_values, attention_mask)
        states: dict[int, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(_first_layers(self.model.encoder, max(self.layers)))
            for number in self.layers:
                layer = self.model.encoder.layers[number - 1]
                stack.enter_context(layer.register_forward_hook(partial(_keep, states, number)))
            last_hidden_state = self.model(input_values, attention_mask=attention_mask).last_hidden_state
        if self.config.num_hidden_layers in states:
            states[self.config.num_hidden_layers] = last_hidden_state
        return torch.stack([states[number] for number in self.layers], dim=1)


def _keep(states: dict[int, Tensor], number: int, _layer: nn.Module, _inputs: Any, output: Any) -> None:
    states[number] = output[0] if isinstance(output, tuple) else output


@contextmanager
def _first_layers(encoder: Any, count: int) -> Iterator[None]:
    """Leave an encoder only its first `count` layers for a while."""
    layers = encoder.layers
    encoder.layers = layers[:count]
    try:
        yield
    finally:
        encoder.layers = layers


def normalise_batch(input_values: Tensor, attention_mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the samples of each clip; `(batch, time)`, padding stays 0."""
    mask = attention_mask.to(input_values.dtype)
    count = mask.sum(dim=1, keepdim=True)
    centred = (input_values - (input_values * mask).sum(dim=1, keepdim=True) / count) * mask
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)


def load_teacher(
    source: str | Path,
    layers: Sequence[int],
    shape: StudentShape | int,
    *,
    mask_group_norm: bool = True,
    train_mode: bool = False,
) -> Teacher:
    """Load a teacher from a folder or the Hub.

    Args:
        source: folder or repository; a CTC model's encoder is taken.
        layers: numbers of the layers wanted.
        shape: of the student that is to learn from it, or the number of its layers.
        mask_group_norm: see `Teacher`.
        train_mode: see `Teacher`.

    Raises:
        UserError: no such model, or it lacks what is asked for; said before its weights are loaded.
    """
    from transformers import AutoConfig, AutoModel

    check_teacher(load(AutoConfig, source), layers, shape)
    do_normalize = expects_normalised_input(source)
    return Teacher(
        load_model(AutoModel, source),
        layers,
        do_normalize=do_normalize,
        mask_group_norm=mask_group_norm,
        train_mode=train_mode,
    )


def expects_normalised_input(source: str | Path) -> bool:
    """Whether a model was trained on waveforms of zero mean and unit variance: its feature extractor says so.

    Raises:
        UserError: it has none, or one that is not for waveforms of 16 kHz.
    """
    from transformers import AutoFeatureExtractor

    try:
        extractor = load(AutoFeatureExtractor, source)
    except UserError as error:
        raise UserError(
            f"{source} does not say whether its input is normalised; put the preprocessor_config.json of the "
            f"model that it came from beside its config.json ({error})"
        ) from error
    if not hasattr(extractor, "do_normalize"):
        raise UserError(f"{source} wants features of a {type(extractor).__name__}; a teacher gets waveforms")
    if extractor.sampling_rate != SAMPLING_RATE:
        raise UserError(
            f"{source} listens at {extractor.sampling_rate} Hz; give a teacher for {SAMPLING_RATE} Hz"
        )
    return bool(extractor.do_normalize)
