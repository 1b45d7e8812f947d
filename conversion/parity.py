"""A converted student against S3PRL's arithmetic (`reference.py`), part by part, on clips of the user's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conversion.reference import reference_parts
from hf_distilhubert.audio import SAMPLING_RATE, num_frames, read_audio
from hf_distilhubert.errors import UserError
from hf_distilhubert.s3prl_features import student_parts

TOLERANCE = 1e-5  # of the relative difference; float32 rounding alone gives a few 1e-7
MAX_SECONDS = 15
CLIPS_AT_A_TIME = 3
# In one layer, of one clip: four times what the published model makes of 15 s.
MAX_VALUES = 100_000_000
# Length in seconds and pitch in Hz of the sounds that stand in for speech.
VOICES = ((0.4, 110.0), (0.25, 165.0))


@dataclass(frozen=True)
class PartParity:
    """How far one part of the student is from S3PRL's, over frames of speech.

    Attributes:
        name: which part.
        max_difference: largest absolute difference.
        relative_difference: the same over the largest absolute value that S3PRL has there.
        frames: how many frames were compared.
    """

    name: str
    max_difference: float
    relative_difference: float
    frames: int

    @property
    def is_equal(self) -> bool:
        """Whether the part is S3PRL's to within `TOLERANCE`."""
        return self.relative_difference <= TOLERANCE


def compare(
    weights: Mapping[str, Tensor], distiller: Mapping[str, Any], model: Any, waveforms: Sequence[Tensor]
) -> list[PartParity]:
    """Compare a student with the checkpoint it was made of, on padded batches and on the first clip alone.

    The worst of all batches counts. Predictions are compared where the student has kept its heads.

    Args:
        weights: the checkpoint's tensors under S3PRL's names.
        distiller: S3PRL's settings.
        model: the student, a `HubertModel`, `HubertForCTC` or `HubertForLayerDistillation`.
        waveforms: `(time,)` float32 each, 16 kHz, at least 400 samples, not padded.

    Raises:
        UserError: there are no waveforms, or the model is of another shape than the checkpoint.
    """
    if not waveforms:
        raise UserError("there are no clips to compare on; give one or more")
    _check_size(model.config, waveforms)
    parities: dict[str, list[PartParity]] = {}
    for batch in _batches(waveforms):
        expected = reference_parts(weights, distiller, batch)
        actual = student_parts(model, batch)
        _check_shapes(actual, expected)
        for parity in _compare_batch(actual, expected, getattr(model, "target_layers", ())):
            parities.setdefault(parity.name, []).append(parity)
    return [_worst(found) for found in parities.values()]


def parity_table(parities: Sequence[PartParity]) -> str:
    """Aligned lines for a terminal, one a part."""
    rows = [("part", "max difference", "relative", "frames")]
    rows += [
        (part.name, f"{part.max_difference:.1e}", f"{part.relative_difference:.1e}", f"{part.frames:,}")
        for part in parities
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def verification_clips(paths: Sequence[str | Path] = ()) -> list[Tensor]:
    """Sound to compare on, `(time,)` at 16 kHz, up to 15 s each: from audio files, or generated without any.

    Raises:
        AudioError: a file gives no usable sound.
    """
    if not paths:
        return _voices()
    return [torch.from_numpy(read_audio(path)[: MAX_SECONDS * SAMPLING_RATE]) for path in paths]


def _voices() -> list[Tensor]:
    """The same sounds every time: ten harmonics of a pitch, four syllables a second, some noise."""
    generator = np.random.default_rng(0)
    clips = []
    for seconds, pitch in VOICES:
        time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
        harmonics = np.arange(1, 11)[:, None]
        voice = (np.sin(2 * np.pi * pitch * harmonics * time) / harmonics).sum(axis=0)
        syllables = np.sin(4 * np.pi * time) ** 2
        sound = 0.1 * syllables * voice + 0.005 * generator.standard_normal(len(time))
        clips.append(torch.from_numpy(sound.astype(np.float32)))
    return clips


def _batches(waveforms: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The first clip alone, then all in batches small enough for the memory of a laptop."""
    if len(waveforms) > 1:
        yield [waveforms[0]]
    for start in range(0, len(waveforms), CLIPS_AT_A_TIME):
        yield list(waveforms[start : start + CLIPS_AT_A_TIME])


def _check_size(config: Any, waveforms: Sequence[Tensor]) -> None:
    """Refuse clips without a frame, and a config from a stranger whose activations would fill the memory.

    Raises:
        UserError: see above.
    """
    longest, values = max(map(len, waveforms)), 0
    for waveform in waveforms:
        if num_frames(len(waveform), config.conv_kernel, config.conv_stride) < 1:
            raise UserError(f"a clip of {len(waveform)} samples is too short for a frame; give longer ones")
    length = longest
    for size, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        values = max(values, size * length)
    values = max(values, length * config.intermediate_size, length**2 * config.num_attention_heads)
    if values > MAX_VALUES:
        raise UserError(
            f"by its config the model makes {values:.1e} numbers at once of {longest} samples, and no speech "
            "model does; give another checkpoint"
        )


def _check_shapes(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    # Heads may have been left out on the way; everything else has to be there.
    for name in sorted(actual.keys() | expected.keys() - {"predictions"}):
        ours, theirs = (tuple(parts[name].shape) if name in parts else None for parts in (actual, expected))
        if ours != theirs:
            raise UserError(
                f"{name} has shape {ours} in the model and {theirs} by the checkpoint; "
                "give a model that was converted from this checkpoint"
            )


def _compare_batch(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], target_layers: Sequence[int]
) -> Iterator[PartParity]:
    """Each part of a batch, from the front end to the last prediction."""
    mask = expected["frame_mask"]
    layers = [name for name in expected if name.startswith("hidden_states.")]
    names = {"conv_features": "front end", "projected_features": "projection"}
    names |= {name: f"layer {name.removeprefix('hidden_states.')}" for name in layers}
    for key, name in names.items():
        yield _compare_part(name, actual[key], expected[key], mask)
    for i, layer in enumerate(target_layers):
        ours, theirs = (parts["predictions"][:, i] for parts in (actual, expected))
        yield _compare_part(f"prediction of layer {layer}", ours, theirs, mask)


def _compare_part(name: str, actual: Tensor, expected: Tensor, mask: Tensor) -> PartParity:
    """Compare `(batch, frame, feature)` where `mask` is true; a NaN anywhere makes the difference NaN."""
    theirs = expected[mask]
    difference = (actual.to(expected)[mask] - theirs).abs().max()
    relative = difference / theirs.abs().max() if difference != 0 else difference
    return PartParity(name, float(difference), float(relative), len(theirs))


def _worst(found: Sequence[PartParity]) -> PartParity:
    """The largest difference of several batches; NaN is larger than any."""
    differences = torch.tensor([(part.max_difference, part.relative_difference) for part in found])
    largest, relative = differences.amax(dim=0).tolist()
    return PartParity(found[0].name, largest, relative, sum(part.frames for part in found))
