"""SpecAugment (arXiv 1904.08779) on the projected features of the front end, for training alone.

What is masked is drawn with the batch, as a pure function of the seed, the epoch and the clip, and counts the
clip's own frames: a clip is masked alike alone and in any batch, on any number of processes, and after a
resume. The model learns of the masks through hooks; its class, config and weights stay stock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.settings import FinetuneConfig
from hf_distilhubert.audio import num_frames

WIDEST = 0.2  # of the clip: the paper's bound for one mask, so that short clips keep most of theirs
FEATURE_LENGTH = 64  # features next to one another, as wav2vec 2.0 masks them
STREAM = 1  # the generator is another than that of `finetune.augment`
FRAMES, FEATURES = "masked_frames", "masked_features"


def spans(size: int, share: float, length: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Where `(size,)` is masked: under spans that start anywhere and may overlap.

    Args:
        size: number of frames or features.
        share: of them to mask, counted as if spans never overlapped; rounded up or down at random.
        length: of a span; one covers no more than the share `WIDEST` of all, so that what is shorter than
            1 / `WIDEST` is never masked.
        generator: what draws.
    """
    masked = np.zeros(size, dtype=np.bool_)
    width = min(length, int(WIDEST * size))
    if width:
        starts = generator.integers(0, size - width + 1, size=int(share * size / width + generator.random()))
        masked[(starts[:, None] + np.arange(width)).ravel()] = True
    return masked


@dataclass(frozen=True)
class SpecAugment:
    """Draws the masks of a batch.

    Attributes:
        conv_kernel: of the model's front end.
        conv_stride: of the model's front end.
        num_features: size of the projected features.
        time_share: share of the frames to mask.
        time_length: frames in one mask (of 20 ms).
        feature_share: share of the features to mask, for a whole clip.
    """

    conv_kernel: Sequence[int]
    conv_stride: Sequence[int]
    num_features: int
    time_share: float
    time_length: int
    feature_share: float

    def __call__(
        self, keys: Sequence[tuple[int, ...]], lengths: Sequence[int], padded: int
    ) -> dict[str, Tensor]:
        """Two masks, `(batch, frame)` and `(batch, feature)`, under the names that the model's hook takes.

        Args:
            keys: seed, epoch and number of each clip.
            lengths: samples of each.
            padded: samples of all, with padding.
        """
        frames = np.zeros((len(keys), num_frames(padded, self.conv_kernel, self.conv_stride)), dtype=np.bool_)
        features = np.zeros((len(keys), self.num_features), dtype=np.bool_)
        for row, (key, length) in enumerate(zip(keys, lengths, strict=True)):
            generator = np.random.default_rng((*key, STREAM))
            valid = num_frames(length, self.conv_kernel, self.conv_stride)
            frames[row, :valid] = spans(valid, self.time_share, self.time_length, generator)
            features[row] = spans(self.num_features, self.feature_share, FEATURE_LENGTH, generator)
        return {FRAMES: torch.from_numpy(frames), FEATURES: torch.from_numpy(features)}


def spec_augment_for(config: FinetuneConfig, model: Any) -> SpecAugment | None:
    """What draws the masks of a run, with a model that takes them; None where the run has none."""
    if not config.spec_augment:
        return None
    take_masks(model)
    return SpecAugment(
        model.config.conv_kernel,
        model.config.conv_stride,
        model.config.hidden_size,
        config.mask_time_prob,
        config.mask_time_length,
        config.mask_feature_prob,
    )


def take_masks(model: Any) -> None:
    """Have a `…ForCTC` take masks beside its inputs, and put them on in training mode.

    What is masked becomes the clip's own mean of each feature: the zero of the paper, whose features have
    no mean. A stock `masked_spec_embed` would start as noise in a student, and a trained one is not in the
    file of most.

    Args:
        model: of the HuBERT, wav2vec2 or WavLM kind.
    """
    model.register_forward_pre_hook(_hand_over, with_kwargs=True)
    model.register_forward_hook(_forget, always_call=True)
    model.base_model.encoder.register_forward_pre_hook(_put_on, with_kwargs=True)


# As in `hf_distilhubert.group_norm`, hooks are functions that take their module: copies have their own masks.


def _hand_over(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    masks = kwargs.pop(FRAMES, None), kwargs.pop(FEATURES, None)
    model.base_model.encoder.masks = None if None in masks else masks
    return args, kwargs


def _forget(model: Any, _args: Any, _output: Any) -> None:
    model.base_model.encoder.masks = None


def _put_on(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    masks = getattr(encoder, "masks", None)
    if masks is None or not encoder.training:
        return None
    frames, features = masks
    masked = frames[:, :, None] | features[:, None, :]
    return (torch.where(masked, _mean(args[0], kwargs["attention_mask"]), args[0]), *args[1:]), kwargs


def _mean(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the valid frames of `(batch, frame, feature)`; `(batch, 1, feature)`, without gradient."""
    valid = attention_mask[:, :, None].to(torch.float32)
    total = (hidden_states.detach() * valid).sum(1, keepdim=True)
    return (total / valid.sum(1, keepdim=True).clamp(min=1)).to(hidden_states.dtype)
