"""What S3PRL's upstream returns, from a Transformers model: its words, its list, its shapes.

The two use the same words for other things (S3PRL: `s3prl/upstream/distiller/expert.py`, v0.4.18):

| word | S3PRL | Transformers |
|---|---|---|
| `hidden_states[0]` | projected features, before the positional convolution | input of layer 1, after it |
| `hidden_states[1]` to `[n]` | outputs of the n layers | the same |
| what follows | the heads' predictions, one each | not there |
| `last_hidden_state` | the last head's prediction | output of the last layer (pre-norm: normalised) |
| `paper` | output of the last layer (pre-norm: not normalised) | no such word |

In both, the GroupNorm of the usual front end hears padding: a clip's features in a padded batch differ from
those of the clip alone. A front end with LayerNorm (`feat_extract_norm="layer"`) has no such trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from hf_distilhubert.audio import MIN_SAMPLES, Waveform, num_frames, pad, too_short
from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation


class S3PRLFeatures(TypedDict):
    """The dictionary that S3PRL's upstream returns, key by key.

    Attributes:
        hidden_states: the projected features (0 in padded frames), the output of every layer, the prediction
            of every head, in this order; `(batch, frame, feature)` each.
        last_hidden_state: the last prediction; None without heads, as with S3PRL's `no_pred`. (S3PRL's mode
            "self-hidden", which has no heads either, hands out its own states once more instead.)
        paper: output of the last layer, in pre-norm models before the closing LayerNorm: the feature that
            DistilHuBERT's paper (arXiv 2110.01900) evaluates.
        pad_mask: `(batch, frame)`, float32: 1 for speech, 0 for padding.
    """

    hidden_states: list[Tensor]
    last_hidden_state: Tensor | None
    paper: Tensor
    pad_mask: Tensor


def s3prl_features(model: Any, waveforms: Sequence[Tensor | Waveform]) -> S3PRLFeatures:
    """Call a student as S3PRL's upstream is called.

    Args:
        model: a `HubertModel`, a `HubertForCTC` (its head is left out) or a `HubertForLayerDistillation`; it
            runs where it is, in its own dtype and in evaluation mode.
        waveforms: a list of `(time,)` tensors or arrays, 16 kHz, not padded.

    Raises:
        UserError: the list is empty, or a waveform has another shape, holds no floating-point samples or is
            shorter than a frame (400 samples).
    """
    parts = student_parts(model, waveforms)
    layers = [parts[f"hidden_states.{number}"] for number in _layer_numbers(model)]
    predictions = list(parts["predictions"].unbind(dim=1)) if "predictions" in parts else []
    return {
        "hidden_states": [parts["projected_features"], *layers, *predictions],
        "last_hidden_state": predictions[-1] if predictions else None,
        "paper": layers[-1],
        "pad_mask": parts["frame_mask"].float(),
    }


def student_parts(model: Any, waveforms: Sequence[Tensor | Waveform]) -> dict[str, Tensor]:
    """What a student computes on its way, part by part.

    Args:
        model: see `s3prl_features`.
        waveforms: see `s3prl_features`.

    Returns:
        `conv_features`, `projected_features` (0 in padded frames) and the layers `hidden_states.1`, `.2`, …,
        all `(batch, frame, feature)`; `predictions` `(batch, heads, frame, size)` where the model has heads;
        `frame_mask` `(batch, frame)`, true for speech.

    Raises:
        UserError: see `s3prl_features`.
    """
    clips = _checked(waveforms)
    values, mask = (torch.from_numpy(array).to(model.device) for array in pad(clips))
    student = model.base_model
    modules = {"conv_features": student.feature_extractor, "projected_features": student.feature_projection}
    modules |= {f"hidden_states.{n}": student.encoder.layers[n - 1] for n in _layer_numbers(model)}
    whole = model if isinstance(model, HubertForLayerDistillation) else student
    # Not inference mode: what is trained on top of the features has to keep them for its gradients.
    with _evaluation(model), _outputs(modules) as parts, torch.no_grad():
        output = whole(values.to(model.dtype), attention_mask=mask)
    parts["conv_features"] = parts["conv_features"].transpose(1, 2)
    if "predictions" in output:
        parts["predictions"] = output.predictions
    parts["frame_mask"] = _frame_mask(model, clips, parts["conv_features"].shape[1])
    # S3PRL sets padded frames to 0 before the positional convolution, in the very tensor that it returns.
    padding = ~parts["frame_mask"][:, :, None]
    parts["projected_features"] = parts["projected_features"].masked_fill(padding, 0)
    return parts


def _layer_numbers(model: Any) -> range:
    return range(1, model.config.num_hidden_layers + 1)


def _checked(waveforms: Sequence[Tensor | Waveform]) -> list[Waveform]:
    """The waveforms as float32 arrays."""
    if not isinstance(waveforms, list | tuple) or not waveforms:
        given = "an empty list" if isinstance(waveforms, list | tuple) else f"a {type(waveforms).__name__}"
        raise UserError(f"waveforms are {given}; give a list of one or more (time,) tensors, not padded")
    clips = [torch.as_tensor(waveform).detach().cpu() for waveform in waveforms]
    for number, clip in enumerate(clips):
        if clip.ndim != 1 or not clip.is_floating_point():
            raise UserError(
                f"waveform {number} has shape {tuple(clip.shape)} and dtype {clip.dtype}; "
                "give one axis (time) of floating-point samples at 16 kHz, mono"
            )
        if len(clip) < MIN_SAMPLES:
            raise UserError(f"waveform {number}: {too_short(len(clip))}; leave it out or give a longer one")
    return [np.asarray(clip.float()) for clip in clips]


def _frame_mask(model: Any, clips: Sequence[Waveform], frames: int) -> Tensor:
    """Which frames hear speech: `(batch, frame)`, as many as the convolutions make of each clip alone."""
    kernels, strides = model.config.conv_kernel, model.config.conv_stride
    counts = torch.tensor([num_frames(len(clip), kernels, strides) for clip in clips])
    return (torch.arange(frames) < counts[:, None]).to(model.device)


@contextmanager
def _outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep what each module puts out while the block runs."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs[name] = output

    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs; every module then gets its own flag back."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
