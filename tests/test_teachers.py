"""A teacher of any kind gives its layers by number, runs no further than needed, or is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import save_recogniser
from kinds import EVERY, KINDS, difference, padded, tiny_config, tiny_model
from safetensors.torch import load_file
from transformers import (
    HubertModel,
    SEWConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
)

from hf_distilhubert import UserError
from hf_distilhubert.teachers import Teacher, load_teacher, normalise_batch

VALUES, MASK = padded([6_000, 4_321], 6_000)


@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_teacher_gives_its_layers_by_number(kind, shape):
    model = tiny_model(kind, shape)
    with torch.no_grad():
        output = model(VALUES, attention_mask=MASK, output_hidden_states=True)
    targets = Teacher(model, [3, 1], do_normalize=False, mask_group_norm=False)(VALUES, MASK)
    if shape == "base":  # a large teacher's last layer is its normalised output, a base teacher's the layer's
        assert torch.equal(output.last_hidden_state, output.hidden_states[3])
    assert difference(targets[:, 0], output.last_hidden_state) < 1e-6
    assert difference(targets[:, 1], output.hidden_states[1]) < 1e-6


def test_targets_equal_s3prls(golden_dir):
    folder = golden_dir / "distillation"
    model = HubertModel.from_pretrained(folder / "teacher", dtype=torch.float32)
    golden = load_file(folder / "batches.safetensors")
    batch = torch.stack([golden[name] for name in sorted(golden) if name.startswith("batch00.")])
    layers = sorted(int(name.rpartition("layer")[2]) for name in golden if name.startswith("teacher_hidden."))
    for train_mode in (False, True):  # this teacher's dropout is 0
        teacher = Teacher(model, layers, do_normalize=False, mask_group_norm=False, train_mode=train_mode)
        targets = teacher(batch, torch.ones_like(batch, dtype=torch.long))
        for layer, target in zip(layers, targets.unbind(1), strict=True):
            assert difference(target, golden[f"teacher_hidden.step1.layer{layer}"]) < 1e-5


@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_teacher_runs_no_layer_above_the_highest_that_is_wanted(kind, shape):
    model = tiny_model(kind, shape)
    with torch.no_grad():
        expected = model(VALUES, attention_mask=MASK, output_hidden_states=True).hidden_states[2]
    third = model.encoder.layers[2].register_forward_hook(lambda *_: 1 / 0)
    teacher = Teacher(model, [2], do_normalize=False, mask_group_norm=False)
    assert difference(teacher(VALUES, MASK)[:, 0], expected) < 1e-6
    # The model is left whole, so that a student can start from any of its layers.
    third.remove()
    assert len(model.encoder.layers) == model.config.num_hidden_layers == 3
    with model.encoder.layers[0].register_forward_hook(lambda *_: 1 / 0), pytest.raises(ZeroDivisionError):
        teacher(VALUES, MASK)
    assert len(model.encoder.layers) == 3


def test_teacher_stays_in_evaluation_mode_and_asks_for_no_gradient():
    teacher = Teacher(tiny_model("hubert", hidden_dropout=0.5), [3], do_normalize=False).train()
    assert torch.equal(teacher(VALUES, MASK), teacher(VALUES, MASK))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_in_training_mode_has_dropout_on_but_drops_and_hides_nothing(kind):
    changes = {"layerdrop": 1.0, "mask_time_prob": 0.9, "mask_time_length": 2}
    calm, blurred = (tiny_model(kind, **changes, hidden_dropout=dropout) for dropout in (0.0, 0.5))
    settings = {"do_normalize": False, "train_mode": True}
    expected = Teacher(tiny_model(kind, **changes), [1, 3], do_normalize=False)(VALUES, MASK)
    assert torch.equal(Teacher(calm, [1, 3], **settings)(VALUES, MASK), expected)
    teacher = Teacher(blurred, [1, 3], **settings).eval()
    assert not torch.equal(teacher(VALUES, MASK), teacher(VALUES, MASK))


def test_teachers_normalisation_is_that_of_its_feature_extractor():
    waveforms = [torch.randn(length).numpy() * 0.1 + 0.05 for length in (5_000, 3_000)]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="pt")
    raw = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)(
        waveforms, sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    ours = normalise_batch(raw.input_values, raw.attention_mask)
    torch.testing.assert_close(ours, expected.input_values, rtol=1e-5, atol=1e-5)
    model = tiny_model("wav2vec2", "large")
    raw_teacher, teacher = (Teacher(model, [3], do_normalize=do_normalize) for do_normalize in (False, True))
    assert torch.equal(teacher(raw.input_values, raw.attention_mask), raw_teacher(ours, raw.attention_mask))
    assert not torch.equal(teacher(ours, raw.attention_mask), raw_teacher(0.1 * ours, raw.attention_mask))


@pytest.mark.parametrize("do_normalize", [False, True])
@pytest.mark.parametrize(("kind", "shape"), EVERY)
def test_teacher_of_every_kind_loads_from_its_folder(tmp_path, kind, shape, do_normalize):
    model = tiny_model(kind, shape)
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path, [1, 3], 2)
    assert type(teacher.model) is type(model)
    expected = Teacher(model, [1, 3], do_normalize=do_normalize)(VALUES, MASK)
    assert torch.equal(teacher(VALUES, MASK), expected)
    stock = load_teacher(tmp_path, [1, 3], 2, mask_group_norm=False, train_mode=True)
    assert torch.equal(stock(VALUES, MASK), expected) == (shape == "large")
    assert stock.model.training


def test_a_recognisers_encoder_may_teach(tmp_path):
    teacher = load_teacher(save_recogniser(tmp_path / "recogniser"), [1, 2], 2)
    assert (type(teacher.model), teacher.do_normalize) == (HubertModel, True)


def folder_of(path, config, **extractor):
    """A model's folder without its weights: what is wrong has to be found before they are asked for."""
    config.save_pretrained(path)
    if extractor:
        Wav2Vec2FeatureExtractor(**extractor).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (WhisperConfig(), "'whisper' .* give one of hubert, wav2vec2, wavlm"),
        (Wav2Vec2BertConfig(), "'wav2vec2-bert'"),
        (Wav2Vec2ConformerConfig(), "'wav2vec2-conformer'"),
        (SEWConfig(), "'sew'"),
        (tiny_config("wavlm", conv_stride=(5, 2, 2, 2, 2, 2, 1)), "frame of 160 samples"),
        (tiny_config("wav2vec2", add_adapter=True), "adapter"),
        (tiny_config("data2vec-audio", num_hidden_layers=2), "no layer 3; its layers are 1 to 2"),
    ],
    ids=["whisper", "wav2vec2-bert", "conformer", "sew", "frame rate", "adapter", "depth"],
)
def test_a_teacher_that_no_student_can_follow_is_refused_before_its_weights_are_loaded(
    tmp_path, config, said
):
    with pytest.raises(UserError, match=said):
        load_teacher(folder_of(tmp_path, config, do_normalize=True), [3], 2)


def test_a_teacher_has_to_say_how_it_wants_its_input(tmp_path):
    silent = folder_of(tmp_path / "silent", tiny_config("hubert"))
    with pytest.raises(UserError, match="put the preprocessor_config.json"):
        load_teacher(silent, [3], 2)
    narrow = folder_of(tmp_path / "narrow", tiny_config("hubert"), sampling_rate=8_000)
    with pytest.raises(UserError, match="8000 Hz"):
        load_teacher(narrow, [3], 2)
    other = folder_of(tmp_path / "other", tiny_config("hubert"))
    whisper = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80}
    (other / "preprocessor_config.json").write_text(json.dumps(whisper))
    with pytest.raises(UserError, match="features of a WhisperFeatureExtractor"):
        load_teacher(other, [3], 2)
