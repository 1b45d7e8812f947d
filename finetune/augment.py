"""Augmentation as a pure function of a waveform and a random generator."""

from __future__ import annotations

import numpy as np

from hf_distilhubert.audio import SAMPLING_RATE, Waveform, resample

SPEED = (0.85, 1.15)  # pitch moves along, as with another speaker
GAIN = (-20.0, 6.0)  # dB
NOISE = (5.0, 40.0)  # signal-to-noise ratio in dB
SILENCE = 0.1  # seconds at most, before and after
EQUALISER = 5.0  # standard deviation in dB of the gain at each of its points
EQUALISER_POINTS = 10
GAPS = 2  # at most: stretches that are lost, in time and in frequency
LONGEST_GAP = 0.08  # of the clip, of the band


def augment(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Another recording of the same words: `(time,)` in, `(other time,)` out.

    Speed, another microphone, lost moments, silence around, white noise and gain, in this order. The length
    is at least `1 / SPEED[1]` of what it was.
    """
    # As if recorded at that many times the rate: what would come back as another frequency is filtered out.
    changed = resample(waveform, generator.uniform(*SPEED), 1.0)
    changed = _lose_moments(_other_microphone(changed, generator), generator)
    longest = int(SILENCE * SAMPLING_RATE)
    changed = np.pad(changed, tuple(generator.integers(0, longest + 1, size=2)))
    ratio = 10 ** (-generator.uniform(*NOISE) / 20)
    changed = changed + generator.standard_normal(len(changed)) * (changed.std() * ratio)
    return np.asarray(changed * 10 ** (generator.uniform(*GAIN) / 20), dtype=np.float32)


def _other_microphone(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """A random equaliser with a few bands missing: what SpecAugment's frequency masks do, on the waveform."""
    # Padded to 8 to 16 times a power of two: a length with large prime factors takes twenty times as long.
    block = 1 << max(len(waveform).bit_length() - 4, 0)
    size = -(-len(waveform) // block) * block
    spectrum = np.fft.rfft(waveform, size)
    # Evenly spaced on an axis that is fine at low frequencies, as hearing is.
    points = np.linspace(0, 1, EQUALISER_POINTS) ** 2
    band = np.linspace(0, 1, len(spectrum))
    decibels = np.interp(band, points, generator.normal(0, EQUALISER, EQUALISER_POINTS))
    for _ in range(generator.integers(GAPS + 1)):
        start = generator.uniform(0, 0.5)
        decibels[(band >= start) & (band < start + generator.uniform(0, LONGEST_GAP))] = -40
    return np.fft.irfft(spectrum * 10 ** (decibels / 20), size)[: len(waveform)].astype(np.float32)


def _lose_moments(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Short stretches of silence: SpecAugment's time masks, on the waveform."""
    for _ in range(generator.integers(GAPS + 1)):
        start = int(generator.uniform(0, len(waveform)))
        waveform[start : start + int(generator.uniform(0, LONGEST_GAP) * len(waveform))] = 0
    return waveform
