"""Clips as items for Trainer: sound and labels, padded into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from finetune.augment import SPEED, augment
from finetune.spec_augment import SpecAugment
from hf_distilhubert.audio import Waveform, normalise, num_frames, pad
from hf_distilhubert.speech_data import Clip, Skipped, SpeechData, load_clips, verify_audio
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.tokens import labels_of

CACHE_HOURS = 2.0  # of decoded sound: 460 MB


def load_split(data: str, split: str, rules: TextRules) -> SpeechData:
    """The clips of a split that decode, with transcripts in normal form.

    Raises:
        UserError: no such data, no transcripts, or too many clips that cannot be used.
    """
    found = read_split(data, split)
    normalise_transcripts(found, rules)
    return found


def read_split(data: str, split: str) -> SpeechData:
    """The clips of a split that decode, with their transcripts as they are.

    Raises:
        UserError: no such data, no transcripts, or too many clips that cannot be used.
    """
    found = load_clips(data, split, need_text=True)
    verify_audio(found)
    return found


def transcripts(data: SpeechData) -> list[str]:
    """What is said in each clip."""
    return [clip.text or "" for clip in data.clips]


def normalise_transcripts(data: SpeechData, rules: TextRules) -> None:
    """Replace the transcripts by their normal form; clips whose transcript has no letters are left out.

    Args:
        data: clips with transcripts.
        rules: what the recogniser's texts are normalised with, in training and in scoring alike.

    Raises:
        UserError: too many clips are left out, see `SpeechData.skip`.
    """
    data.clips = [replace(clip, text=rules(clip.text or "")) for clip in data.clips]
    empty = [
        Skipped(clip.clip_id, "its transcript has no letters or digits")
        for clip in data.clips
        if not clip.text
    ]
    if empty:
        data.skip(empty)


def drop_too_short(data: SpeechData, tokenizer: Any, config: Any, *, augmented: bool) -> None:
    """Leave out clips with fewer frames than their text needs: CTC has no path through them.

    Args:
        data: clips with normalised transcripts.
        tokenizer: the recogniser's.
        config: the model's, for its front end.
        augmented: keep a margin for augmentation, which may shorten a clip.

    Raises:
        UserError: too many clips are left out, see `SpeechData.skip`.
    """
    found = []
    for clip in data.clips:
        labels = labels_of(tokenizer, clip.text or "")
        if reason := too_short_for(labels, clip.num_samples, config, augmented=augmented):
            found.append(Skipped(clip.clip_id, reason))
    if found:
        data.skip(found)


def too_short_for(labels: Sequence[int], num_samples: int, config: Any, *, augmented: bool) -> str | None:
    """Why CTC cannot write `labels` on so many samples; None where it can. See `drop_too_short`."""
    shortest = 1 / SPEED[1] if augmented else 1.0
    frames = num_frames(int(num_samples * shortest), config.conv_kernel, config.conv_stride)
    needed = frames_needed(labels)
    margin = " after augmentation" if augmented else ""
    return (
        f"{frames} frames{margin}, too short for its text, which needs {needed}" if frames < needed else None
    )


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that CTC can write `labels` on: one each, and a blank between equal neighbours."""
    return len(labels) + sum(first == second for first, second in pairwise(labels))


@dataclass(frozen=True)
class Recording:
    """The sound of one item, whose length is known before it is read.

    Trainer groups clips by `len(item["input_values"])`, for which it takes every item once: so items hold no
    sound, and the collator reads it (in the data loader's workers, where there are any).
    """

    dataset: ClipDataset
    index: int

    def __len__(self) -> int:
        return self.dataset.clips[self.index].num_samples

    def read(self) -> Waveform:
        """Decode, and augment where that is asked for: `(time,)`.

        Raises:
            AudioError: the file gives no usable sound.
        """
        return self.dataset.waveform(self.index)


class ClipDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Clips with normalised transcripts, as `{"input_values": Recording, "labels": [id, …]}`.

    Args:
        clips: what to serve.
        tokenizer: makes the labels.
        augment_seed: augment with this seed; None serves clips as they are. What comes out depends on the
            seed, the epoch and the clip alone.
        mask_seed: give each item a `mask_key`, from which `SpecAugment` draws; None for no masks.
        cache: keep decoded sound in memory.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tokenizer: Any,
        *,
        augment_seed: int | None = None,
        mask_seed: int | None = None,
        cache: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.tokenizer = tokenizer
        self.augment_seed, self.mask_seed = augment_seed, mask_seed
        self._cache: dict[int, Waveform] | None = {} if cache else None
        # Shared, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = labels_of(self.tokenizer, self.clips[index].text or "")
        item = {"input_values": Recording(self, index), "labels": labels}
        if self.mask_seed is not None:
            item["mask_key"] = (self.mask_seed, int(self._epoch), index)
        return item

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass this is; it changes augmentation and masks, nothing else."""
        self._epoch.fill_(epoch)

    def waveform(self, index: int) -> Waveform:
        """The sound of a clip, `(time,)`: decoded, or from memory, augmented where that is asked for."""
        if self._cache is None:
            waveform = self.clips[index].read()
        else:
            if index not in self._cache:
                self._cache[index] = self.clips[index].read()
            waveform = self._cache[index]
        if self.augment_seed is None:
            return waveform
        return augment(waveform, np.random.default_rng((self.augment_seed, int(self._epoch), index)))


@dataclass(frozen=True)
class SpeechCollator:
    """Items of `ClipDataset` to a batch of tensors.

    Attributes:
        do_normalize: waveforms of zero mean and unit variance (the feature extractor's setting).
        pad_multiple: round lengths up to a multiple of this many samples; few shapes are faster on CPUs.
        spec_augment: draws masks for items that have a `mask_key`; None for no masks.
    """

    do_normalize: bool
    pad_multiple: int
    spec_augment: SpecAugment | None = None

    def __call__(self, items: Iterable[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_values`, `attention_mask` `(batch, time)`; `labels` `(batch, label)`, padded with -100.

        With masks, those of `SpecAugment` beside them.
        """
        items = list(items)
        waveforms = [item["input_values"].read() for item in items]
        if self.do_normalize:
            waveforms = [normalise(waveform) for waveform in waveforms]
        values, mask = pad(waveforms, multiple=self.pad_multiple)
        labels = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(item["labels"], dtype=torch.int64) for item in items],
            batch_first=True,
            padding_value=-100,
        )
        batch = {
            "input_values": torch.from_numpy(values),
            "attention_mask": torch.from_numpy(mask),
            "labels": labels,
        }
        if self.spec_augment and "mask_key" in items[0]:
            keys = [item["mask_key"] for item in items]
            batch |= self.spec_augment(keys, [len(waveform) for waveform in waveforms], values.shape[1])
        return batch
