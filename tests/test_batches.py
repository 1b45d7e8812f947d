"""Batch i is a function of (seed, i), by count and by a budget of padded samples."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_distilhubert.batches import ByBudget, ByCount, Cut, LengthBatches

lengths = st.lists(st.integers(400, 30_000), min_size=1, max_size=60)
counts = st.builds(ByCount, st.integers(1, 9))


@st.composite
def budgets(draw: st.DrawFn) -> ByBudget:
    """Any budget that holds the longest clips."""
    max_samples, pad_multiple = draw(st.integers(400, 40_000)), draw(st.sampled_from([1, 160, 3_200, 5_000]))
    multiple = draw(st.integers(1, 4))
    longest = -(-max_samples // pad_multiple) * pad_multiple
    samples = multiple * longest + draw(st.integers(0, 200_000))
    return ByBudget(samples, max_samples, pad_multiple, multiple)


cuts = st.one_of(counts, budgets())
seeds = st.integers(0, 2**32)


@given(lengths, cuts, seeds, st.integers(0, 30))
def test_a_batch_is_the_same_from_wherever_the_sampler_starts(lengths, cut, seed, start):
    whole = list(LengthBatches(lengths, cut, 31, seed=seed))
    later = LengthBatches(lengths, cut, 31, seed=seed, start=start)
    assert list(later) == whole[start:]
    assert len(later) == 31 - start
    assert LengthBatches(lengths, cut, 31, seed=seed).batch(start) == whole[start]


@given(lengths, cuts, seeds)
def test_every_epoch_holds_every_clip_once_and_less_than_a_batch_more(lengths, cut, seed):
    per_epoch = LengthBatches(lengths, cut, 0, seed=seed).batches_per_epoch
    batches = list(LengthBatches(lengths, cut, 3 * per_epoch, seed=seed))
    for epoch in range(3):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        heard = Counter(clip for batch in part for clip, _ in batch)
        assert set(heard) == set(range(len(lengths)))
        assert heard.total() - len(lengths) < cut.multiple
        assert all(len(batch) % cut.multiple == 0 for batch in part)


@given(lengths, counts)
def test_batches_by_count_are_all_of_one_size(lengths, cut):
    assert {len(batch) for batch in LengthBatches(lengths, cut, 9)} == {cut.multiple}


@given(lengths, budgets(), seeds)
def test_a_budget_is_kept(lengths, cut, seed):
    for batch in LengthBatches(lengths, cut, 40, seed=seed):
        longest = max(min(lengths[clip], cut.max_samples) for clip, _ in batch)
        assert len(batch) * -(-longest // cut.pad_multiple) * cut.pad_multiple <= cut.samples


def test_a_budget_is_used():
    spoken = np.random.default_rng(0).integers(16_000, 250_000, 4_000)
    cut = ByBudget(300 * 16_000, 250_000, 3_200)
    sampler = LengthBatches(spoken, cut, 0)
    assert spoken.sum() > 0.94 * cut.samples * sampler.batches_per_epoch
    assert spoken.sum() > 0.98 * padded(spoken, sampler)


@given(lengths, cuts)
def test_positions_count_every_clip_ever_drawn(lengths, cut):
    positions = [position for batch in LengthBatches(lengths, cut, 17) for _, position in batch]
    assert positions == list(range(len(positions)))


@given(lengths, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_parts_of_a_batch_hold_the_clips_of_the_batch(lengths, size, parts, by_count):
    cut = ByCount(size * parts) if by_count else ByBudget(size * parts * 32_000, 30_000, 1, parts)
    whole = LengthBatches(lengths, cut, 5)
    handed_out = list(LengthBatches(lengths, cut, 5, parts=parts))
    assert len(handed_out) == 5 * parts
    for number, batch in enumerate(whole):
        pieces = handed_out[number * parts : (number + 1) * parts]
        assert list(chain(*pieces)) == batch
        assert len({len(piece) for piece in pieces}) == 1


def padded(lengths: np.ndarray, batches: LengthBatches) -> int:
    """Samples in one epoch of batches, padding included."""
    one_epoch = map(batches.batch, range(batches.batches_per_epoch))
    return sum(max(lengths[clip] for clip, _ in batch) * len(batch) for batch in one_epoch)


@pytest.mark.parametrize("cut", [ByCount(24), ByBudget(24 * 250_000, 250_000)])
def test_batches_of_similar_length_need_little_padding(cut):
    lengths = np.random.default_rng(0).integers(1_000, 250_000, 4_000)
    assert padded(lengths, LengthBatches(lengths, cut, 0)) / lengths.sum() < 1.05


@pytest.mark.parametrize("cut", [ByCount(10), ByBudget(100_000, 10_000)])
def test_another_seed_or_epoch_gives_another_order(cut: Cut):
    lengths = [10_000] * 100
    first, second = (list(LengthBatches(lengths, cut, 20, seed=seed)) for seed in (0, 1))
    assert first != second
    clips = [[clip for clip, _ in batch] for batch in first]
    assert clips[:10] != clips[10:]
