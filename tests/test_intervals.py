"""Intervals and the paired test against cases that can be worked out by hand or by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.intervals import Units, paired_p_value, rate_interval

COUNTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=12)
DIFFERENCES = st.lists(st.integers(-4, 4), min_size=1, max_size=9)


def alone(count: int) -> Units:
    """Units of one utterance each."""
    return Units.of([""] * count)


# ----- bootstrap ------------------------------------------------------------------------------------------


def test_the_interval_of_single_words_is_that_of_the_binomial_distribution() -> None:
    number, wrong = 100, 20
    share = wrong / number
    chances = [math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in range(number + 1)]
    below = np.cumsum(chances)
    expected = [int(np.searchsorted(below, level)) / number for level in (0.025, 0.975)]
    found = rate_interval([1] * wrong + [0] * (number - wrong), [1] * number, alone(number))
    assert found == pytest.approx(expected, abs=0.0101)


def test_long_utterances_weigh_more_in_the_interval() -> None:
    # Four draws, equally likely: both of one kind, or one of each, 3 errors in 10 words.
    assert rate_interval([3, 0], [6, 4], alone(2)) == (0.0, 0.5)


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_an_interval_lies_within_the_rates_of_its_utterances(counts: list[tuple[int, int]]) -> None:
    errors, totals = [list(side) for side in zip(*counts, strict=True)]
    found = rate_interval(errors, totals, alone(len(counts)), resamples=200)
    rates = [wrong / total for wrong, total in counts]
    if found is None:
        assert len(set(rates)) == 1
        return
    low, high = found
    assert min(rates) - 1e-12 <= low <= high <= max(rates) + 1e-12
    assert (low, high) == rate_interval(errors, totals, alone(len(counts)), resamples=200)
    doubled = rate_interval([2 * wrong for wrong in errors], totals, alone(len(counts)), resamples=200)
    assert doubled == pytest.approx((2 * low, 2 * high))


def test_the_interval_holds_the_true_rate_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        totals = generator.integers(1, 20, size=80)
        low, high = rate_interval(generator.binomial(totals, 0.2), totals, alone(80), resamples=400)
        held += low <= 0.2 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_memory_stays_flat_on_any_number_of_utterances(monkeypatch: pytest.MonkeyPatch) -> None:
    import finetune.intervals as intervals

    drawn: list[int] = []
    parts = intervals._parts
    monkeypatch.setattr(intervals, "AT_ONCE", 1_000)
    monkeypatch.setattr(
        intervals, "_parts", lambda *given: [drawn.append(n * 90) or n for n in parts(*given)]
    )
    rate_interval([0, 1] * 45, [2] * 90, alone(90), resamples=100)
    assert sum(drawn) == 90 * 100
    assert max(drawn) <= 1_000


def test_where_no_spread_is_seen_none_is_claimed() -> None:
    assert rate_interval([1], [4], alone(1)) is None
    assert rate_interval([0, 0, 0], [4, 1, 2], alone(3)) is None
    assert rate_interval([2, 1], [6, 3], alone(2)) is None


def test_speakers_are_drawn_whole_where_there_are_enough_of_them() -> None:
    few = Units.of(["a", "b"] * 30)
    assert (few.kind, few.number.tolist()) == ("utterances", list(range(60)))
    names = [f"speaker{number % 10}" for number in range(60)] + ["", ""]
    many = Units.of(names)
    assert many.kind == "speakers"
    assert many.add_up([1] * 62).tolist() == [6] * 10 + [1, 1]  # nobody's utterances stay apart


def test_errors_that_go_with_the_speaker_widen_the_interval() -> None:
    speakers = [f"speaker{number // 20}" for number in range(400)]
    errors = [number // 20 % 2 for number in range(400)]  # every second speaker is not understood at all
    whole = rate_interval(errors, [1] * 400, Units.of(speakers))
    single = rate_interval(errors, [1] * 400, alone(400))
    assert whole[1] - whole[0] > 3 * (single[1] - single[0])


# ----- paired test ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 1, 1], 2 / 8),  # of the eight signs only +++ and --- are as far from 0
        ([2, 1, -1], 6 / 8),  # sums 4 2 2 0 0 -2 -2 -4, and 2 was found
        ([2, 1, -1, 0, 0], 6 / 8),  # equal utterances say nothing
        ([1, -1], 1.0),
        ([0, 0], 1.0),
        ([-3] * 6, 2 / 64),
    ],
)
def test_p_values_of_few_utterances_are_exact(differences: list[int], expected: float) -> None:
    assert paired_p_value(differences, alone(len(differences))) == expected


def test_the_signs_of_a_speaker_change_together() -> None:
    speakers = [f"speaker{number % 10}" for number in range(40)]
    assert paired_p_value([1] * 40, Units.of(speakers)) == 2 / 2**10


@settings(max_examples=40, deadline=None)
@given(DIFFERENCES)
def test_drawn_signs_agree_with_all_signs_whichever_model_comes_first(differences: list[int]) -> None:
    exact = paired_p_value(differences, alone(len(differences)))
    assert exact == paired_p_value([-one for one in differences], alone(len(differences)))
    if any(differences):
        drawn = paired_p_value(differences, alone(len(differences)), resamples=1)
        assert drawn in (0.5, 1.0)  # of one draw and the finding itself
    many = [*differences, *differences]
    assert paired_p_value(many, alone(len(many)), resamples=2_000) == pytest.approx(
        paired_p_value(many, alone(len(many)), resamples=2**18), abs=0.06
    )


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_many_utterances_give_the_p_value_of_the_matched_pairs_test(shift: float) -> None:
    differences = np.random.default_rng(3).normal(shift, 0.8, size=900).round().astype(int)
    z = differences.mean() / (differences.std(ddof=1) / math.sqrt(len(differences)))
    matched_pairs = math.erfc(abs(z) / math.sqrt(2))  # Gillick & Cox 1989
    assert paired_p_value(differences.tolist(), alone(900)) == pytest.approx(matched_pairs, abs=0.03)


def test_models_that_are_alike_rarely_seem_to_differ() -> None:
    generator = np.random.default_rng(5)
    values = [
        paired_p_value(generator.integers(-2, 3, size=40).tolist(), alone(40), resamples=400)
        for _ in range(200)
    ]
    assert 0.02 <= np.mean(np.array(values) <= 0.05) <= 0.09
    assert 0.4 <= np.mean(values) <= 0.6
