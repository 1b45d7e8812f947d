"""Clips as batches for distillation: read, cropped, padded, with the mask of their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hf_distilhubert.audio import SAMPLING_RATE, Waveform, crop, num_frames, pad
from hf_distilhubert.batches import ByBudget, ByCount, Cut, LengthBatches
from hf_distilhubert.cached_clips import CachedClips, TargetReader
from hf_distilhubert.clip_lists import PackedClips
from hf_distilhubert.errors import UserError
from hf_distilhubert.processes import start_reader
from hf_distilhubert.speech_data import Clip

if TYPE_CHECKING:
    from hf_distilhubert.settings import DistillConfig


class CroppedClips(Dataset[Waveform]):
    """Clips by `(index, position)`; the crop is a function of (seed, position)."""

    def __init__(self, clips: Sequence[Clip], max_samples: int, seed: int) -> None:
        self.clips, self.max_samples, self.seed = clips, max_samples, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: tuple[int, int]) -> Waveform:
        index, position = item
        generator = np.random.default_rng((self.seed, position))
        return crop(self.clips[index].read(), self.max_samples, generator)


@dataclass(frozen=True)
class Collator:
    """Pad waveforms into a batch.

    Attributes:
        kernels: of the front end's convolutions.
        strides: of the front end's convolutions.
        pad_multiple: lengths are rounded up to a multiple of this many samples.
        mask_loss: leave the frames of the padding out of the loss; S3PRL counts them.
    """

    kernels: Sequence[int]
    strides: Sequence[int]
    pad_multiple: int
    mask_loss: bool = True

    def __call__(self, waveforms: Sequence[Waveform]) -> dict[str, Tensor]:
        """`input_values` and `attention_mask` `(batch, time)`; `frame_mask` `(batch, frame)`: what counts."""
        values, mask = pad(waveforms, multiple=self.pad_multiple)
        frames = [num_frames(len(waveform), self.kernels, self.strides) for waveform in waveforms]
        total = num_frames(values.shape[1], self.kernels, self.strides)
        frame_mask = np.arange(total)[None] < np.array(frames)[:, None]
        if not self.mask_loss:
            frame_mask[:] = True
        return {
            "input_values": torch.from_numpy(values),
            "attention_mask": torch.from_numpy(mask),
            "frame_mask": torch.from_numpy(frame_mask),
        }


def cut_of(config: DistillConfig, num_processes: int) -> Cut:
    """How clips are cut into batches: by their number, or by a budget of seconds.

    Raises:
        UserError: a batch cannot be shared out to the processes.
    """
    multiple = config.accumulation * num_processes
    shares = f"{num_processes} processes with {config.accumulation} batches each"
    if config.batch_seconds is None:
        if config.batch_size % multiple:
            raise UserError(f"batch_size {config.batch_size} cannot be shared by {shares}; give a multiple")
        return ByCount(config.batch_size)
    samples = int(config.batch_seconds * SAMPLING_RATE)
    cut = ByBudget(samples, config.max_samples, config.pad_multiple, multiple)
    if samples < multiple * cut.longest:
        raise UserError(
            f"batch_seconds {config.batch_seconds:g} is too short for clips of {config.max_samples} samples, "
            f"one for each of {shares}; give at least {multiple * cut.longest / SAMPLING_RATE:g}, or a lower "
            "max_samples"
        )
    return cut


def training_batches(
    clips: Sequence[Clip],
    collator: Collator,
    *,
    cut: Cut,
    num_batches: int,
    parts: int,
    max_samples: int,
    seed: int,
    num_workers: int = 0,
    start: int = 0,
    targets: TargetReader | None = None,
) -> DataLoader[Any]:
    """Batches of similar length, from number `start` on; order and crops depend on the seed alone."""
    packed = PackedClips(clips)
    sampler = LengthBatches(packed.lengths, cut, num_batches, parts=parts, seed=seed, start=start)
    return DataLoader(
        CachedClips(packed, targets, seed) if targets else CroppedClips(packed, max_samples, seed),
        batch_sampler=sampler,
        collate_fn=targets.collate if targets else collator,
        num_workers=num_workers,
        worker_init_fn=start_reader,
        # Without one of its own, the loader would draw from (and so move) the model's random numbers.
        generator=torch.Generator(),
    )


def fingerprint(clips: Sequence[Clip]) -> str:
    """How many clips, and a digest of their names and lengths, which batches depend on."""
    digest = hashlib.sha256("".join(f"{clip.clip_id}\t{clip.num_samples}\n" for clip in clips).encode())
    return f"{len(clips)} clips, digest {digest.hexdigest()[:12]}"


class HeldOutBatches:
    """Every clip once, by length, cut at `max_samples`; read anew each time, so that memory stays flat."""

    def __init__(
        self,
        clips: Sequence[Clip],
        collator: Collator,
        batch_size: int,
        max_samples: int,
        targets: TargetReader | None = None,
    ) -> None:
        self.clips = sorted(clips, key=lambda clip: clip.num_samples)
        self.collator, self.batch_size, self.max_samples = collator, batch_size, max_samples
        self.targets = targets

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.clips), self.batch_size):
            chosen = self.clips[start : start + self.batch_size]
            if self.targets is None:
                yield self.collator([clip.read()[: self.max_samples] for clip in chosen])
            else:
                yield self.targets.collate([self.targets.excerpt(clip) for clip in chosen])
