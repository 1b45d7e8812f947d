"""The sound that a benchmark runs on: clips of given lengths, a mixed batch, and others to calibrate with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_distilhubert.audio import SAMPLING_RATE, Waveform, normalise
from hf_distilhubert.errors import UserError
from hf_distilhubert.provenance import short_name

MIXED_CLIPS, MIXED_SECONDS = 64, (0.5, 15.0)
CALIBRATION_CLIPS = 16


@dataclass(frozen=True)
class BenchmarkSpeech:
    """Sound at 16 kHz.

    Attributes:
        name: what it is, for people.
        clips: one for each length that was asked for.
        mixed: a batch of clips of many lengths.
        calibration: other recordings, for the ranges of int8.
    """

    name: str
    clips: dict[float, Waveform]
    mixed: list[Waveform]
    calibration: list[Waveform]

    @property
    def longest(self) -> Waveform:
        """The longest single clip."""
        return self.clips[max(self.clips)]

    def normalised(self) -> BenchmarkSpeech:
        """The same, each clip of zero mean and unit variance."""
        return BenchmarkSpeech(
            self.name,
            {seconds: normalise(clip) for seconds, clip in self.clips.items()},
            [normalise(clip) for clip in self.mixed],
            [normalise(clip) for clip in self.calibration],
        )


def benchmark_speech(
    data: str | Path | None, lengths: list[float], mixed_clips: int = MIXED_CLIPS, seed: int = 0
) -> BenchmarkSpeech:
    """Cut clips out of recordings, which are joined in random order, or out of noise.

    Args:
        data: folder, manifest or `hub:NAME[:CONFIG][:SPLIT]`; None for noise.
        lengths: in seconds.
        mixed_clips: how many are in the batch; their lengths are spread evenly over `MIXED_SECONDS`.
        seed: of the order, the lengths and the noise.

    Raises:
        UserError: there are no two clips in `data`.
    """
    generator = np.random.default_rng(seed)
    calibration, sound = _recordings(data, generator) if data is not None else _noise(generator)
    mixed = generator.uniform(*MIXED_SECONDS, mixed_clips)
    return BenchmarkSpeech(
        "noise" if data is None else f"real speech ({short_name(data)})",
        {seconds: _cut(sound, seconds) for seconds in lengths},
        [_cut(sound, seconds) for seconds in mixed],
        calibration,
    )


class _Sound:
    """Recordings one behind the other, from the first again once they are over."""

    def __init__(self, recordings: Iterator[Waveform]) -> None:
        self.recordings, self.rest = recordings, np.empty(0, dtype=np.float32)

    def take(self, samples: int) -> Waveform:
        parts = [self.rest]
        while sum(map(len, parts)) < samples:
            parts.append(next(self.recordings))
        sound = np.concatenate(parts)
        self.rest = sound[samples:]
        return np.ascontiguousarray(sound[:samples])


def _cut(sound: _Sound, seconds: float) -> Waveform:
    return sound.take(round(seconds * SAMPLING_RATE))


def _recordings(data: str | Path, generator: np.random.Generator) -> tuple[list[Waveform], _Sound]:
    from hf_distilhubert.speech_data import load_clips

    clips = load_clips(data, "all").clips
    if len(clips) < 2:
        raise UserError(f"{data} has one clip; give two or more, so that int8 is measured on others")
    order = [clips[index] for index in generator.permutation(len(clips))]
    apart = min(CALIBRATION_CLIPS, len(order) // 2)

    def endless() -> Iterator[Waveform]:
        while True:
            yield from (clip.read() for clip in order[apart:])

    return [clip.read() for clip in order[:apart]], _Sound(endless())


def _noise(generator: np.random.Generator) -> tuple[list[Waveform], _Sound]:
    def endless() -> Iterator[Waveform]:
        while True:
            yield (0.1 * generator.standard_normal(SAMPLING_RATE)).astype(np.float32)

    seconds = endless()
    return [next(seconds) for _ in range(CALIBRATION_CLIPS)], _Sound(seconds)
