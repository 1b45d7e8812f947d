"""A recording of any length is heard as one, in windows."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from conftest import LARGE, save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distilhubert import Transcriber, UserError
from hf_distilhubert.audio import AudioError, read_audio, read_blocks
from hf_distilhubert.long_audio import statistics, windows

# Without attention a frame depends on the second around it, so windows have to give what the whole gives.
DEAF = {"num_hidden_layers": 0}


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=6), st.integers(1, 4), st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_the_frames_of_all_windows_are_those_of_the_whole_once_each(lengths, margin, frames):
    margin, length = margin * 320, (2 * margin + frames) * 320
    whole = np.arange(sum(lengths), dtype=np.float32)
    blocks = np.split(whole, np.cumsum(lengths)[:-1])
    found = list(windows(blocks, length, margin))
    assert all(len(window.samples) == length for window in found[:-1])
    kept = [window.samples[window.start : window.end] for window in found]
    assert np.array_equal(np.concatenate(kept), whole)
    for window in found:
        assert len(window.samples) <= length
        assert window.start % 320 == 0
    for first, second in pairwise(found):
        assert first.end is not None
        assert len(second.samples) > 2 * margin
        assert first.samples[-1] == second.samples[2 * margin - 1]


@pytest.mark.parametrize("normalised", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("changes", [{}, LARGE], ids=["group-norm", "layer-norm"])
def test_windows_give_what_the_whole_gives_where_attention_does_not_reach(tmp_path, changes, normalised):
    folder = save_recogniser(tmp_path / "recogniser", **DEAF, **changes)
    generator = np.random.default_rng(0)
    # Loud and quiet stretches, on an offset: no window has the statistics of the whole.
    loudness = np.repeat(generator.uniform(0.001, 0.3, 20), 8_000)
    waveform = (generator.standard_normal(160_000) * loudness + 0.05).astype(np.float32)
    whole, cut = (Transcriber(folder, chunk_seconds=seconds) for seconds in (60, 3))
    for transcriber in (whole, cut):
        transcriber.processor.feature_extractor.do_normalize = normalised
    [(_, [expected])] = whole.acoustic.clips([waveform], 1)
    [(_, blocks)] = cut.acoustic.clips([waveform], 1)
    found = list(blocks)
    assert len(found) > 3
    assert np.concatenate(found).shape == expected.shape
    difference = np.linalg.norm(np.concatenate(found) - expected, axis=1)
    assert (difference / np.linalg.norm(expected, axis=1)).max() < 1e-4
    assert np.linalg.norm(difference) < 1e-5 * np.linalg.norm(expected)
    assert cut.transcribe_waveforms([waveform]) == whole.transcribe_waveforms([waveform])


def test_a_recording_shorter_than_a_window_is_one_clip(tmp_path):
    folder = save_recogniser(tmp_path / "recogniser")
    transcriber = Transcriber(folder, chunk_seconds=3)
    waveform = np.random.default_rng(0).standard_normal(transcriber.acoustic.window).astype(np.float32)
    [(_, [alone])] = Transcriber(folder).acoustic.clips([waveform], 1)
    [(_, [windowed])] = transcriber.acoustic.clips([waveform], 1)
    assert np.array_equal(alone, windowed)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_the_file(tmp_path, rate, channels):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate + 17, channels))
    soundfile.write(tmp_path / "clip.flac", samples, rate)
    blocks = list(read_blocks(tmp_path / "clip.flac", seconds=0.7))
    assert len(blocks) > 4
    assert np.array_equal(np.concatenate(blocks), read_audio(tmp_path / "clip.flac"))


def test_blocks_complain_of_what_the_file_is_refused_for(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    soundfile.write(tmp_path / "cancel.wav", np.stack([noise, -noise], 1), 16_000, subtype="FLOAT")
    bad = noise.copy()
    bad[39_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, 16_000, subtype="FLOAT")
    for name, problem in (("cancel", "cancel each other"), ("nan", "NaN")):
        with pytest.raises(AudioError, match=problem):
            list(read_blocks(tmp_path / f"{name}.wav", seconds=1))
    # A long file is found out before the first window, and the others go on.
    transcriber = Transcriber(save_recogniser(tmp_path / "recogniser"), chunk_seconds=1)
    soundfile.write(tmp_path / "good.wav", noise, 16_000)
    bad, good = transcriber.transcribe_files([tmp_path / "nan.wav", tmp_path / "good.wav"])
    assert isinstance(bad, AudioError)
    assert good.seconds == 2.5


def test_the_statistics_are_those_of_the_samples_under_the_kernel():
    waveform = np.random.default_rng(0).standard_normal(5_003).astype(np.float32) + 3
    whole = statistics(np.split(waveform, [3, 4, 1_000, 4_999]), 10, 5)
    rows = torch.from_numpy(waveform).double().unfold(0, 10, 5)
    assert whole.num_samples == 5_003
    np.testing.assert_allclose(whole.mean, waveform.mean(dtype=np.float64))
    np.testing.assert_allclose(whole.variance, waveform.var(dtype=np.float64))
    np.testing.assert_allclose(whole.frame_mean, rows.mean(0))
    np.testing.assert_allclose(whole.frame_covariance, np.cov(rows.T, bias=True), atol=1e-10)


def test_memory_does_not_grow_with_the_length(tmp_path):
    transcriber = Transcriber(save_recogniser(tmp_path / "recogniser", **DEAF), chunk_seconds=2)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    peaks = []
    for seconds in (40, 160):
        soundfile.write(tmp_path / f"{seconds}.wav", np.tile(noise, seconds), 16_000)
        tracemalloc.start()
        progress: list[float] = []
        transcriber.transcribe(tmp_path / f"{seconds}.wav", progress.append)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(progress) == pytest.approx(seconds, abs=0.1)
    # 120 seconds more of samples alone would be 7.7 MB.
    assert peaks[1] - peaks[0] < 3e6


def test_windows_that_hear_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="give 1 or more"):
        Transcriber(save_recogniser(tmp_path / "recogniser"), chunk_seconds=0.5)
