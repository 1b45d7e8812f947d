"""Batch i is a function of (seed, i)."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_distilhubert.batches import LengthBatches

lengths = st.lists(st.integers(1, 1_000), min_size=1, max_size=60)


@given(lengths, st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 30))
def test_a_batch_is_the_same_from_wherever_the_sampler_starts(lengths, batch_size, seed, start):
    whole = list(LengthBatches(lengths, batch_size, 31, seed=seed))
    later = list(LengthBatches(lengths, batch_size, 31, seed=seed, start=start))
    assert whole[start:] == later
    assert LengthBatches(lengths, batch_size, 31, seed=seed).batch(start) == whole[start]


@given(lengths, st.integers(1, 9), st.integers(0, 2**32))
def test_every_epoch_holds_every_clip(lengths, batch_size, seed):
    sampler = LengthBatches(lengths, batch_size, 3 * -(-len(lengths) // batch_size), seed=seed)
    batches = list(sampler)
    for epoch in range(3):
        part = batches[epoch * sampler.batches_per_epoch : (epoch + 1) * sampler.batches_per_epoch]
        counts = Counter(clip for batch in part for clip, _ in batch)
        assert set(counts) == set(range(len(lengths)))
        assert all(len(batch) == batch_size for batch in part)


@given(lengths, st.integers(1, 9))
def test_positions_count_every_clip_ever_drawn(lengths, batch_size):
    positions = [position for batch in LengthBatches(lengths, batch_size, 7) for _, position in batch]
    assert positions == list(range(7 * batch_size))


@given(lengths, st.integers(1, 4), st.integers(1, 4))
def test_parts_of_a_batch_hold_the_clips_of_the_batch(lengths, size, parts):
    whole = LengthBatches(lengths, size * parts, 5)
    handed_out = list(LengthBatches(lengths, size * parts, 5, parts=parts))
    assert len(handed_out) == 5 * parts
    for number, batch in enumerate(whole):
        assert list(chain(*handed_out[number * parts : (number + 1) * parts])) == batch


def test_batches_of_similar_length_need_little_padding():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1_000, 250_000, 4_000)
    batches = LengthBatches(lengths, 24, 160)
    padded = sum(max(lengths[clip] for clip, _ in batch) * len(batch) for batch in batches)
    spoken = sum(lengths[clip] for batch in batches for clip, _ in batch)
    assert padded / spoken < 1.05


def test_another_seed_gives_another_order():
    first, second = (list(LengthBatches(range(100), 10, 10, seed=seed)) for seed in (0, 1))
    assert first != second
