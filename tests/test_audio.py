"""Sound becomes the same array whatever file it comes in, and damaged files are named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from hf_distilhubert.audio import (
    MIN_SAMPLES,
    SAMPLING_RATE,
    AudioError,
    audio_info,
    crop,
    normalise,
    num_frames,
    pad,
    read_audio,
)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channel_count_becomes_16_khz_mono(tmp_path, rate, channels):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone] * channels, axis=1), rate, subtype="FLOAT")
    waveform = read_audio(tmp_path / "tone.wav")
    assert waveform.dtype == np.float32
    assert len(waveform) == audio_info(tmp_path / "tone.wav").num_samples == SAMPLING_RATE
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLING_RATE) / SAMPLING_RATE)
    middle = slice(2_000, -2_000)  # resampling filters ring at the ends
    assert np.abs(waveform - expected)[middle].max() < 1e-3


def test_bytes_and_path_give_the_same_sound(tmp_path):
    soundfile.write(tmp_path / "noise.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 5_000), 16_000)
    from_bytes = read_audio((tmp_path / "noise.flac").read_bytes())
    assert np.array_equal(from_bytes, read_audio(tmp_path / "noise.flac"))


def test_broken_recordings_are_named_or_read_and_never_crash(speech_dir):
    folder = speech_dir / "broken"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outcomes = {}
    for row in rows:
        try:
            outcomes[row["file_name"]] = read_audio(folder / row["file_name"])
        except AudioError as error:
            outcomes[row["file_name"]] = error
    for row in rows:
        outcome = outcomes[row["file_name"]]
        asked = row["what_a_careful_program_does"]
        if asked.startswith("read, mix down"):
            assert isinstance(outcome, np.ndarray) or "report" in asked, row["file_name"]
        elif asked.startswith("report the file by name") and isinstance(outcome, np.ndarray):
            assert len(outcome) < MIN_SAMPLES or "use what decodes" in asked, row["file_name"]
        if isinstance(outcome, np.ndarray):
            assert np.isfinite(outcome).all(), row["file_name"]
        else:
            assert "\n" not in str(outcome)


@given(st.integers(1, 60_000))
def test_frame_count_is_that_of_the_front_end(samples):
    config = HubertConfig()
    lengths = HubertModel._get_feat_extract_output_lengths(_Shape(config), samples)
    assert num_frames(samples, config.conv_kernel, config.conv_stride) == max(int(lengths), 0)


class _Shape:
    """The part of a model that Transformers' frame arithmetic looks at."""

    def __init__(self, config):
        self.config = config


@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=5), st.sampled_from([1, 320, 3_200]))
def test_padding_keeps_every_sample_and_marks_the_rest(lengths, multiple):
    waveforms = [np.full(length, row + 1, np.float32) for row, length in enumerate(lengths)]
    values, mask = pad(waveforms, multiple=multiple)
    assert values.shape == mask.shape
    assert values.shape[1] % multiple == 0
    assert values.shape[1] >= MIN_SAMPLES
    assert mask.sum(axis=1).tolist() == lengths
    for row, waveform in enumerate(waveforms):
        assert np.array_equal(values[row, : len(waveform)], waveform)
    assert not values[mask == 0].any()


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
def test_a_crop_is_a_stretch_of_the_clip_and_repeats_with_its_seed(length, max_samples, seed):
    waveform = np.arange(length, dtype=np.float32)
    first, second = (crop(waveform, max_samples, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(first) == min(length, max_samples)
    assert np.array_equal(first, waveform[int(first[0]) : int(first[0]) + len(first)])


def test_normalisation_is_that_of_the_feature_extractor():
    waveform = np.random.default_rng(0).uniform(-0.3, 0.5, 4_000).astype(np.float32)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    expected = extractor(waveform, sampling_rate=16_000, return_tensors="np").input_values[0]
    assert np.abs(normalise(waveform) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("text.wav", b"not a sound", "cannot be decoded"), ("empty.flac", b"", "cannot be decoded")],
)
def test_what_is_not_audio_is_said_in_one_line(tmp_path: Path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=said) as caught:
        read_audio(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="a folder"):
        read_audio(tmp_path)
