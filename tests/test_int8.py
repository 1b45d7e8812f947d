"""The bytes of 8-bit layers: what they lose, and what they do not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_distilhubert.int8 import Range, best_range


@given(low=st.floats(-5, 0), high=st.floats(0.01, 50))
def test_bytes_come_back_within_half_a_step_and_zero_exactly(low, high):
    values = torch.linspace(low, high, 101)
    found = Range.over(low, high)
    back = (found.bytes_of(values).float() - found.zero) * found.scale
    assert (back - values).abs().max() <= 0.51 * found.scale + 1e-6
    assert found.bytes_of(torch.zeros(1)).item() == found.zero


def test_a_rare_loud_value_does_not_coarsen_all_others():
    values = torch.cat([torch.randn(100_000), torch.tensor([60.0])])
    assert best_range(values).scale < Range.over(-60.0, 60.0).scale / 2
