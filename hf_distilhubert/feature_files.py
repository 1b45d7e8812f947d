"""From audio files to files of features, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from torch import Tensor
from transformers import AutoFeatureExtractor

from hf_distilhubert.audio import SAMPLING_RATE, AudioError, Waveform, normalise, read_audio
from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.loading import load
from hf_distilhubert.transcription_files import AudioFile

if TYPE_CHECKING:
    from hf_distilhubert.features import FeatureSettings

CALIBRATION_CLIPS, CALIBRATION_SECONDS = 16, 15.0


class FeatureFiles:
    """Loads a model once and then turns files into features.

    Args:
        settings: what is computed.
        files: all that will come; int8 takes its ranges from the first of them.

    Raises:
        UserError: the model cannot be used, or has no such layer.
    """

    def __init__(self, settings: FeatureSettings, files: Sequence[AudioFile]) -> None:
        self.settings, self.files = settings, files
        self.normalise = bool(load(AutoFeatureExtractor, settings.model).do_normalize)
        clips = list(self._first(files)) if settings.dtype == "int8" else None
        self.encoder = FastEncoder.from_pretrained(settings.model, settings.dtype, calibration=clips)
        layers = self.encoder.config.num_hidden_layers
        if settings.layer is not None and not 0 <= settings.layer <= layers:
            raise UserError(f"--layer {settings.layer}; {settings.model} has 0 to {layers}")
        self.state = -1 if settings.layer is None else settings.layer

    def __call__(self, work: Sequence[tuple[AudioFile, Path]]) -> list[tuple[int, str | None]]:
        """Write the features of some files; frames of each, and what is wrong with it."""
        clips: list[Tensor] = []
        targets: list[Path] = []
        results: list[tuple[int, str | None]] = []
        for file, target in work:
            try:
                clips.append(self.encoder.clip(self._read(file)))
                targets.append(target)
            except AudioError as error:
                results.append((0, one_line(error)))
        for index, states in self.encoder.each(clips):
            features = states[self.state]
            _write(targets[index], features)
            results.append((len(features), None))
        return results

    def _first(self, files: Sequence[AudioFile]) -> Iterator[Waveform]:
        for file in files[:CALIBRATION_CLIPS]:
            with suppress(AudioError):
                yield self._read(file)[: int(CALIBRATION_SECONDS * SAMPLING_RATE)]

    def _read(self, file: AudioFile) -> Waveform:
        waveform = read_audio(file.source)
        return normalise(waveform) if self.normalise else waveform


def _write(target: Path, features: Tensor) -> None:
    """Under another name first, so that a file that is there is whole."""
    partial = target.with_name(f".{target.name}.partial")
    array = np.ascontiguousarray(features.cpu().numpy())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".npy":
            with partial.open("wb") as file:
                np.save(file, array)
        else:
            save_file({"features": array}, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {one_line(error)}; choose another folder") from error
