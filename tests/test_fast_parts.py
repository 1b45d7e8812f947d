"""The products that `FastEncoder` is made of compute what the plain forms compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

from hf_distilhubert.fast_attention import QUERIES, SHORT, attend
from hf_distilhubert.fast_positions import FastPositions
from hf_distilhubert.fast_winograd import WinogradConvolution
from hf_distilhubert.packed import SIZES, whole_rows, with_whole_rows


@given(st.integers(3, 150), st.booleans())
def test_fewer_products_give_the_convolution(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    conv = nn.Conv1d(8, 12, 3, stride=2, bias=bias)
    values = torch.randn(rows, 8)
    before = values.clone()
    with torch.no_grad():
        expected = F.gelu(conv.double()(values.double().T)).T
        found = WinogradConvolution(conv.float())(values)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(values, before)


@pytest.mark.parametrize("frames", [1, SHORT, SHORT + 1, QUERIES, QUERIES + 9])
def test_attention_is_torchs_and_rows_behind_the_frames_are_not_heard(frames: int) -> None:
    torch.manual_seed(frames)
    rows = whole_rows(frames + 1)
    query, key, value = torch.randn(3, 2, rows, 16)
    key[:, frames:] = value[:, frames:] = 1e4
    found = attend(query, key, value, frames=frames)[:frames]
    heard = (part[None, :, :frames].double() for part in (query, key, value))
    expected = F.scaled_dot_product_attention(*heard)[0].transpose(0, 1).flatten(1)
    assert (found - expected).abs().max() < 1e-5


@given(st.integers(1, 100_000))
def test_a_product_has_few_sizes_and_few_rows_too_many(rows: int) -> None:
    whole = whole_rows(rows)
    assert rows <= whole <= rows + (rows - 1) // SIZES
    assert whole_rows(whole) == whole


def test_between_a_number_of_rows_and_its_double_are_no_more_sizes_than_were_said() -> None:
    assert len({whole_rows(rows) for rows in range(1_025, 2_049)}) == SIZES


def test_rows_of_zeros_stand_behind_and_the_others_are_as_they_were() -> None:
    windows = torch.randn(300).as_strided((65, 12), (4, 1))
    whole = with_whole_rows(windows)
    assert torch.equal(whole[:65], windows)
    assert not whole[65:].any()
    assert len(whole) == 66
    assert with_whole_rows(whole) is whole


def positions(kernel: int, groups: int) -> nn.Module:
    """The positional convolution of a model of width 48."""
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "num_attention_heads": 4, "conv_dim": (8,) * 7, "num_hidden_layers": 1}
    config = HubertConfig(**shape, num_conv_pos_embeddings=kernel, num_conv_pos_embedding_groups=groups)
    return HubertModel(config).encoder.pos_conv_embed.eval()


def test_positions_of_near_silence_are_exact_beside_a_loud_moment() -> None:
    embedding = positions(128, 16)
    hidden = torch.randn(250, 48)
    hidden[40:] *= 1e-4
    with torch.no_grad():
        embedding.conv.bias.zero_()
        right = embedding(hidden[None])[0]
        found = FastPositions(embedding)(hidden)
    assert float(((found - right).norm(dim=1) / right.norm(dim=1)).max()) < 1e-5


@pytest.mark.parametrize(
    ("kernel", "groups", "frames"), [(16, 4, 1), (16, 4, 17), (17, 4, 200), (128, 16, 500)]
)
def test_positions_by_fourier_transform_are_the_convolution(kernel: int, groups: int, frames: int) -> None:
    embedding, hidden = positions(kernel, groups), torch.randn(frames, 48)
    with torch.no_grad():
        found, right = FastPositions(embedding)(hidden), embedding(hidden[None])[0]
    assert found.shape == right.shape
    assert (found - right).norm() / right.norm() < 1e-5
