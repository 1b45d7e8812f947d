"""Beam search finds what trying everything finds; language models and hot words move it."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.language_model import estimate
from hf_distilhubert.beam_search import BeamSearch, BeamSettings
from hf_distilhubert.language_model import BEGIN, END

TOKENS = ["", "a", "b", " "]  # the blank first
EVERYTHING = {"width": 10_000, "threshold": math.inf}


def collapse(path: tuple[int, ...]) -> str:
    """What an alignment writes: repeats and blanks go, spaces stand between words only."""
    written = "".join(TOKENS[token] for token, _ in itertools.groupby(path))
    return " ".join(written.split())


def by_trying_everything(frames: np.ndarray) -> dict[str, float]:
    """The probability of every text, over all alignments."""
    found: dict[str, float] = defaultdict(float)
    for path in itertools.product(range(len(TOKENS)), repeat=len(frames)):
        found[collapse(path)] += math.exp(
            sum(frame[token] for frame, token in zip(frames, path, strict=True))
        )
    return found


def random_frames(seed: int, count: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (count, len(TOKENS)))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_without_a_language_model_the_most_probable_text_is_found(seed, count):
    frames = random_frames(seed, count)
    texts = by_trying_everything(frames)
    found = BeamSearch(TOKENS, 0, BeamSettings(**EVERYTHING))(frames)
    best = max(texts.values())
    # A text with a space behind it and one without are one text, and two beams.
    assert math.exp(found.score) <= best * (1 + 1e-9)
    assert texts[found.text] == pytest.approx(best, rel=0.5)
    assert len(found.frames) == len(found.text)
    assert list(found.frames) == sorted(found.frames)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_scores_are_those_of_sound_words_and_bonuses(seed, count):
    frames = random_frames(seed, count)
    frames[:, 3] = -np.inf  # one word only, so that no space stands behind it
    model = estimate([["a"], ["a", "b"], ["ab", "a"]], 2)
    chosen = BeamSettings(language_model=model, weight=0.7, bonus=0.3, unknown_penalty=-2.0, **EVERYTHING)
    expected = {}
    for text, probability in by_trying_everything(frames).items():
        if probability == 0:
            continue
        words = [BEGIN, *text.split(), END]
        score = math.log(probability)
        for place in range(1, len(words)):
            score += 0.7 * model.score(tuple(words[:place]), words[place])
        score += sum(0.3 if word in model.words else 0.3 - 2.0 for word in words[1:-1])
        expected[text] = score
    found = BeamSearch(TOKENS, 0, chosen)(frames)
    assert found.score == pytest.approx(max(expected.values()))
    assert expected[found.text] == pytest.approx(found.score)


def spoken(text: str, sure: float = 0.9, tokens: str = "_abcdeghiortw ") -> tuple[list[str], np.ndarray]:
    """Frames in which a text is likely, each letter twice and a blank after it."""
    outputs = ["", *tokens[1:]]
    path = [token for character in text for token in (outputs.index(character),) * 2 + (0,)]
    frames = np.full((len(path), len(outputs)), (1 - sure) / (len(outputs) - 1))
    frames[np.arange(len(path)), path] = sure
    return outputs, np.log(frames)


def test_what_is_clear_is_read_with_any_width_and_knows_its_frames():
    outputs, frames = spoken("a badge")
    for width in (1, 8, 64):
        found = BeamSearch(outputs, 0, BeamSettings(width=width))(frames)
        assert found.text == "a badge"
        assert found.frames == tuple(range(0, 21, 3))


def confuse(outputs: list[str], frames: np.ndarray, place: int, second: str) -> None:
    """Make another letter slightly more likely where one is spoken."""
    rows = slice(3 * place, 3 * place + 2)
    true = int(frames[rows.start].argmax())
    frames[rows, outputs.index(second)] = np.log(0.5)
    frames[rows, true] = np.log(0.4)


@pytest.mark.parametrize("characters", [False, True])
def test_a_language_model_corrects_a_letter(characters):
    outputs, frames = spoken("ted cat")
    confuse(outputs, frames, 4, "g")
    assert BeamSearch(outputs, 0, BeamSettings())(frames).text == "ted gat"
    text = ["ted cat", "cat ted", "a cat"]
    words = [list(line.replace(" ", "|")) if characters else line.split() for line in text]
    model = estimate(words, 4 if characters else 2, of_characters=characters)
    assert BeamSearch(outputs, 0, BeamSettings(language_model=model))(frames).text == "ted cat"


@pytest.mark.parametrize("hot", ["cat", "ted cat"])
def test_a_hot_word_or_phrase_is_preferred_and_others_stay(hot):
    outputs, frames = spoken("ted cat a")
    confuse(outputs, frames, 4, "g")
    search = BeamSearch(outputs, 0, BeamSettings(hot_words={hot: 3.0, "wood": 3.0}))
    assert search(frames).text == "ted cat a"


def test_a_word_that_the_model_does_not_know_is_written_where_it_is_clear():
    outputs, frames = spoken("badge", sure=0.999)
    model = estimate([["cat"], ["dog"]], 2)
    assert BeamSearch(outputs, 0, BeamSettings(language_model=model))(frames).text == "badge"


def test_an_empty_clip_has_no_text():
    assert BeamSearch(TOKENS, 0, BeamSettings())(np.zeros((0, 4))).text == ""
    silence = np.log(np.tile([0.97, 0.01, 0.01, 0.01], (5, 1)))
    assert BeamSearch(TOKENS, 0, BeamSettings())(silence).text == ""
