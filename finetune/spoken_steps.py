"""Clips with labels from a stream: the same from wherever it starts, and nothing unusable among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.augment import augment
from finetune.data import too_short_for
from hf_distilhubert.audio import Waveform
from hf_distilhubert.manifests import Row
from hf_distilhubert.speech_data import Skipped
from hf_distilhubert.streamed_data import StreamedSpeech
from hf_distilhubert.streamed_steps import StreamedSteps, read_row
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.tokens import labels_of


@dataclass(frozen=True)
class Heard:
    """A waveform that stands where `SpeechCollator` expects a `Recording`."""

    waveform: Waveform

    def read(self) -> Waveform:
        """It was read already."""
        return self.waveform


@dataclass(frozen=True)
class SentenceReader:
    """Makes items for `SpeechCollator` of rows.

    Attributes:
        rules: make the normal form of a transcript.
        tokenizer: makes the labels of that.
        model_config: for the front end.
        augment_seed: see `ClipDataset`, as the next; what is drawn depends on the seed and on how many rows
            were read before, so that it is another in each epoch.
        mask_seed: see above.
    """

    rules: TextRules
    tokenizer: Any
    model_config: Any
    augment_seed: int | None
    mask_seed: int | None

    def __call__(self, row: Row, position: int) -> tuple[dict[str, Any], int] | Skipped:
        """An item, and the length of its sound; or why there is none."""
        text = self.rules(row.text or "")
        if not text and not row.problem:
            return Skipped(row.clip_id, "its transcript has no letters or digits")
        waveform = read_row(row)
        if isinstance(waveform, Skipped):
            return waveform
        length, labels, augmented = (
            len(waveform),
            labels_of(self.tokenizer, text),
            self.augment_seed is not None,
        )
        if reason := too_short_for(labels, length, self.model_config, augmented=augmented):
            return Skipped(row.clip_id, reason)
        if self.augment_seed is not None:
            waveform = augment(waveform, np.random.default_rng((self.augment_seed, 0, position)))
        item: dict[str, Any] = {"input_values": Heard(waveform), "labels": labels}
        if self.mask_seed is not None:
            item["mask_key"] = (self.mask_seed, 0, position)
        return item, length


class SpokenSteps(StreamedSteps):
    """Steps of clips with labels.

    Args:
        speech: what they are steps of.
        reader: makes clips of rows; those of unusable text are passed over like those of unusable sound.
        *settings: see `StreamedSteps`.
    """

    def __init__(self, speech: StreamedSpeech, reader: SentenceReader, *settings: Any) -> None:
        super().__init__(*settings)
        self.speech, self.reader = speech, reader

    def read(self, row: Row, position: int) -> tuple[dict[str, Any], int] | Skipped:
        """See `SentenceReader`."""
        return self.reader(row, position)
