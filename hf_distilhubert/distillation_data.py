"""Clips as batches for distillation: read, cropped, padded, with the mask of their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hf_distilhubert.audio import Waveform, crop, num_frames, pad
from hf_distilhubert.batches import LengthBatches
from hf_distilhubert.processes import leave_signals_to_the_parent
from hf_distilhubert.speech_data import Clip


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


def training_batches(
    clips: Sequence[Clip],
    collator: Collator,
    *,
    batch_size: int,
    num_batches: int,
    parts: int,
    max_samples: int,
    seed: int,
    num_workers: int = 0,
    start: int = 0,
) -> DataLoader[Waveform]:
    """Batches of similar length, from number `start` on; order and crops depend on the seed alone."""
    lengths = [clip.num_samples for clip in clips]
    sampler = LengthBatches(lengths, batch_size, num_batches, parts=parts, seed=seed, start=start)
    return DataLoader(
        CroppedClips(clips, max_samples, seed),
        batch_sampler=sampler,
        collate_fn=collator,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_the_parent,
        # Without one of its own, the loader would draw from (and so move) the model's random numbers.
        generator=torch.Generator(),
    )


def fingerprint(clips: Sequence[Clip]) -> str:
    """How many clips, and a digest of their names and lengths, which batches depend on."""
    digest = hashlib.sha256("".join(f"{clip.clip_id}\t{clip.num_samples}\n" for clip in clips).encode())
    return f"{len(clips)} clips, digest {digest.hexdigest()[:12]}"


class HeldOutBatches:
    """Every clip once, by length, cut at `max_samples`; read anew each time, so that memory stays flat."""

    def __init__(self, clips: Sequence[Clip], collator: Collator, batch_size: int, max_samples: int) -> None:
        self.clips = sorted(clips, key=lambda clip: clip.num_samples)
        self.collator, self.batch_size, self.max_samples = collator, batch_size, max_samples

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.clips), self.batch_size):
            chosen = self.clips[start : start + self.batch_size]
            yield self.collator([clip.read()[: self.max_samples] for clip in chosen])
