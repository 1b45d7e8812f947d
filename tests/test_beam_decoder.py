"""Beam search behind `Transcriber`: texts, frames and confidence as greedy decoding has them, and better."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import save_recogniser
from transformers import AutoTokenizer

from finetune.language_model import estimate
from hf_distilhubert.beam_decoder import BeamDecoder, beam_decoder
from hf_distilhubert.beam_flags import add_beam_flags, take_decoder
from hf_distilhubert.beam_search import BeamSettings
from hf_distilhubert.ctc_decoding import GreedyDecoder
from hf_distilhubert.errors import UserError
from hf_distilhubert.language_model import write_language_model
from hf_distilhubert.transcriber import Transcriber


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    return save_recogniser(tmp_path / "recogniser")


@pytest.fixture
def tokenizer(recogniser: Path):
    return AutoTokenizer.from_pretrained(recogniser)


def said(tokenizer, text: str, doubt: float = 0.02) -> np.ndarray:
    """Each character in two frames, and a blank."""
    ids = [tokenizer.convert_tokens_to_ids("|" if character == " " else character) for character in text]
    path = [token for number in ids for token in (number, number, tokenizer.pad_token_id)]
    frames = np.full((len(path), len(tokenizer)), doubt / (len(tokenizer) - 1))
    frames[np.arange(len(path)), path] = 1 - doubt
    return np.log(frames).astype(np.float32)


def test_clear_speech_has_the_text_the_frames_and_the_confidence_of_greedy_decoding(tokenizer):
    frames = said(tokenizer, "two three")
    greedy, searched = (
        decoder([frames[:7], frames[7:]]) for decoder in (GreedyDecoder(tokenizer), beam_decoder()(tokenizer))
    )
    assert searched.text == greedy.text == "two three"
    assert [span.text for span in searched.spans] == list("two three")
    for ours, theirs in zip(searched.spans, greedy.spans, strict=True):
        assert (ours.text, ours.start, ours.end) == (theirs.text, theirs.start, theirs.end)
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-3)


def test_a_file_with_words_and_hot_words_decide_where_the_sound_does_not(tokenizer, tmp_path: Path):
    frames = said(tokenizer, "two")
    frames[6:8] = np.log(1e-3)
    for letter, share in (("o", 0.3), ("e", 0.4)):
        frames[6:8, tokenizer.convert_tokens_to_ids(letter)] = np.log(share)
    write_language_model(estimate([["two"], ["three"]], 2), tmp_path / "words.arpa")
    assert beam_decoder()(tokenizer)([frames]).text == "twe"
    assert beam_decoder(language_model=tmp_path / "words.arpa")(tokenizer)([frames]).text == "two"
    assert beam_decoder(hot_words=["two"])(tokenizer)([frames]).text == "two"
    assert beam_decoder(hot_words=["two:0.01"])(tokenizer)([frames]).text == "twe"
    with pytest.raises(UserError, match="is no number; give WORD or WORD:5"):
        beam_decoder(hot_words=["two:very"])


def test_clips_are_transcribed_with_times(recogniser: Path, spoken: Path):
    transcriber = Transcriber(recogniser, decoder=beam_decoder(width=16))
    transcript = transcriber.transcribe(spoken / "test" / "0.flac")
    assert transcript.text == " ".join(word.text for word in transcript.words)
    assert all(0 <= word.start < word.end <= transcript.seconds for word in transcript.words)
    assert transcriber.transcribe_waveforms([]) == []


def test_silence_has_no_text(tokenizer):
    frames = np.log(np.full((5, len(tokenizer)), 1e-3, np.float32))
    frames[:, tokenizer.pad_token_id] = np.log(0.98)
    assert beam_decoder()(tokenizer)([frames]).spans == ()
    assert beam_decoder()(tokenizer)([]).text == ""


def test_a_score_sets_beam_search_against_greedy_decoding(recogniser: Path, spoken: Path, tmp_path: Path):
    from finetune.language_model import build
    from finetune.score import score

    model = build(str(spoken), tmp_path / "words.arpa", model=str(recogniser), order=2)
    decoder = beam_decoder(language_model=model.path, width=16)
    result = score(str(recogniser), str(spoken), output_dir=tmp_path / "score", decoder=decoder)
    greedy = score(str(recogniser), str(spoken), output_dir=tmp_path / "greedy")
    assert (result.against.model, result.against.other_wer) == ("greedy decoding", greedy.wer)
    assert json.loads((tmp_path / "score" / "results.json").read_text())["decoding"] == "beam search"
    assert greedy.against is None


def test_flags_turn_beam_search_on(tokenizer, tmp_path: Path):
    parser = argparse.ArgumentParser()
    add_beam_flags(parser)

    def taken(*words: str):
        arguments = vars(parser.parse_args(words)) | {"other": 1}
        decoder = take_decoder(arguments)
        assert arguments == {"other": 1}
        return decoder

    assert taken() is None
    frames = said(tokenizer, "one")
    for words in (["--hot_words", "one:2", "two"], ["--beam_width", "4"]):
        assert taken(*words)(tokenizer)([frames]).text == "one"
    with pytest.raises(UserError, match="--beam_width 0; give a number from 1"):
        taken("--beam_width", "0")
    with pytest.raises(UserError, match="--word_bonus is about words that a --language_model knows"):
        taken("--word_bonus", "3")
    with pytest.raises(UserError, match="--language_weight nan; give a number"):
        taken("--language_weight", "nan")
    for word in (":5", "one:inf"):
        with pytest.raises(UserError, match="is no hot word"):
            taken("--hot_words", word)
    with pytest.raises(UserError, match="cannot read the language model"):
        taken("--language_model", str(tmp_path / "absent.arpa"))


def test_words_in_other_letters_than_the_recognisers_are_refused(tokenizer):
    with pytest.raises(
        UserError, match="the hot word 'One' cannot be written; this recogniser writes efhnorstuvw"
    ):
        beam_decoder(hot_words=["One"])(tokenizer)
    model = estimate([["ONE"], ["TWO"]], 2)
    with pytest.raises(UserError, match="no word of the language model can be written"):
        BeamDecoder(tokenizer, BeamSettings(language_model=model))
