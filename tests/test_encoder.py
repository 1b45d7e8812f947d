"""FastEncoder computes what Transformers computes, and a clip in any batch comes out as it does alone."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertConfig, HubertForCTC, Wav2Vec2Config, Wav2Vec2Model

from hf_distilhubert import fast_front_end
from hf_distilhubert.audio import AudioError, read_audio
from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.errors import UserError
from hf_distilhubert.fast_front_end import FastFrontEnd
from hf_distilhubert.group_norm import convolution_statistics
from hf_distilhubert.packed import FloatPacking, PackedLinear
from hf_distilhubert.routes import FastRoute, PlainRoute

SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (16, 24, 24, 32, 32, 32, 40),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 11,
}
KINDS = {
    "student": {"feat_proj_layer_norm": False},
    "teacher": {"num_hidden_layers": 5},
    "biases": {"conv_bias": True},
    "odd positions": {"num_conv_pos_embeddings": 17},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    "layer norm": {"feat_extract_norm": "layer"},
    "two convolutions": {"conv_dim": (16, 40), "conv_kernel": (10, 4), "conv_stride": (5, 3)},
    "batch norm": {"conv_pos_batch_norm": True},
    "relu": {"hidden_act": "relu"},
}
WITHOUT_FAST_FORM = {"batch norm", "relu"}


def recogniser(kind: str = "student") -> HubertForCTC:
    torch.manual_seed(0)
    model = HubertForCTC(HubertConfig(**SHAPE | KINDS[kind])).eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def clips(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, generator=generator) * 0.1 for length in lengths]


def apart(found: torch.Tensor, right: torch.Tensor) -> float:
    assert found.shape == right.shape
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_every_clip_of_a_batch_is_as_transformers_computes_it_alone(kind):
    model, waveforms = recogniser(kind), clips(16_000, 400, 33_333, 5_000)
    encoder = FastEncoder(model)
    assert isinstance(encoder.route, PlainRoute if kind in WITHOUT_FAST_FORM else FastRoute)
    output = encoder(waveforms, output_hidden_states=True)
    for row, waveform in enumerate(waveforms):
        with torch.no_grad():
            right = model(waveform[None], output_hidden_states=True)
            last = model.hubert(waveform[None]).last_hidden_state
        frames = int(output.frame_lengths[row])
        assert apart(output.logits[row, :frames], right.logits[0]) < 1e-5
        assert apart(output.last_hidden_state[row, :frames], last[0]) < 1e-5
        assert len(output.hidden_states) == len(right.hidden_states)
        for ours, theirs in zip(output.hidden_states, right.hidden_states, strict=True):
            assert apart(ours[row, :frames], theirs[0]) < 1e-5
        assert not output.last_hidden_state[row, frames:].any()


def test_a_padded_batch_with_its_mask_is_the_list_of_its_clips():
    encoder, waveforms = FastEncoder(recogniser()), clips(9_000, 4_000)
    values = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    mask = torch.tensor([[1] * 9_000, [1] * 4_000 + [0] * 5_000])
    assert torch.equal(encoder(values, mask).logits, encoder(waveforms).logits)


def test_one_clip_may_come_as_numpy_and_without_a_batch():
    encoder, (waveform,) = FastEncoder(recogniser()), clips(8_000)
    alone = encoder(waveform.numpy()).last_hidden_state
    assert torch.equal(alone, encoder([waveform]).last_hidden_state)
    assert alone.shape == (1, 24, 48)
    assert encoder(np.stack([waveform, waveform])).last_hidden_state.shape == (2, 24, 48)


def test_threads_share_the_clips_and_change_nothing():
    encoder, waveforms = FastEncoder(recogniser()), clips(9_000, 400, 20_000, 7_000, 12_000)
    before = torch.get_num_threads()
    alone = [encoder(waveform).last_hidden_state[0] for waveform in waveforms]
    try:
        torch.set_num_threads(2)
        together = encoder(waveforms)
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for row, right in enumerate(alone):
        assert apart(together.last_hidden_state[row, : len(right)], right) < 1e-6


@settings(max_examples=25, deadline=None)
@given(length=st.integers(400, 12_000), early=st.integers(1, 9), late=st.integers(1, 9))
def test_where_the_front_end_is_cut_into_slices_changes_nothing(length, early, late):
    extractor, (samples,) = recogniser().hubert.feature_extractor, clips(length)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(fast_front_end, "EARLY_ROWS", early)
        patch.setattr(fast_front_end, "ROWS", late)
        features = FastFrontEnd(extractor, FloatPacking(torch.float32), None)(samples)
        assert apart(features, extractor(samples[None])[0].T) < 1e-5


def test_memory_does_not_grow_with_the_clip_in_front_of_the_transformer(monkeypatch):
    rows = []
    plain = PackedLinear.__call__
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, x: rows.append(len(x)) or plain(self, x))
    front_end = FastFrontEnd(recogniser().hubert.feature_extractor, FloatPacking(torch.float32), None)
    most = []
    for seconds in (30, 120):
        rows.clear()
        with torch.no_grad():
            front_end(*clips(16_000 * seconds))
        most.append(max(rows))
    assert abs(most[1] - most[0]) < 500
    assert max(most) < 5_000


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (30.0, 0.0), (0.1, 0.5)])
def test_the_folded_norm_keeps_its_digits_for_quiet_loud_and_shifted_clips(scale, offset):
    model, (waveform,) = recogniser(), clips(20_000)
    waveform = waveform * 10 * scale + offset
    with torch.no_grad():
        right = model.double().hubert(waveform[None].double()).last_hidden_state[0]
        stock = model.float().hubert(waveform[None]).last_hidden_state[0]
    ours = apart(FastEncoder(model)(waveform).last_hidden_state[0].double(), right)
    assert ours < max(1e-5, 2 * apart(stock.double(), right))


@pytest.mark.parametrize("kind", ["student", "large"])
def test_fewer_bits_stay_near(kind):
    model, waveforms = recogniser(kind), clips(16_000, 5_000, 30_000)
    right = FastEncoder(model)(waveforms).last_hidden_state
    brief = FastEncoder(model, "bfloat16")(waveforms).last_hidden_state
    whole = FastEncoder(model, "int8", calibration=clips(16_000, 8_000))(waveforms).last_hidden_state
    assert 0 < apart(brief, right) < 0.02
    assert 0 < apart(whole, right) < 0.08


def test_int8_hears_real_speech_as_float32_does(speech_dir):
    files = sorted((speech_dir / "fsdd_digits").rglob("*.flac"))[:24]
    waveforms = [torch.from_numpy(read_audio(file)) for file in files]
    model = recogniser()
    right = FastEncoder(model)(waveforms[16:]).last_hidden_state
    whole = FastEncoder(model, "int8", calibration=waveforms[:16])(waveforms[16:]).last_hidden_state
    assert apart(whole, right) < 0.12


def test_the_model_stays_as_it_is():
    for kind in ("student", "batch norm"):
        model, (waveform,) = recogniser(kind), clips(8_000)
        with torch.no_grad():
            before = model(waveform[None]).logits
            FastEncoder(model, "bfloat16")(waveform)
            assert torch.equal(before, model(waveform[None]).logits)
        assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["student", "batch norm"])
def test_training_that_goes_on_does_not_reach_an_encoder(kind):
    model, (waveform,) = recogniser(kind), clips(8_000)
    encoder = FastEncoder(model)
    before = encoder(waveform).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert torch.equal(encoder(waveform).logits, before)


@pytest.mark.parametrize("kind", ["student", "batch norm"])
def test_what_is_set_around_a_call_rounds_nothing(kind):
    encoder, waveforms = FastEncoder(recogniser(kind)), clips(80_000, 8_000)
    right = encoder(waveforms).logits
    for setting in (torch.autocast("cpu", torch.bfloat16), torch.inference_mode()):
        with setting:
            assert torch.equal(encoder(waveforms).logits, right)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_another_default_of_torch_is_no_matter(dtype):
    model, (waveform,) = recogniser(), clips(80_000)
    right = FastEncoder(model, dtype, calibration=[waveform])(waveform).logits
    torch.set_default_dtype(torch.float64)
    try:
        found = FastEncoder(model, dtype, calibration=[waveform])(waveform).logits
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, right)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_clip_that_is_not_finite_spoils_no_other(dtype):
    sound, bad = clips(16_000, 12_000)
    bad[5_000] = torch.nan
    encoder = FastEncoder(recogniser(), dtype, calibration=[sound])
    output = encoder([bad, sound])
    assert torch.equal(output.logits[1], encoder(sound).logits[0])
    assert output.last_hidden_state[0, : output.frame_lengths[0]].isnan().all()


@pytest.mark.parametrize("place", ["lm_head", "hubert.encoder.layers.1.feed_forward.output_dense"])
def test_what_stands_around_a_layer_is_computed_too(place):
    class Twice(torch.nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    model, (waveform,) = recogniser(), clips(8_000)
    model.get_submodule(place).__class__ = Twice
    with torch.no_grad():
        right = model(waveform[None]).logits
    assert apart(FastEncoder(model)(waveform).logits, right) < 1e-5


def test_a_window_takes_the_norms_of_its_recording_and_no_other_clip_does():
    route, (whole, other) = FastEncoder(recogniser()).route, clips(32_000, 8_000)
    weight = route.front_end.first.weight
    statistics = convolution_statistics(whole[None], weight, 5, torch.tensor([6_399]))
    window = route.clip(whole[:16_000], tuple(row[0] for row in statistics))[0]
    assert apart(window, route.clip(whole[:16_000])[0]) > 1e-4
    assert apart(route.front_end(whole, tuple(row[0] for row in statistics)), route.front_end(whole)) < 1e-6
    assert torch.equal(route.clip(other)[0], route.clip(other)[0])


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((2, 50)),
        np.ones(9_000),
        np.ones((1, 9_000)),
        np.concatenate([np.zeros((2, 1_000)), np.ones((2, 8_000))], axis=1),
    ],
)
def test_a_mask_that_does_not_belong_to_the_batch_is_refused(mask):
    with pytest.raises(UserError, match="ones for the samples of each and zeros behind"):
        FastEncoder(recogniser())(torch.zeros(2, 9_000), mask)


@pytest.mark.parametrize(
    "samples", [np.zeros((16_000, 2), np.float32), np.zeros((1, 16_000)), np.zeros(16_000, np.int16)]
)
def test_what_is_no_clip_is_refused(samples):
    with pytest.raises(UserError, match="samples of one channel as floating-point numbers"):
        FastEncoder(recogniser("layer norm"))([samples])


def test_any_memory_that_holds_a_clip_will_do():
    encoder, (waveform,) = FastEncoder(recogniser()), clips(8_000)
    right = encoder(waveform).logits
    backwards = np.ascontiguousarray(waveform.numpy()[::-1])[::-1]
    read_only = waveform.numpy().copy()
    read_only.flags.writeable = False
    for same in (backwards, read_only, waveform.double(), waveform.clone().requires_grad_()):
        assert torch.equal(encoder(same).logits, right)
    assert not right.requires_grad


def test_a_folder_is_loaded_as_what_it_is(tmp_path):
    model, (waveform,) = recogniser(), clips(8_000)
    model.save_pretrained(tmp_path / "ctc")
    model.hubert.save_pretrained(tmp_path / "plain")
    assert FastEncoder.from_pretrained(tmp_path / "ctc")(waveform).logits.shape == (1, 24, 11)
    plain = FastEncoder.from_pretrained(tmp_path / "plain")(waveform)
    assert plain.logits is None
    assert plain.hidden_states is None


def test_what_cannot_be_computed_is_said(tmp_path):
    model = recogniser()
    Wav2Vec2Model(Wav2Vec2Config(**SHAPE)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="type wav2vec2; give one of type hubert"):
        FastEncoder.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="Wav2Vec2Model has no fast form"):
        FastEncoder(Wav2Vec2Model(Wav2Vec2Config(**SHAPE)))
    with pytest.raises(UserError, match="'float16' is unknown; give one of auto, float32"):
        FastEncoder(model, "float16")
    with pytest.raises(UserError, match="give clips to calibrate with"):
        FastEncoder(model, "int8")
    with pytest.raises(UserError, match="calibrate with, without NaN"):
        FastEncoder(model, "int8", calibration=[torch.full((8_000,), torch.nan)])
    with pytest.raises(UserError, match="ones for the samples of each and zeros behind"):
        FastEncoder(model)(clips(9_000, 12_000), np.ones((2, 9_000)))
    with pytest.raises(UserError, match="int8 has no form for this model"):
        FastEncoder(recogniser("relu"), "int8", calibration=clips(8_000))
    with pytest.raises(AudioError, match="399 samples"):
        FastEncoder(model)(clips(16_000, 399))
    with pytest.raises(AudioError, match="399 samples"):
        FastEncoder(model, "int8", calibration=clips(399))
    with pytest.raises(UserError, match="give at least one"):
        FastEncoder(model)([])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_encoder_can_be_handed_to_another_process(dtype, tmp_path):
    model, (waveform,) = recogniser(), clips(8_000)
    model.save_pretrained(tmp_path)
    made = FastEncoder(model, dtype, calibration=[waveform])
    for encoder in (made, FastEncoder.from_pretrained(tmp_path, dtype, calibration=iter([waveform]))):
        again = pickle.loads(pickle.dumps(encoder))
        assert torch.equal(again(waveform).logits, encoder(waveform).logits)
