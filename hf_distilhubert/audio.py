"""The one place where sound becomes arrays: read, resample, normalise, crop, pad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_distilhubert.errors import UserError, one_line

SAMPLING_RATE = 16_000
MIN_SAMPLES = 400  # the receptive field of the HuBERT family's front end: one frame
RATES = (
    4_000,
    384_000,
)  # what recordings have; a header beyond is broken, and resampling it could fill memory

Waveform = npt.NDArray[np.float32]
Source = str | Path | bytes


class AudioError(UserError):
    """A file that gives no usable sound."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        num_samples: length in samples once it is at 16 kHz.
        sampling_rate: the file's own, in Hz.
        channels: the file's own.
    """

    num_samples: int
    sampling_rate: int
    channels: int


def audio_info(source: Source) -> AudioInfo:
    """Read a header, not the sound.

    Raises:
        AudioError: not audio, no samples, or an absurd sampling rate.
    """
    import soundfile

    try:
        info = soundfile.info(_file(source))
    except (RuntimeError, OSError, TypeError, UnicodeError) as error:
        raise AudioError(_unreadable(source, error)) from error
    if not RATES[0] <= info.samplerate <= RATES[1]:
        raise AudioError(
            f"{_name(source)}: sampling rate {info.samplerate} Hz; {RATES[0]} to {RATES[1]} is allowed"
        )
    if info.frames <= 0:
        raise AudioError(f"{_name(source)}: no samples in it")
    return AudioInfo(round(info.frames * SAMPLING_RATE / info.samplerate), info.samplerate, info.channels)


def read_audio(source: Source) -> Waveform:
    """Decode anything that libsndfile reads (WAV, FLAC, Ogg, Opus, MP3) into `(time,)` mono, 16 kHz.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        AudioError: not audio, cut off, not finite, too short for a frame, or channels that cancel.
    """
    import soundfile

    audio_info(source)
    try:
        channels, rate = soundfile.read(_file(source), dtype="float32", always_2d=True)
    except (RuntimeError, OSError, UnicodeError) as error:
        raise AudioError(_unreadable(source, error)) from error
    _check_finite(channels, source)
    waveform = resample(_mix(channels, source), rate)
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(f"{_name(source)}: {too_short(len(waveform))}")
    return waveform


def _check_finite(channels: Waveform, source: Source) -> None:
    if not np.isfinite(channels).all():
        raise AudioError(f"{_name(source)}: holds NaN or infinite samples; mend or remove it")


def too_short(num_samples: int) -> str:
    """What to say of a clip without a single frame."""
    return f"{num_samples} samples at 16 kHz are too short; a frame needs {MIN_SAMPLES}"


def _mix(channels: Waveform, source: Source) -> Waveform:
    """Average `(time, channel)`; silence out of loud channels (opposite phase) is an error, not a result."""
    mono: Waveform = channels.mean(axis=1)
    _check_channels(np.square(mono).mean(), np.square(channels).mean(axis=0), source)
    return mono


def _check_channels(mono: Any, channels: Any, source: Source) -> None:
    """Compare the power of the mixture with that of each channel."""
    if mono < 1e-6 * channels.max(initial=0.0):
        raise AudioError(f"{_name(source)}: its channels cancel each other; give one channel")


def feature_extractor(*, do_normalize: bool = False) -> Any:
    """A stock `Wav2Vec2FeatureExtractor` that says how a student hears: 16 kHz, and padding is masked.

    Args:
        do_normalize: whether waveforms are brought to zero mean and unit variance; S3PRL's students are not.
    """
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, do_normalize=do_normalize, return_attention_mask=True
    )


def resample(
    waveform: npt.NDArray[np.floating[Any]], rate: float, sampling_rate: float = SAMPLING_RATE
) -> Waveform:
    """Bring `(time,)` from `rate` to `sampling_rate` (both in Hz) with soxr."""
    if rate == sampling_rate:
        return waveform.astype(np.float32, copy=False)
    import soxr

    return np.asarray(soxr.resample(waveform, rate, sampling_rate), dtype=np.float32)


def normalise(waveform: Waveform) -> Waveform:
    """Zero mean and unit variance, as `Wav2Vec2FeatureExtractor(do_normalize=True)` does."""
    centred = waveform - waveform.mean()
    return np.asarray(centred / np.sqrt(waveform.var() + 1e-7), dtype=np.float32)


def crop(waveform: Waveform, max_samples: int, generator: np.random.Generator) -> Waveform:
    """A random stretch of at most `max_samples` samples."""
    start = crop_start(len(waveform), max_samples, generator)
    return waveform[start : start + max_samples]


def crop_start(num_samples: int, max_samples: int, generator: np.random.Generator, *, step: int = 1) -> int:
    """Where a random stretch of at most `max_samples` samples begins: at a multiple of `step`."""
    surplus = num_samples - max_samples
    return 0 if surplus <= 0 else step * int(generator.integers(surplus // step + 1))


def pad(
    waveforms: Sequence[Waveform], *, multiple: int = 1, min_samples: int = MIN_SAMPLES
) -> tuple[Waveform, npt.NDArray[np.int64]]:
    """Stack waveforms of unequal length.

    Args:
        waveforms: `(time,)` each.
        multiple: round the length up to a multiple of this; few different shapes are faster on CPUs.
        min_samples: pad to at least this, so that there is one frame.

    Returns:
        `input_values` and `attention_mask` (1 for samples, 0 for padding), both `(batch, time)`.
    """
    longest = max(min_samples, *(len(waveform) for waveform in waveforms))
    shape = (len(waveforms), -(-longest // multiple) * multiple)
    values, mask = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    for row, waveform in enumerate(waveforms):
        values[row, : len(waveform)] = waveform
        mask[row, : len(waveform)] = 1
    return values, mask


def num_frames(num_samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Frames that a front end of unpadded convolutions makes of `num_samples` samples."""
    for kernel, stride in zip(kernels, strides, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return max(num_samples, 0)


def _file(source: Source) -> str | BytesIO:
    return BytesIO(source) if isinstance(source, bytes) else str(source)


def _name(source: Source) -> str:
    return "audio in memory" if isinstance(source, bytes) else str(source)


def _unreadable(source: Source, error: Exception) -> str:
    if not isinstance(source, bytes):
        try:
            if not Path(source).exists():
                return f"{source}: there is no such file"
            if Path(source).is_dir():
                return f"{source}: a folder, not an audio file"
        except (OSError, ValueError) as impossible:
            return f"{str(source)[:100]}: no name of a file ({getattr(impossible, 'strerror', impossible)})"
    reason = one_line(getattr(error, "error_string", error))
    return f"{_name(source)}: cannot be decoded ({reason}); give WAV, FLAC, Ogg, Opus or MP3"


# ----- recordings of any length ---------------------------------------------------------------------------


def read_blocks(source: Source, seconds: float = 10.0) -> Iterator[Waveform]:
    """What `read_audio` gives, a block of some seconds at a time: memory does not grow with the length.

    Raises:
        AudioError: as `read_audio`, but for the length; on the way, or after the last block (channels that
            cancel).
    """
    import soundfile

    info = audio_info(source)
    mono_energy, energies = 0.0, np.zeros(info.channels)
    resample_block = resampler(info.sampling_rate)
    try:
        with soundfile.SoundFile(_file(source)) as file:
            for channels in file.blocks(round(seconds * info.sampling_rate), dtype="float32", always_2d=True):
                _check_finite(channels, source)
                mono = channels.mean(axis=1)
                mono_energy += float(np.square(mono).sum(dtype=np.float64))
                energies += np.square(channels).sum(axis=0, dtype=np.float64)
                yield resample_block(mono, False)
    except (RuntimeError, OSError, UnicodeError) as error:
        raise AudioError(_unreadable(source, error)) from error
    yield resample_block(np.zeros(0, np.float32), True)
    _check_channels(mono_energy, energies, source)


def resampler(rate: int) -> Callable[[Waveform, bool], Waveform]:
    """A function that brings one block after the other to 16 kHz; its second argument is for the last."""
    if rate == SAMPLING_RATE:
        return lambda waveform, _last: waveform
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
    return lambda waveform, last: np.asarray(stream.resample_chunk(waveform, last=last), np.float32)
