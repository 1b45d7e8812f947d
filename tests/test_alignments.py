"""Error rates are jiwer's, alignments hold both texts whole, and confusions are counted."""

from __future__ import annotations

import socket
from typing import Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.alignments import Confusion, align, error_counts, most_confused
from finetune.metrics import CER, WER, ErrorCounts, count_errors

WORDS = st.lists(st.sampled_from(["one", "two", "three", "oh"]), max_size=4).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5)


# ----- metrics --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_rates_equal_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [list(side) for side in zip(*pairs, strict=True)]
    counts = count_errors(references, predictions)
    if counts.total:
        assert counts.rate == jiwer.wer(references, predictions)
        characters = count_errors(references, predictions, characters=True)
        assert characters.rate == jiwer.cer(references, predictions)
    singles = [count_errors([r], [p]) for r, p in pairs]
    assert counts.errors == sum(single.errors for single in singles)
    assert counts.total == sum(single.total for single in singles) == sum(len(r.split()) for r in references)


def test_kinds_of_errors_are_told_apart() -> None:
    assert count_errors(["a b c", "d"], ["a x", "d e"]) == ErrorCounts(1, 1, 1, 4)
    assert count_errors(["ab"], ["b"], characters=True) == ErrorCounts(0, 1, 0, 2)


def test_where_nothing_was_said_silence_is_right_and_words_are_wrong() -> None:
    assert count_errors([""], [""]).rate == 0
    assert count_errors([""], ["a b"]) == ErrorCounts(0, 0, 2, 0)
    assert count_errors([""], ["a b"]).rate == 1
    assert count_errors(["a", ""], ["a", "b"]).rate == 1
    assert count_errors([], []).rate == 0


def test_metrics_are_evaluate_metrics_that_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    metric = WER()
    for _ in range(2):  # compute starts again
        metric.add_batch(predictions=["a x"], references=["a b"])
        metric.add_batch(predictions=["d e"], references=["d"])
        expected = {"wer": 2 / 3, "substitutions": 1, "deletions": 0, "insertions": 1, "total": 3}
        assert metric.compute() == expected
    assert CER().compute(predictions=["ax"], references=["ab"])["cer"] == 0.5


# ----- alignments -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.booleans())
def test_alignments_hold_both_texts_whole_and_add_up(pairs: list[tuple[str, str]], characters: bool) -> None:
    references, predictions = [list(side) for side in zip(*pairs, strict=True)]
    alignments = align(references, predictions, characters=characters)
    between = "" if characters else " "
    for steps, reference, prediction in zip(alignments, references, predictions, strict=True):
        assert between.join(step.reference for step in steps if step.reference) == reference
        assert between.join(step.hypothesis for step in steps if step.hypothesis) == prediction
        single = count_errors([reference], [prediction], characters=characters)
        assert error_counts(steps) == single
    whole = error_counts(step for steps in alignments for step in steps)
    assert whole == count_errors(references, predictions, characters=characters)


def test_steps_say_what_became_of_each_word() -> None:
    (steps,) = align(["one two three"], ["oh one too"])
    assert [(*step, step.kind) for step in steps] == [
        ("", "oh", "insertion"),
        ("one", "one", "equal"),
        ("two", "too", "substitution"),
        ("three", "", "deletion"),
    ]
    assert align([], []) == []


def test_the_most_frequent_errors_come_first_with_how_often_the_word_was_said() -> None:
    references = ["five", "five", "five", "nine", "two four", "one"]
    predictions = ["nine", "nine", "five", "five", "two", "one oh"]
    found = most_confused(align(references, predictions), most=20)
    assert found.substitutions == (Confusion("five", "nine", 2, 3), Confusion("nine", "five", 1, 1))
    assert found.deletions == (Confusion("four", "", 1, 1),)
    assert found.insertions == (Confusion("", "oh", 1, 0),)
    letters = most_confused(align(["a b", "a b"], ["ab", "a  c"], characters=True), most=1)
    assert letters.deletions == (Confusion(" ", "", 1, 2),)
    assert len(letters.substitutions) == 1


def test_errors_of_the_same_frequency_come_by_the_alphabet() -> None:
    found = most_confused(align(["b", "a", "c"], ["x", "y", "z"]), most=2)
    assert [item.reference for item in found.substitutions] == ["a", "b"]
