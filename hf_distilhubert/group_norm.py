"""Padding never matters: a clip comes out the same alone and in any padded batch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_distilhubert.errors import UserError


def mask_group_norm(model: nn.Module) -> ExitStack:
    """Keep padding out of what a model computes for the frames of a clip.

    The first layer of a base model's front end (`feat_extract_norm="group"`) normalises every channel over
    time, padding and all, so stock Transformers gives a clip other hidden states in every batch. With this,
    mean and variance are those of the clip's own `floor((samples - kernel) / stride) + 1` frames, as if it
    were alone. data2vec-audio has no such layer; there, and in a HuBERT with `conv_pos_batch_norm`, padding
    gets in through the positional convolutions, which are masked likewise. Other models see no padding as
    they are.

    Works for HuBERT, wav2vec2, WavLM, UniSpeech, UniSpeech-SAT and data2vec-audio, also under a head,
    wherever they are called with an `attention_mask` of right-padded clips; without one they stay stock. An
    adapter behind the last layer (`add_adapter`) still sees padding. Class, config and weights of the model
    stay as they are: it is saved and loaded as before, and may be trained, with gradient checkpointing too,
    and wrapped for several devices afterwards.

        mask_group_norm(student)         # from now on
        with mask_group_norm(student):   # for a while
            student(input_values, attention_mask=attention_mask)

    Args:
        model: a Transformers model, or a module that holds some.

    Returns:
        What undoes it, by `close()` or at the end of a `with` block. A model that is masked already stays so.

    Raises:
        UserError: there is no such model in it.
    """
    encoders = [module for module in model.modules() if _has_front_end(module)]
    if not encoders:
        raise UserError(
            f"a {type(model).__name__} has no front end of convolutions over samples; "
            "give a model of the HuBERT or wav2vec2 kind"
        )
    undo = ExitStack()
    for encoder in encoders:
        if not any(hook is _mask_front_end for hook in encoder._forward_pre_hooks.values()):
            _install(encoder, undo)
    return undo


def _has_front_end(module: nn.Module) -> bool:
    return hasattr(module, "encoder") and hasattr(getattr(module, "feature_extractor", None), "conv_layers")


def _install(model: Any, undo: ExitStack) -> None:
    first = model.feature_extractor.conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        undo.callback(setattr, first, "__class__", first.__class__)
        first.__class__ = MaskedGroupNormConvLayer
    handles = [
        model.register_forward_pre_hook(_mask_front_end, with_kwargs=True),
        model.register_forward_hook(_unmask_front_end, always_call=True),
        model.encoder.register_forward_pre_hook(_mask_positions, with_kwargs=True),
        model.encoder.register_forward_hook(_unmask_positions, always_call=True),
        *(conv.register_forward_pre_hook(_zero_padding) for conv in _positional(model.encoder)),
    ]
    for handle in handles:
        undo.callback(handle.remove)


# The hooks take their module as an argument and are functions of this file: copies of a model, DataParallel's
# replicas among them, have masks of their own. A mask is gone after the call, lest a part that is called by
# itself finds the lengths of another batch.


def _attention_mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return kwargs.get("attention_mask", args[1] if len(args) > 1 else None)


def _mask_front_end(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    model.feature_extractor.conv_layers[0].attention_mask = _attention_mask(args, kwargs)


def _unmask_front_end(model: Any, _args: Any, _output: Any) -> None:
    model.feature_extractor.conv_layers[0].attention_mask = None


def _mask_positions(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for convolution in _positional(encoder):
        convolution.frame_mask = _attention_mask(args, kwargs)


def _unmask_positions(encoder: Any, _args: Any, _output: Any) -> None:
    for convolution in _positional(encoder):
        convolution.frame_mask = None


def _positional(encoder: Any) -> list[Any]:
    return [module for module in encoder.pos_conv_embed.modules() if isinstance(module, nn.Conv1d)]


def _zero_padding(convolution: Any, args: tuple[Tensor]) -> tuple[Tensor] | None:
    """Transformers zeroes padded frames once; a normalisation before the convolution fills them again."""
    mask = getattr(convolution, "frame_mask", None)
    return None if mask is None else (args[0] * mask[:, None],)


class MaskedGroupNormConvLayer(GradientCheckpointingLayer):
    """A front end's first layer (convolution, group norm, activation) with the statistics of valid frames.

    An instance is a stock layer whose class was exchanged: its parts, weights and hooks are the stock
    layer's.
    """

    conv: nn.Conv1d
    layer_norm: nn.GroupNorm
    activation: nn.Module
    attention_mask: Tensor | None = None

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """Hand the mask on as an argument: gradient checkpointing keeps those for its second pass."""
        return super().__call__(hidden_states, attention_mask=self.attention_mask)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """From `(batch, 1, time)` samples to `(batch, channel, frame)`."""
        convolved = self.conv(hidden_states)
        if attention_mask is None:
            return self.activation(self.layer_norm(convolved))
        # What a half-precision convolution gets to see is rounded.
        samples, weight = hidden_states[:, 0].to(convolved.dtype), self.conv.weight.to(convolved.dtype)
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        frames = (attention_mask.sum(-1, dtype=torch.long) - kernel).div(stride, rounding_mode="floor") + 1
        mean, variance = convolution_statistics(samples, weight[:, 0], stride, frames)
        if self.conv.bias is not None:
            mean = mean + self.conv.bias
        scale = torch.rsqrt(variance + self.layer_norm.eps) * self.layer_norm.weight
        return self.activation(_scale_channels(convolved, scale, self.layer_norm.bias - mean * scale))


def convolution_statistics(
    samples: Tensor, weight: Tensor, stride: int, num_frames: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of every channel that a convolution makes of a waveform.

    They follow from mean m and covariance C of the few samples under the kernel: w.m and w'Cw for a channel
    with weights w. So nothing of the size of the convolution's output is read, or kept for the backward pass.

    Args:
        samples: `(batch, time)`.
        weight: `(channel, kernel)`.
        stride: of the convolution.
        num_frames: `(batch,)`, how many frames of each clip count, from the first.

    Returns:
        Two tensors `(batch, channel)`, computed in float64 (in exported graphs float32), in float32 at least.
    """
    # float64 keeps the digits of a filter's small response to a loud signal. MPS has none, nor has the WebGPU
    # build of ONNX Runtime, which browsers run exported graphs with.
    number = torch.float32 if torch.compiler.is_exporting() else torch.float64
    place = torch.device("cpu") if samples.device.type == "mps" else samples.device
    wide, filters = samples.to(place, number), weight.to(place, number)
    windows = wide.unfold(-1, weight.shape[-1], stride)  # (batch, frame, kernel)
    lengths = num_frames.to(place)[:, None, None]
    valid = torch.arange(windows.shape[1], device=place)[:, None] < lengths
    count = lengths.clamp(min=1)
    mean = (windows * valid).sum(1, keepdim=True) / count
    centred = (windows - mean) * valid
    covariance = centred.mT @ centred / count
    variance = ((filters @ covariance) * filters).sum(-1)
    dtype = torch.promote_types(samples.dtype, torch.float32)
    # In this order the filters are no weight of a linear layer, which 8-bit exports would round.
    means = (filters @ mean.mT)[..., 0]
    return means.to(dtype).to(samples.device), variance.to(dtype).to(samples.device)


def _scale_channels(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`values * scale + shift` of `(batch, channel, time)` and twice `(batch, channel)`, typed as `values`.

    A batch norm in evaluation does this, and its kernels have the gradients' sums over time in them.
    """
    channels, zeros = values.reshape(1, -1, values.shape[-1]), torch.zeros_like(scale).flatten()
    scaled = F.batch_norm(channels, zeros, zeros + 1, scale.flatten(), shift.flatten(), eps=0.0)
    return scaled.view_as(values)
