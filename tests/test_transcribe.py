"""A clip gives the same text alone, in any batch, and through Transformers' own pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import LARGE, ROOT, TINY, save_recogniser
from transformers import (
    HubertConfig,
    HubertForCTC,
    pipeline,
)

from hf_distilhubert import Transcriber, UserError
from hf_distilhubert.audio import AudioError, read_audio


@pytest.fixture(params=[{}, LARGE], ids=["group-norm", "layer-norm"])
def recogniser(request, tmp_path) -> Path:
    return save_recogniser(tmp_path / "recogniser", **request.param)


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        (generator.standard_normal(length) * 0.1).astype(np.float32)
        for length in (400, 9_000, 31_000, 17_500)
    ]


def test_a_clip_gives_the_same_text_alone_and_in_any_batch(recogniser, waveforms):
    transcriber = Transcriber(recogniser)
    alone = [transcriber.transcribe_waveforms([waveform])[0] for waveform in waveforms]
    assert len(set(alone)) > 1
    assert transcriber.transcribe_waveforms(waveforms) == alone
    assert transcriber.transcribe_waveforms(waveforms[::-1], batch_size=3) == alone[::-1]


def test_the_pipeline_gives_the_same_text(recogniser, waveforms):
    ours = Transcriber(recogniser).transcribe_waveforms(waveforms)
    recognise = pipeline("automatic-speech-recognition", model=str(recogniser))
    assert [recognise(waveform.copy())["text"] for waveform in waveforms] == ours


def test_real_speech_of_any_format_gives_the_same_text(recogniser, speech_dir):
    audio = speech_dir / "broken" / "audio"
    transcriber = Transcriber(recogniser)
    texts = {transcriber.transcribe(audio / name).text for name in ("flac_named.wav", "wav_named.flac")}
    assert len(texts) == 1


def test_the_command_names_bad_files_and_goes_on(tmp_path):
    folder = save_recogniser(tmp_path / "recogniser", **LARGE)
    soundfile.write(tmp_path / "good.wav", np.random.default_rng(0).uniform(-0.1, 0.1, (8_000, 2)), 8_000)
    (tmp_path / "bad.wav").write_text("not a sound")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "hf_distilhubert", "transcribe", "--model", str(folder)),
            *("--output", str(tmp_path / "texts.tsv")),
            *(str(tmp_path / name) for name in ("bad.wav", "good.wav", "short.wav", "absent.wav")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert all(name in run.stderr for name in ("bad.wav", "short.wav", "absent.wav"))
    assert run.stderr.strip().splitlines()[-1] == "error: 3 of 4 files could not be transcribed"
    text = Transcriber(folder).transcribe_waveforms([read_audio(tmp_path / "good.wav")])[0]
    assert run.stdout == f"{tmp_path / 'good.wav'}\t{text}\n"
    assert (tmp_path / "texts.tsv").read_text() == run.stdout


def test_a_folder_without_a_fitting_recogniser_is_refused(tmp_path, tiny_teacher):
    with pytest.raises(UserError, match="there is no folder"):
        Transcriber(tmp_path / "absent")
    with pytest.raises(UserError, match="holds a HubertModel, no recogniser"):
        Transcriber(tiny_teacher)
    folder = save_recogniser(tmp_path / "recogniser")
    HubertForCTC(HubertConfig(num_hidden_layers=2, vocab_size=99, **TINY)).save_pretrained(folder)
    with pytest.raises(UserError, match="14 tokens, 99 outputs"):
        Transcriber(folder)


def test_a_clip_shorter_than_a_frame_is_refused(recogniser):
    with pytest.raises(AudioError, match="399 samples"):
        Transcriber(recogniser).transcribe_waveforms([np.zeros(399, np.float32)])
