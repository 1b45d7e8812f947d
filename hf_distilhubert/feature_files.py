"""From audio files to files of features, in one process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from transformers import AutoFeatureExtractor, HubertModel

from hf_distilhubert.audio import AudioError, Waveform, normalise, num_frames, read_audio
from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.features import DTYPES, FeatureSettings
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.transcription_files import AudioFile


class FeatureFiles:
    """Loads a model once and then turns files into features.

    Args:
        settings: what is computed.

    Attributes:
        sha256: of the model's weights.

    Raises:
        UserError: the model cannot be used, or has no such layer.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        if settings.dtype not in DTYPES:
            raise UserError(f"dtype {settings.dtype!r}; give one of {', '.join(DTYPES)}")
        self.settings = settings
        self.normalise = bool(load(AutoFeatureExtractor, settings.model).do_normalize)
        model = load_model(HubertModel, settings.model)
        self.sha256 = _sha256(model)
        self.encoder = FastEncoder(model, settings.dtype)
        layers = self.encoder.config.num_hidden_layers
        if settings.layer is not None and not 0 <= settings.layer <= layers:
            raise UserError(f"--layer {settings.layer}; {settings.model} has 0 to {layers}")
        self.state = -1 if settings.layer is None else settings.layer

    def is_done(self, target: Path, num_samples: int) -> bool:
        """Whether a file holds the features of so many samples, as far as its number of frames says."""
        try:
            if target.suffix == ".npy":
                frames = len(np.load(target, mmap_mode="r"))
            else:
                with safe_open(target, "numpy") as file:
                    frames = file.get_slice("features").get_shape()[0]
        except (OSError, EOFError, ValueError, SafetensorError):
            return False
        config = self.encoder.config
        # A header may be off by a sample where the rate is another.
        right = num_frames(num_samples, config.conv_kernel, config.conv_stride)
        return abs(frames - right) <= 1

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
        for index, states in self.encoder.route(clips):
            features = states[self.state]
            _write(targets[index], features)
            results.append((len(features), None))
        return results

    def _read(self, file: AudioFile) -> Waveform:
        waveform = read_audio(file.source)
        return normalise(waveform) if self.normalise else waveform


def _write(target: Path, features: Tensor) -> None:
    """Under another name first, so that a file that is there is whole."""
    # A short one, where the name is as long as the file system has it.
    partial = target.with_name(f".{os.getpid()}.partial")
    array = np.ascontiguousarray(features.cpu().numpy())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            if target.suffix == ".npy":
                np.save(file, array)
            else:
                file.write(save({"features": array}))
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {one_line(error)}; choose another folder") from error


def _sha256(model: HubertModel) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
