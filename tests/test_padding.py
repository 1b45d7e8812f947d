"""A clip comes out the same, and teaches the same, alone and in any padded batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import TINY, save_recogniser
from kinds import BASE, EVERY, difference, padded, tiny_model
from torch import Tensor, nn
from transformers import HubertConfig, HubertForCTC, HubertModel

from finetune.data import ClipDataset, SpeechCollator
from finetune.recogniser import load_recogniser
from hf_distilhubert import UserError, student_from_teacher
from hf_distilhubert.audio import num_frames
from hf_distilhubert.group_norm import convolution_statistics, mask_group_norm
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.teachers import Teacher

LENGTHS, TOTAL = [9_000, 5_203, 400, 3_333], 9_600
HEARD = [(kind, "base") for kind, _ in BASE] + [("hubert", "batch-norm")]


def frames(length: int) -> int:
    return num_frames(length, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))


@torch.no_grad()
def worst(run: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Of all clips, the largest difference between valid frames `(…, frame, size)` in a batch and alone."""
    values, mask = padded(LENGTHS, TOTAL)
    batch = run(values, mask)
    alone = [
        run(values[number : number + 1, :length], mask[number : number + 1, :length])[0]
        for number, length in enumerate(LENGTHS)
    ]
    assert [clip.shape[-2] for clip in alone] == [frames(length) for length in LENGTHS]
    return max(
        difference(together[..., : clip.shape[-2], :], clip)
        for together, clip in zip(batch, alone, strict=True)
    )


@pytest.mark.parametrize("do_normalize", [False, True])
@pytest.mark.parametrize(("kind", "shape"), [*EVERY, ("hubert", "batch-norm")])
def test_targets_are_the_same_alone_and_in_a_batch(kind, shape, do_normalize):
    assert worst(Teacher(tiny_model(kind, shape), [1, 2, 3], do_normalize=do_normalize)) < 1e-5


@pytest.mark.parametrize(("kind", "shape"), HEARD)
def test_without_the_mask_padding_is_heard(kind, shape):
    teacher = Teacher(tiny_model(kind, shape), [1, 2, 3], do_normalize=False, mask_group_norm=False)
    assert worst(teacher) > 1e-2


@pytest.mark.parametrize("changes", [{}, {"conv_bias": True}], ids=["no bias", "bias"])
@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_alone_a_masked_model_is_stock(kind, shape, changes):
    model = tiny_model(kind, shape, **changes)
    values, mask = padded([5_203], 5_203)
    with torch.no_grad():
        stock = model(values, attention_mask=mask).last_hidden_state
        mask_group_norm(model)
        assert difference(model(values, attention_mask=mask).last_hidden_state, stock) < 1e-5


@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_predictions_are_the_same_alone_and_in_a_batch(kind, shape):
    student = student_from_teacher(tiny_model(kind, shape), [1, 3]).eval()
    mask_group_norm(student)
    assert worst(lambda values, mask: student(values, mask).predictions) < 1e-5


def gradients(student, batches: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[list, dict[str, Tensor]]:
    """Of the inputs, and of the weights summed over batches (waveforms, masks, factors of predictions)."""
    student.zero_grad()
    inputs = []
    for values, mask, weights in batches:
        values = values.clone().requires_grad_(not student.training)
        predictions = student(values, mask).predictions
        (predictions * weights[:, :, : predictions.shape[2]]).sum().backward()
        inputs.append(values.grad)
    return inputs, {name: tensor.grad.clone() for name, tensor in student.named_parameters()}


@pytest.mark.parametrize("checkpointing", ["none", "reentrant", "not reentrant", "evaluation"])
def test_a_batch_has_the_gradients_of_its_clips(checkpointing):
    student = student_from_teacher(tiny_model("hubert"), [1, 3]).train(checkpointing != "evaluation")
    student.double()  # where a gradient is small beside what it is summed from, float32 leaves rounding
    values, mask = padded(LENGTHS, TOTAL)
    values = values.double()
    weights = torch.randn(len(LENGTHS), 2, frames(TOTAL), 32, dtype=torch.float64)
    for number, length in enumerate(LENGTHS):
        weights[number, :, frames(length) :] = 0
    clips = [
        (values[n : n + 1, :length], mask[n : n + 1, :length], weights[n : n + 1])
        for n, length in enumerate(LENGTHS)
    ]
    inputs_alone, alone = gradients(student, clips)  # through torch's own group norm
    mask_group_norm(student)
    if "reentrant" in checkpointing:
        settings = {"use_reentrant": checkpointing == "reentrant"}
        student.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    (inputs,), batch = gradients(student, [(values, mask, weights)])
    for name, gradient in batch.items():
        if "k_proj.bias" not in name:  # the softmax does not see it: its gradient is rounding
            assert difference(gradient, alone[name]) < 1e-9, name
    if checkpointing == "evaluation":
        for gradient, own, length in zip(inputs, inputs_alone, LENGTHS, strict=True):
            assert difference(gradient[:length], own[0]) < 1e-9
            assert not gradient[length:].any()


def test_gradient_checkpointing_remembers_the_lengths_of_its_own_batch():
    student = student_from_teacher(tiny_model("hubert"), [1, 3]).train()
    mask_group_norm(student)
    values, mask = padded(LENGTHS, TOTAL)
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            student.gradient_checkpointing_enable()
        student.zero_grad()
        loss = student(values, mask).predictions.square().sum()
        student(*padded([500, 7_000, 6_000, 800], TOTAL))  # another batch before the backward pass
        loss.backward()
        found.append(student.hubert.feature_extractor.conv_layers[0].conv.weight.grad.clone())
    assert difference(found[1], found[0]) < 1e-6


def test_a_masked_model_is_saved_and_copied_as_before_and_can_be_unmasked(tmp_path):
    model = tiny_model("hubert")
    values, mask = padded(LENGTHS, TOTAL)
    with torch.no_grad():
        stock = model(values, attention_mask=mask).last_hidden_state
        model.save_pretrained(tmp_path / "stock")
        undo = mask_group_norm(model)
        masked = model(values, attention_mask=mask).last_hidden_state
        model.save_pretrained(tmp_path / "masked")
        for name in ("config.json", "model.safetensors"):
            assert (tmp_path / "masked" / name).read_bytes() == (tmp_path / "stock" / name).read_bytes()
        assert type(model) is HubertModel
        assert torch.equal(copy.deepcopy(model)(values, attention_mask=mask).last_hidden_state, masked)
        undo.close()
        assert torch.equal(model(values, attention_mask=mask).last_hidden_state, stock)
        assert not torch.equal(masked, stock)


def test_without_an_attention_mask_a_masked_model_is_stock():
    model = tiny_model("hubert")
    values, _ = padded(LENGTHS, TOTAL)
    with torch.no_grad():
        stock = model(values).last_hidden_state
        mask_group_norm(model)
        assert torch.equal(model(values).last_hidden_state, stock)


@pytest.mark.parametrize("kind", ["hubert", "data2vec-audio"])
def test_masks_in_one_another_and_out_of_order_leave_a_stock_model(kind):
    model = tiny_model(kind)
    layer = type(model.feature_extractor.conv_layers[0])
    with mask_group_norm(model):
        with mask_group_norm(model):
            pass
        assert worst(lambda values, mask: model(values, attention_mask=mask).last_hidden_state) < 1e-5
    first, second = mask_group_norm(model), mask_group_norm(model)
    first.close()
    second.close()
    assert worst(lambda values, mask: model(values, attention_mask=mask).last_hidden_state) > 1e-2
    assert type(model.feature_extractor.conv_layers[0]) is layer


@pytest.mark.parametrize("kind", ["hubert", "data2vec-audio"])
def test_no_lengths_outlive_a_call_not_even_one_that_fails(kind):
    model = tiny_model(kind)
    values, mask = padded(LENGTHS, TOTAL)
    with torch.no_grad():
        features = model.feature_extractor(values)
        positions = model.encoder.pos_conv_embed(model.feature_projection.projection(features.mT))
        mask_group_norm(model)
        with (
            model.encoder.layers[1].register_forward_hook(lambda *_: 1 / 0),
            pytest.raises(ZeroDivisionError),
        ):
            model(values, attention_mask=mask)
        assert torch.equal(model.feature_extractor(values), features)
        projected = model.feature_projection.projection(features.mT)
        assert torch.equal(model.encoder.pos_conv_embed(projected), positions)


@pytest.mark.parametrize("changes", [{}, {"conv_bias": True}, {"do_stable_layer_norm": True}])
def test_recognisers_of_any_arrangement_are_masked_under_their_head(changes):
    torch.manual_seed(0)
    model = HubertForCTC(HubertConfig(num_hidden_layers=2, **TINY, **changes)).eval()
    mask_group_norm(model)
    assert worst(lambda values, mask: model(values, attention_mask=mask).logits) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pure", [False, True], ids=["autocast", "pure"])
def test_half_precision_gives_what_torchs_group_norm_gives_alone(dtype, pure):
    exact = tiny_model("hubert").feature_extractor
    half = copy.deepcopy(exact).to(dtype) if pure else exact
    stock, masked = half.conv_layers[0], tiny_model("hubert")
    mask_group_norm(masked)
    layer = masked.feature_extractor.conv_layers[0].to(dtype if pure else torch.float32)
    # The offset is many times the noise: the statistics must be those of what the convolution really made.
    values, mask = padded(LENGTHS, TOTAL)
    values = (0.1 * values + 0.5) * mask
    layer.attention_mask = mask
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=not pure):
        inputs = values[:, None].to(dtype if pure else torch.float32)
        batch = layer(inputs)
        assert batch.dtype == dtype
        for number, length in enumerate(LENGTHS):
            valid = (length - 10) // 5 + 1
            alone = stock(inputs[number : number + 1, :, :length])[0].float()
            ours = batch[number, :, :valid].float()
            assert difference(ours, alone) < 8 * torch.finfo(dtype).eps
            assert (ours - alone).mean(-1).abs().max() < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("offset", [0.0, 0.9])
def test_statistics_are_those_of_the_convolutions_valid_frames(offset):
    generator = torch.Generator().manual_seed(0)
    samples = 0.001 * torch.randn(3, 4_000, generator=generator, dtype=torch.float64) + offset
    weight = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    counts = torch.tensor([799, 350, 1])
    mean, variance = convolution_statistics(samples, weight, 5, counts)
    convolved = nn.functional.conv1d(samples[:, None], weight[:, None], stride=5)
    for number, count in enumerate(counts.tolist()):
        valid = convolved[number, :, :count]
        torch.testing.assert_close(mean[number], valid.mean(-1), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(variance[number], valid.var(-1, correction=0), rtol=1e-6, atol=1e-12)


def test_silence_and_a_clip_too_short_for_a_frame_stay_finite():
    model = tiny_model("hubert")
    mask_group_norm(model)
    mask = (torch.arange(4_000) < torch.tensor([4_000, 5])[:, None]).long()
    with torch.no_grad():
        assert model(torch.zeros(2, 4_000), attention_mask=mask).last_hidden_state.isfinite().all()


def test_a_model_without_such_a_front_end_is_refused():
    with pytest.raises(UserError, match="a Linear has no front end"):
        mask_group_norm(nn.Linear(2, 2))


def test_a_batch_has_the_ctc_loss_of_its_clips(tmp_path, spoken):
    folder = save_recogniser(tmp_path / "recogniser", feat_extract_norm="group")
    clips = load_clips(spoken, "train", need_text=True).clips[:4]
    recogniser = load_recogniser(str(folder), [str(clip.text) for clip in clips])
    items = ClipDataset(clips, recogniser.processor.tokenizer)
    collate = SpeechCollator(do_normalize=True, pad_multiple=3_200)
    model = recogniser.model.train()
    with torch.no_grad():
        together = model(**collate([items[i] for i in range(4)])).loss
        alone = [model(**collate([items[i]])).loss for i in range(4)]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-5, atol=1e-5)
