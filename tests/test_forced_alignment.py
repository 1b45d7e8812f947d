"""A text is aligned along the most probable path that reads it: checked against trying every path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from conftest import LARGE, save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertForCTC

from hf_distilhubert import Transcriber, UserError
from hf_distilhubert.ctc import ctc_processor
from hf_distilhubert.forced_alignment import align_labels, spell
from hf_distilhubert.text_rules import TextRules

TOKENS = 3  # the blank and two labels


def collapse(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != 0]


def random_frames(seed: int, count: int, tokens: int = TOKENS) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (count, tokens))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def path_of(spans, labels: list[int], count: int) -> list[int]:
    path = [0] * count
    for span, label in zip(spans, labels, strict=True):
        path[span.start : span.end] = [label] * (span.end - span.start)
    return path


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 7), st.lists(st.integers(1, TOKENS - 1), min_size=1, max_size=4))
def test_the_path_is_the_best_of_all_that_read_the_text(seed, count, labels):
    frames = random_frames(seed, count)
    scores = {
        path: sum(row[token] for row, token in zip(frames, path, strict=True))
        for path in itertools.product(range(TOKENS), repeat=count)
        if collapse(path) == labels
    }
    if not scores:
        with pytest.raises(UserError, match="frames and the audio has"):
            align_labels(frames, labels, 0)
        return
    spans = align_labels(frames, labels, 0)
    path = path_of(spans, labels, count)
    assert collapse(tuple(path)) == labels
    assert scores[tuple(path)] == pytest.approx(max(scores.values()), abs=1e-4)
    for span, label in zip(spans, labels, strict=True):
        assert span.confidence == pytest.approx(np.exp(frames[span.start : span.end, label].max()))


def test_a_long_text_is_aligned_where_it_was_said():
    # 10,000 frames and 2,000 labels: the path is put together from stretches.
    generator = np.random.default_rng(0)
    labels = generator.integers(1, 10, 2_000).tolist()
    said = np.zeros(10_000, np.int64)
    places = 5 * np.arange(2_000) + generator.integers(0, 3, 2_000)
    said[places] = said[places + 1] = labels
    frames = np.full((10_000, 10), np.log(0.01), np.float32)
    frames[np.arange(10_000), said] = np.log(0.91)
    spans = align_labels(frames, labels, 0)
    assert [span.start for span in spans] == places.tolist()
    assert [span.end for span in spans] == (places + 2).tolist()


def test_labels_of_probability_nought_are_aligned_too():
    frames = np.full((4, 3), -np.inf, np.float32)
    frames[:, 0] = 0.0
    (span,) = align_labels(frames, [1], 0)
    assert span.end == span.start + 1
    assert span.confidence == 0.0


def test_words_are_spelled_by_the_rules_of_the_model():
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "|", *"aeht"])}
    tokenizer = ctc_processor(vocabulary, do_normalize=False).tokenizer
    letters = tokenizer.convert_ids_to_tokens
    spelled = spell("The  'hat', hé!", tokenizer, TextRules())
    assert ["".join(letters(ids)) for ids in spelled] == ["the", "hat", "h"]
    with pytest.raises(UserError, match="no character of '1984' is in the vocabulary"):
        spell("the 1984", tokenizer, TextRules())
    with pytest.raises(UserError, match="no word"):
        spell(" \n", tokenizer, TextRules())


def test_what_was_recognised_is_aligned_at_the_same_frames(tmp_path):
    # The best path of all is also the best of those that read its text.
    folder = save_recogniser(tmp_path / "recogniser", **LARGE)
    model = HubertForCTC.from_pretrained(folder)
    model.lm_head.bias.data[1] = -1e4  # never <unk>, which no text can be spelled with
    model.save_pretrained(folder)
    transcriber = Transcriber(folder, chunk_seconds=2)
    for seconds in (1, 7):  # one window, and several
        samples = np.random.default_rng(seconds).standard_normal(seconds * 16_000) * 0.1
        soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
        heard = transcriber.transcribe(tmp_path / "clip.wav")
        text = " ".join(heard.text.split())
        aligned = transcriber.align(tmp_path / "clip.wav", text)
        assert (aligned.text, aligned.seconds) == (text, seconds)
        assert len(heard.words) > 1
        assert [(w.text, w.start, w.end) for w in aligned.words] == [
            (w.text, w.start, w.end) for w in heard.words
        ]
        for word, other in zip(aligned.words, heard.words, strict=True):
            assert word.confidence == pytest.approx(other.confidence, abs=1e-5)
