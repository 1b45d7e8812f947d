"""A clip gives the same text alone, in any batch, and through Transformers' own pipeline."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import COMMANDS, ENVIRONMENT, LARGE, ROOT, TINY, save_recogniser
from transformers import HubertConfig, HubertForCTC, pipeline

from hf_distilhubert import Transcriber, UserError
from hf_distilhubert.audio import AudioError, audio_info, read_audio
from hf_distilhubert.transcribe import main
from hf_distilhubert.transcripts import Character, Transcript, group_words

SPEECH = Path(os.environ.get("SPEECH_DIR", ROOT.parent / "shared" / "speech"))
LIST = SPEECH / "broken" / "manifest.csv"
# For parameters of a test, which are collected before any fixture; empty where the folder is missing.
BROKEN = list(csv.DictReader(LIST.open(encoding="utf-8"))) if LIST.is_file() else []


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
    files = [str(tmp_path / name) for name in ("bad.wav", "good.wav", "short.wav", "absent.wav")]
    arguments = ["-m", "hf_distilhubert", "transcribe", "--model", str(folder), *files]
    run = COMMANDS.ask(arguments=arguments, cwd=str(ROOT), env=ENVIRONMENT)
    assert run["status"] == 2
    assert "Traceback" not in run["err"]
    assert all(name in run["err"] for name in ("bad.wav", "short.wav", "absent.wav"))
    assert run["err"].strip().splitlines()[-1] == "error: 3 of 4 files could not be transcribed"
    text = Transcriber(folder).transcribe_waveforms([read_audio(tmp_path / "good.wav")])[0]
    assert run["out"] == f"{tmp_path / 'good.wav'}\t{text}\n"


@pytest.fixture(scope="module")
def small_recogniser(tmp_path_factory) -> Transcriber:
    return Transcriber(save_recogniser(tmp_path_factory.mktemp("model") / "recogniser"))


@pytest.mark.parametrize("clip", BROKEN, ids=lambda clip: clip["file_name"][-30:])
def test_every_broken_clip_meets_what_its_list_asks_for(clip, small_recogniser):
    path, asked = SPEECH / "broken" / clip["file_name"], clip["what_a_careful_program_does"]
    (found,) = small_recogniser.transcribe_files([path])
    refused = asked.startswith(("report the", "report (", "report;", "must not"))
    assert isinstance(found, AudioError if refused else Transcript), asked
    if refused:
        assert str(path) in str(found)
        assert "\n" not in str(found)
    else:
        assert found.seconds == audio_info(path).num_samples / 16_000
        assert all(0 < word.confidence <= 1 for word in found.words)


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


# ----- words, times, confidence ---------------------------------------------------------------------------


def test_words_have_the_frames_and_the_mean_confidence_of_their_characters():
    from hf_distilhubert.ctc import ctc_processor
    from hf_distilhubert.ctc_decoding import GreedyDecoder

    tokenizer = ctc_processor({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}, do_normalize=False).tokenizer
    frames = np.array([0, 3, 3, 0, 4, 2, 2, 0, 3, 0, 3])  # "ab aa"
    rows = np.full((len(frames), 5), 0.01, np.float32)
    rows[np.arange(len(frames)), frames] = [0.9, 0.5, 0.8, 0.9, 0.6, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9]
    decode = GreedyDecoder(tokenizer)
    whole = decode([np.log(rows)])
    assert whole.text == "ab aa"
    found = [(span.text, span.start, span.end, round(span.confidence, 3)) for span in whole.spans]
    assert found == [
        ("a", 1, 3, 0.8),
        ("b", 4, 5, 0.6),
        (" ", 5, 7, 0.9),
        ("a", 8, 9, 0.7),
        ("a", 10, 11, 0.9),
    ]
    characters = [Character(span.text, span.start, span.end, span.confidence) for span in whole.spans]
    words = [(word.text, word.start, word.end, round(word.confidence, 3)) for word in group_words(characters)]
    assert words == [("ab", 1, 5, 0.7), ("aa", 8, 11, 0.8)]
    # Wherever the blocks are cut, also through a run of one token.
    for cut in range(1, len(rows)):
        assert decode([np.log(rows[:cut]), np.log(rows[cut:])]) == whole


def test_the_words_are_those_of_the_text(recogniser, waveforms):
    transcriber = Transcriber(recogniser)
    for index, waveform in enumerate(waveforms):
        soundfile.write(recogniser / f"{index}.wav", waveform, 16_000, subtype="FLOAT")
    for transcript in transcriber.transcribe_files([recogniser / f"{index}.wav" for index in range(4)]):
        assert [word.text for word in transcript.words] == transcript.text.split()
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert not times or times[-1] <= transcript.seconds
        alone = transcriber.transcribe(transcript.audio)
        assert (alone.text, alone.seconds) == (transcript.text, transcript.seconds)
        for word, other in zip(transcript.words, alone.words, strict=True):
            assert (word.text, word.start, word.end) == (other.text, other.start, other.end)
            assert word.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_names_that_are_no_text_or_too_long_are_skipped_and_the_others_go_on(tmp_path, capsys):
    folder = tmp_path / "recordings"
    folder.mkdir()
    soundfile.write(folder / "good.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8_000), 16_000)
    (folder / "odd.wav").write_bytes((folder / "good.wav").read_bytes())
    (folder / "odd.wav").rename(os.fsdecode(os.fsencode(folder) + b"/odd\xff.wav"))
    with pytest.raises(UserError, match="2 of 3 files"):
        main(
            [
                "--model",
                str(save_recogniser(tmp_path / "recogniser", **LARGE)),
                str(folder),
                "x" * 300 + ".wav",
            ]
        )
    said = capsys.readouterr()
    assert str(folder / "good.wav") in said.out
    assert "cannot be decoded" in said.err
    assert "no name of a file" in said.err
