"""Crops of clips with the targets that a cache holds of them, as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_distilhubert.audio import Waveform, crop_start, num_frames
from hf_distilhubert.speech_data import Clip
from hf_distilhubert.students import FRAME_STRIDE
from hf_distilhubert.target_cache import TargetCache

if TYPE_CHECKING:
    from hf_distilhubert.distillation_data import Collator


class Excerpt(NamedTuple):
    """A waveform `(time,)` and the teacher's states for it, `(layer, frame, size)`."""

    waveform: Waveform
    targets: Tensor


@dataclass(frozen=True)
class TargetReader:
    """Cuts excerpts from clips.

    An excerpt starts where a frame does: its frames are frames of the whole clip. Its targets are not quite
    those of a teacher that runs along, which hears the excerpt alone: here it has heard what comes before and
    after, and the group norm in the front end of a base model has heard the whole clip.

    Attributes:
        cache: of the targets of whole clips.
        collator: pads the waveforms, and knows the front end.
        max_samples: length of an excerpt of a longer clip.
    """

    cache: TargetCache
    collator: Collator
    max_samples: int

    def excerpt(self, clip: Clip, generator: np.random.Generator | None = None) -> Excerpt:
        """A random stretch of a clip, or its beginning."""
        whole, start = clip.read(), 0
        if generator is not None:
            start = crop_start(len(whole), self.max_samples, generator, step=FRAME_STRIDE)
        waveform = whole[start : start + self.max_samples]
        frames = num_frames(len(waveform), self.collator.kernels, self.collator.strides)
        return Excerpt(waveform, self.cache.read(clip, start // FRAME_STRIDE, frames))

    def collate(self, excerpts: Sequence[Excerpt]) -> dict[str, Tensor]:
        """What the collator gives, and `targets` `(batch, layer, frame, size)`, 0 where there is padding."""
        batch = self.collator([excerpt.waveform for excerpt in excerpts])
        layers, _, size = excerpts[0].targets.shape
        shape = (len(excerpts), layers, batch["frame_mask"].shape[1], size)
        targets = torch.zeros(shape, dtype=excerpts[0].targets.dtype)
        for row, excerpt in zip(targets, excerpts, strict=True):
            row[:, : excerpt.targets.shape[1]] = excerpt.targets
        return batch | {"targets": targets}


class CachedClips(Dataset[Excerpt]):
    """Clips by `(index, position)`, as `CroppedClips`, with their targets."""

    def __init__(self, clips: Sequence[Clip], reader: TargetReader, seed: int) -> None:
        self.clips, self.reader, self.seed = clips, reader, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: tuple[int, int]) -> Excerpt:
        index, position = item
        return self.reader.excerpt(self.clips[index], np.random.default_rng((self.seed, position)))
