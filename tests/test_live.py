"""Live input ends in what the whole would have given."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import LARGE, save_recogniser

from hf_distilhubert import Transcriber
from hf_distilhubert.audio import resample


@pytest.fixture(scope="module")
def deaf(tmp_path_factory) -> Transcriber:
    """Hears no further than a quarter of a second: no attention, and nothing taken over the clip."""
    folder = tmp_path_factory.mktemp("model") / "recogniser"
    transcriber = Transcriber(save_recogniser(folder, num_hidden_layers=0, **LARGE))
    transcriber.processor.feature_extractor.do_normalize = False
    return transcriber


def cut(waveform: np.ndarray, seed: int) -> list[np.ndarray]:
    places = np.sort(np.random.default_rng(seed).integers(0, len(waveform), 40))
    return np.split(waveform, places)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_settled_is_what_the_whole_gives(deaf, rate):
    waveform = np.random.default_rng(0).standard_normal(6 * rate).astype(np.float32) * 0.1
    whole = deaf.transcribe_waveforms([resample(waveform, rate)])[0]
    partials = list(deaf.stream(cut(waveform, 1), rate, step=0.4, margin=0.5, context=0.5))
    *before, last = partials
    assert len(before) > 8
    assert (last.text, last.final) == (whole, True)
    assert all(whole.startswith(partial.settled) for partial in before)
    assert [partial.settled for partial in before] == sorted((p.settled for p in before), key=len)
    # Half a second is still open, which the text of each look shows already.
    assert all(len(p.text) > len(p.settled) for p in before[3:])
    assert last.end == pytest.approx(6, abs=0.03)


def test_a_pause_ends_an_utterance_and_silence_says_nothing(deaf):
    generator = np.random.default_rng(0)
    noise = [generator.standard_normal(24_000).astype(np.float32) * 0.1 for _ in range(2)]
    silence = np.zeros(48_000, np.float32)
    blank = deaf.model.config.pad_token_id

    def hear(waveforms, _batch_size):
        """A model that hears one letter in each sound, and nothing in silence."""
        for index, waveform in enumerate(waveforms):
            frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::320]
            rows = np.full((len(frames), 14), -9.0, np.float32)
            rows[np.arange(len(frames)), np.where(np.abs(frames).max(1) > 0.01, 5, blank)] = 0.0
            yield index, [rows]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deaf.acoustic, "clips", hear)
        sound = np.concatenate([silence, noise[0], silence, noise[1], silence])
        partials = list(deaf.stream(cut(sound, 2)))
    letter = deaf.processor.tokenizer.convert_ids_to_tokens(5)
    finals = [partial for partial in partials if partial.final]
    assert [partial.text for partial in finals] == [letter, letter]
    assert finals[0].end < 4.5 + 0.8 + 1.5 + 1.5  # pause, margin, and the step with its blocks
    assert finals[0].start > 1  # the silence before is no part of it
    assert finals[1].start < 7.5 < finals[1].end


def test_less_than_a_frame_says_nothing(deaf):
    assert list(deaf.stream([np.zeros(100, np.float32)])) == []
