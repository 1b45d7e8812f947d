"""SpecAugment: bounded for short clips, blind to padding, a function of seed, epoch and clip alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from kinds import tiny_config
from transformers import HubertForCTC, Wav2Vec2ForCTC, WavLMForCTC

from finetune.arguments import CTCTrainingArguments
from finetune.data import ClipDataset, SpeechCollator
from finetune.settings import FinetuneConfig
from finetune.spec_augment import WIDEST, SpecAugment, spans, spec_augment_for, take_masks
from finetune.train import train
from finetune.vocabulary import build_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.loading import load_model
from hf_distilhubert.speech_data import Clip

CLASSES = {"hubert": HubertForCTC, "wav2vec2": Wav2Vec2ForCTC, "wavlm": WavLMForCTC}
SAMPLES = (9_000, 400, 4_000, 16_000, 3_000)
HEAVY = FinetuneConfig(spec_augment=True, mask_time_prob=0.5, mask_feature_prob=0.5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    import soundfile

    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(0)
    for samples in SAMPLES:
        soundfile.write(folder / f"{samples}.wav", 0.1 * generator.standard_normal(samples), 16_000)
    return [Clip(str(n), folder / f"{n}.wav", n, "a") for n in SAMPLES]


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    settings = {"vocab_size": 5, "pad_token_id": 0, "ctc_loss_reduction": "sum", "ctc_zero_infinity": True}
    model = CLASSES[kind](tiny_config(kind, **TINY | {"num_hidden_layers": 2} | settings))
    mask_group_norm(model)
    return model


def batches(clips: list[Clip], collator: SpeechCollator, size: int, epoch: int = 0, seed: int = 0) -> Any:
    dataset = ClipDataset(clips, build_processor(["a"], do_normalize=False).tokenizer, mask_seed=seed)
    dataset.set_epoch(epoch)
    items = [dataset[index] for index in range(len(clips))]
    return [collator(items[start : start + size]) for start in range(0, len(items), size)]


def test_spans_are_bounded_and_what_is_too_short_keeps_everything() -> None:
    for size in range(80):
        for seed in range(20):
            masked = spans(size, 0.5, 10, np.random.default_rng(seed))
            assert masked.shape == (size,)
            assert masked.sum() <= (0.5 + WIDEST) * size
            assert size >= 1 / WIDEST or not masked.any()


def test_the_share_of_long_clips_is_what_was_asked_for_less_overlaps() -> None:
    shares = [spans(1_000, 0.1, 10, np.random.default_rng(seed)).mean() for seed in range(50)]
    assert 0.085 < np.mean(shares) < 0.1
    assert not spans(1_000, 0.0, 10, np.random.default_rng(0)).any()


def test_a_clip_is_masked_alike_alone_and_in_any_batch_and_padding_never(clips: list[Clip]) -> None:
    draw = SpecAugment((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 32, 0.3, 4, 0.3)
    (together,) = batches(clips, SpeechCollator(False, 3_200, draw), len(clips))
    assert together["masked_frames"].any()
    for row, alone in enumerate(batches(clips, SpeechCollator(False, 1, draw), 1)):
        frames = alone["masked_frames"].shape[1]
        assert torch.equal(together["masked_frames"][row, :frames], alone["masked_frames"][0])
        assert not together["masked_frames"][row, frames:].any()
        assert torch.equal(together["masked_features"][row], alone["masked_features"][0])


def test_masks_depend_on_seed_epoch_and_clip_alone(clips: list[Clip]) -> None:
    draw = SpecAugment((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 32, 0.3, 4, 0.3)

    def drawn(seed: int, epoch: int, index: int) -> bytes:
        batch = batches([clips[3]] * 2, SpeechCollator(False, 1, draw), 1, epoch, seed)[index]
        return batch["masked_frames"].numpy().tobytes()

    assert drawn(0, 1, 1) == drawn(0, 1, 1)
    assert len({drawn(0, 0, 0), drawn(0, 1, 0), drawn(1, 0, 0), drawn(0, 0, 1)}) == 4


@pytest.mark.parametrize("kind", CLASSES)
def test_masked_frames_and_features_become_the_mean_of_the_clip(kind: str, clips: list[Clip]) -> None:
    model = model_of(kind).train()
    draw = spec_augment_for(HEAVY, model)
    assert draw is not None
    heard: list[torch.Tensor] = []
    model.base_model.encoder.register_forward_pre_hook(lambda _module, args: heard.append(args[0]))
    (batch,) = batches(clips, SpeechCollator(False, 3_200, draw), len(clips))
    masks = batch["masked_frames"], batch["masked_features"]
    model(**batch)
    model(**{name: value for name, value in batch.items() if not name.startswith("masked")})
    hidden, plain = heard
    masked = masks[0][:, :, None] | masks[1][:, None, :]
    for row, clip in enumerate(clips):
        frames = int(model._get_feat_extract_output_lengths(clip.num_samples))
        ours, theirs, where = (values[row, :frames] for values in (hidden, plain, masked))
        assert torch.equal(ours[~where], theirs[~where])
        assert torch.allclose(ours[where], theirs.mean(0).expand(frames, -1)[where], atol=1e-6)
    assert masks[0].any()


@pytest.mark.parametrize("kind", CLASSES)
def test_loss_is_the_same_alone_and_in_any_batch_and_evaluation_hears_everything(
    kind: str, clips: list[Clip]
) -> None:
    model = model_of(kind).train()
    draw = spec_augment_for(HEAVY, model)

    def loss(size: int, draw: SpecAugment | None = draw) -> float:
        with torch.no_grad():
            return sum(
                float(model(**b).loss) for b in batches(clips, SpeechCollator(False, 3_200, draw), size)
            )

    masked = loss(1)
    assert loss(2) == pytest.approx(masked, rel=1e-5)
    assert loss(5) == pytest.approx(masked, rel=1e-5)
    assert loss(5, None) != pytest.approx(masked, rel=1e-3)
    model.eval()
    assert loss(5) == loss(5, None)


def test_what_is_saved_is_stock_and_knows_no_masks(spoken: Path, tmp_path: Path) -> None:
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps(TINY | {"num_hidden_layers": 2}))
    config = FinetuneConfig(data=str(spoken), from_scratch=str(shape), spec_augment=True, eval_split="none")
    given = {"max_steps": 2, "logging_steps": 1, "use_cpu": True, "bf16": False}
    result = train(config, CTCTrainingArguments(output_dir=str(tmp_path / "run"), **given))
    model = load_model(HubertForCTC, result.folder)
    assert model.config.apply_spec_augment is False
    assert model.config.mask_time_prob == model.config.mask_feature_prob == 0
    assert "hubert.masked_spec_embed" not in model.state_dict()


def test_gradients_pass_the_masks_by(clips: list[Clip]) -> None:
    model = model_of("hubert").train()
    take_masks(model)
    (batch,) = batches(clips[3:4], SpeechCollator(False, 1), 1)
    every = torch.ones(1, int(model._get_feat_extract_output_lengths(SAMPLES[3])), dtype=torch.bool)
    masks = {"masked_frames": every, "masked_features": torch.zeros(1, 32, dtype=torch.bool)}
    model(**batch, **masks).loss.backward()
    assert not model.hubert.feature_projection.projection.weight.grad.any()
    assert model.hubert.encoder.layers[0].attention.v_proj.weight.grad.any()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask_time_prob": 0.9}, "--mask_time_prob 0.9; give a share from 0 to 0.5"),
        ({"mask_feature_prob": -0.1}, "--mask_feature_prob -0.1"),
        ({"mask_time_length": 0}, "--mask_time_length 0; give a number of frames from 1"),
    ],
)
def test_settings_that_would_hide_everything_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FinetuneConfig(spec_augment=True, **given)
