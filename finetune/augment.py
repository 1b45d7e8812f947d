"""Augmentation as a pure function of a waveform and a random generator."""

from __future__ import annotations

import numpy as np

from hf_distilhubert.audio import SAMPLING_RATE, Waveform

SPEED = (0.85, 1.15)  # pitch moves along, as with another speaker
GAIN = (-20.0, 6.0)  # dB
NOISE = (5.0, 40.0)  # signal-to-noise ratio in dB
SILENCE = 0.1  # seconds at most, before and after
LOW_PASS = (2, 4)  # samples of the moving average
LOW_PASS_SHARE = 0.3


def augment(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Another recording of the same words: `(time,)` in, `(other time,)` out.

    Speed, now and then a light low-pass, silence around, white noise and gain, in this order. The length is
    at least `1 / SPEED[1]` of what it was.
    """
    speed = generator.uniform(*SPEED)
    positions = np.arange(int(len(waveform) / speed)) * speed
    changed = np.interp(positions, np.arange(len(waveform)), waveform)
    if generator.random() < LOW_PASS_SHARE:
        width = int(generator.integers(LOW_PASS[0], LOW_PASS[1] + 1))
        changed = np.convolve(changed, np.full(width, 1 / width), mode="same")
    longest = int(SILENCE * SAMPLING_RATE)
    changed = np.pad(changed, tuple(generator.integers(0, longest + 1, size=2)))
    ratio = 10 ** (-generator.uniform(*NOISE) / 20)
    changed = changed + generator.standard_normal(len(changed)) * (changed.std() * ratio)
    return np.asarray(changed * 10 ** (generator.uniform(*GAIN) / 20), dtype=np.float32)
