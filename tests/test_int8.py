"""The bytes of 8-bit layers: what they lose, and what they do not."""

from __future__ import annotations

import torch
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel

from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.fast_front_end import Convolution
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


def test_the_largest_convolution_takes_bytes_where_the_hardware_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr("hf_distilhubert.int8.computes_in_bf16", lambda: False)
    model = HubertModel(HubertConfig(**{"num_hidden_layers": 2} | TINY)).eval()
    encoder = FastEncoder(model, "int8", device="cpu", calibration=[0.1 * torch.randn(8_000)])
    assert isinstance(encoder.route.front_end.others[0], Convolution)


def test_near_silence_is_kept_as_well_as_what_is_loud():
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**{"num_hidden_layers": 2} | TINY)).eval()
    loud = 0.1 * torch.randn(3, 16_000)
    clip = torch.cat([loud[0], 1e-3 * loud.flatten()])
    exact = FastEncoder(model, device="cpu")(clip).last_hidden_state
    whole = FastEncoder(model, "int8", device="cpu", calibration=[clip])(clip).last_hidden_state
    off = (whole - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert 1e-4 < off.median() < 0.03
    assert (off > 0.1).sum() <= 6  # frames around the step from loud to silent, which share one scale
