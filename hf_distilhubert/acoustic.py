"""A CTC model as a function from sound to log-probabilities: clips in batches, recordings in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from math import prod
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoConfig, AutoModelForCTC, AutoProcessor

from hf_distilhubert.audio import (
    MIN_SAMPLES,
    SAMPLING_RATE,
    AudioError,
    Waveform,
    normalise,
    num_frames,
    too_short,
)
from hf_distilhubert.ctc_decoding import LogProbabilities
from hf_distilhubert.errors import UserError
from hf_distilhubert.fast_ctc import fast_recogniser
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.long_audio import Statistics, group_norm_as, normalise_as, statistics, windows

# A CPU is busy with a few seconds; more samples at once only leave its caches.
CPU_BATCH_SECONDS = 4.0


class AcousticModel:
    """A CTC model and its processor, from a folder or the Hub.

    Args:
        source: a folder or repository that holds a CTC model of the HuBERT family and its processor.
        device: where to run; None lets Accelerate choose.
        chunk_seconds: what is longer is heard in overlapping windows of this length. A sixth of it is given
            up at either edge.

    Raises:
        UserError: there is no such model, or it has no tokenizer, or windows are too short.
    """

    def __init__(
        self, source: str | Path, *, device: str | torch.device | None = None, chunk_seconds: float = 40.0
    ) -> None:
        if not chunk_seconds >= 1.0:
            raise UserError(f"windows of {chunk_seconds} seconds hear too little; give 1 or more")
        kind = (load(AutoConfig, source).architectures or [""])[0]
        if not kind.endswith("ForCTC"):
            raise UserError(
                f"{source} holds a {kind or 'model'}, no recogniser; fine-tune it first (finetune.train)"
            )
        self.processor = load(AutoProcessor, source)
        self.model = load_model(AutoModelForCTC, source).to(device or PartialState().device)
        config = self.model.config
        if len(self.processor.tokenizer) < config.vocab_size:
            raise UserError(
                f"{source}: {len(self.processor.tokenizer)} tokens, {config.vocab_size} outputs; "
                "give a folder whose tokenizer belongs to its model"
            )
        mask_group_norm(self.model)
        self.fast = fast_recogniser(self.model)
        self.stride = prod(config.conv_stride)
        # Margins are whole frames, and so is what lies between them.
        self.margin = round(chunk_seconds * SAMPLING_RATE / 6 / self.stride) * self.stride
        self.window = 6 * self.margin

    @property
    def frame_seconds(self) -> float:
        """From one frame to the next."""
        return self.stride / SAMPLING_RATE

    def clips(
        self, waveforms: Sequence[Waveform], batch_size: int
    ) -> Iterator[tuple[int, Iterable[LogProbabilities]]]:
        """Position and log-probabilities of `(time,)` waveforms, in the order in which they are ready.

        A clip gives the same alone and in any batch (to 1e-5): batches are of similar length, and padding
        never matters.

        Raises:
            AudioError: a waveform is shorter than one frame.
        """
        shortest = min((len(waveform) for waveform in waveforms), default=MIN_SAMPLES)
        if shortest < MIN_SAMPLES:
            raise AudioError(too_short(shortest))
        short = [index for index, waveform in enumerate(waveforms) if len(waveform) <= self.window]
        for chosen in self._batches([(len(waveforms[index]), index) for index in short], batch_size):
            rows = self._batch([waveforms[index] for index in chosen])
            yield from ((index, [row]) for index, row in zip(chosen, rows, strict=True))
        for index in set(range(len(waveforms))) - set(short):
            whole = waveforms[index]
            yield index, self.recording(lambda whole=whole: [whole], batch_size)  # type: ignore[misc]

    def recording(
        self, read: Callable[[], Iterable[Waveform]], batch_size: int = 8
    ) -> Iterator[LogProbabilities]:
        """Log-probabilities `(frame, token)` of a long recording, window after window.

        Args:
            read: gives the recording from its beginning, in blocks `(time,)`; it is asked twice, first for
                the statistics of the whole.
            batch_size: windows at once, on an accelerator.

        Raises:
            AudioError: see `read_blocks`; before the first window.
        """
        config, normalised = self.model.config, self.processor.feature_extractor.do_normalize
        whole = statistics(read(), config.conv_kernel[0], config.conv_stride[0])
        pieces = windows(read(), self.window, self.margin)
        size = 1 if self.model.device.type == "cpu" else batch_size
        while batch := list(islice(pieces, size)):
            # All but the last window of a recording are of one length, so there is no padding.
            for _, of_one_length in groupby(batch, key=lambda window: len(window.samples)):
                group = list(of_one_length)
                samples = [normalise_as(w.samples, whole) if normalised else w.samples for w in group]
                rows = self._windows(samples, whole, normalised=normalised)
                for window, row in zip(group, rows, strict=True):
                    end = None if window.end is None else window.end // self.stride
                    yield row[window.start // self.stride : end].numpy()

    def _batches(self, lengths: list[tuple[int, int]], batch_size: int) -> Iterator[list[int]]:
        """Positions out of `(length, position)`, of similar length, as many at once as are quickest."""
        padded = self.model.device.type == "cpu" and not self.fast
        most = CPU_BATCH_SECONDS * SAMPLING_RATE if padded else float("inf")
        batch: list[int] = []
        for length, index in sorted(lengths):
            if batch and (len(batch) == batch_size or (len(batch) + 1) * length > most):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _windows(
        self, samples: Sequence[Waveform], whole: Statistics, *, normalised: bool
    ) -> Iterable[Tensor]:
        """Log-probabilities of windows of one length, with the norms of the recording."""
        if self.fast:
            return self.fast.windows(samples, whole, normalised=normalised)
        with torch.inference_mode(), group_norm_as(self.model, whole, normalised=normalised):
            return self._log_probabilities(torch.from_numpy(np.stack(samples)))

    def _batch(self, waveforms: Sequence[Waveform]) -> list[LogProbabilities]:
        if self.fast:
            normalised = self.processor.feature_extractor.do_normalize
            clips = [normalise(waveform) if normalised else waveform for waveform in waveforms]
            return [row.numpy() for row in self.fast.clips(clips)]
        inputs = self.processor(
            list(waveforms),
            sampling_rate=SAMPLING_RATE,
            return_tensors="pt",
            padding=True,
            return_attention_mask=True,
        )
        with torch.inference_mode():
            rows = self._log_probabilities(**inputs)
        # Frames of padding are cut off before decoding: they would decode into text.
        return [row[: self._num_frames(len(w))].numpy() for row, w in zip(rows, waveforms, strict=True)]

    def _log_probabilities(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        device = self.model.device
        mask = None if attention_mask is None else attention_mask.to(device)
        logits = self.model(input_values.to(device), attention_mask=mask).logits
        return logits.float().log_softmax(-1).cpu()

    def _num_frames(self, num_samples: int) -> int:
        return num_frames(num_samples, self.model.config.conv_kernel, self.model.config.conv_stride)
