"""S3PRL's arithmetic in plain torch gives what S3PRL's own `DistillerModel` gave."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import golden_waveforms, variants
from safetensors.torch import load_file
from torch import Tensor

from conversion import configuration
from conversion.checkpoint import Checkpoint, read_checkpoint
from conversion.reference import ACTIVATIONS, DEFAULTS, reference_parts

TOLERANCE = 1e-5


def parts_of(source: Checkpoint, waveforms: list[Tensor], **changes: object) -> dict[str, Tensor]:
    return reference_parts(source.weights, source.distiller | changes, waveforms)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def frames_first(part: Tensor) -> Tensor:
    """`(batch, frame, …)` also for predictions, `(batch, heads, frame, size)`."""
    return part.transpose(1, 2) if part.ndim == 4 else part


@variants
def test_equals_s3prl_part_by_part(path: Path) -> None:
    expected = load_file(path.with_suffix(".expected.safetensors"))
    parts = parts_of(read_checkpoint(path), golden_waveforms(expected))
    assert parts.keys() == expected.keys() - {"input_values", "lengths", "single_1.last_hidden_state"}
    valid = expected.pop("frame_mask").bool()
    assert torch.equal(parts.pop("frame_mask"), valid)
    for name, part in parts.items():
        ours, theirs = frames_first(part)[valid], frames_first(expected[name])[valid]
        assert relative_difference(ours, theirs) <= TOLERANCE, name


@variants
def test_equals_s3prl_on_a_single_clip(path: Path) -> None:
    source, expected = read_checkpoint(path), load_file(path.with_suffix(".expected.safetensors"))
    parts = parts_of(source, [golden_waveforms(expected)[1]])
    last = parts[f"hidden_states.{source.distiller['encoder_layers']}"]
    assert relative_difference(last, expected["single_1.last_hidden_state"]) <= TOLERANCE


@variants
def test_padded_frames_of_the_projection_are_zero_as_in_s3prl(path: Path) -> None:
    expected = load_file(path.with_suffix(".expected.safetensors"))
    padded = ~expected["frame_mask"].bool()
    parts = parts_of(read_checkpoint(path), golden_waveforms(expected))
    assert padded.any()
    assert torch.equal(parts["projected_features"][padded], expected["projected_features"][padded])


def test_settings_that_are_absent_have_s3prls_defaults(golden_dir: Path) -> None:
    source, clips = read_checkpoint(golden_dir / "conversion" / "paper.ckpt"), [torch.randn(4_000)]
    settings = DEFAULTS | source.distiller
    sparing = {key: value for key, value in settings.items() if value != DEFAULTS.get(key)}
    assert sparing.keys() & DEFAULTS.keys() < DEFAULTS.keys()
    whole = reference_parts(source.weights, settings, clips)
    for name, part in reference_parts(source.weights, sparing, clips).items():
        assert torch.equal(part, whole[name]), name


def test_the_defaults_are_those_that_a_conversion_takes_for_granted() -> None:
    config, heads = configuration.from_distiller({})
    assert heads is not None
    expected = {
        "extractor_mode": {"group": "default", "layer": "layer_norm"}[config.feat_extract_norm],
        "extractor_conv_feature_layers": configuration.PAPER_CONV_LAYERS,
        "conv_pos_groups": config.num_conv_pos_embedding_groups,
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_attention_heads": config.num_attention_heads,
        "activation_fn": config.hidden_act,
        "layer_norm_first": config.do_stable_layer_norm,
        "out_layer_type": "expand-last",
        "task_emb_type": "expand-last",
        "n_tasks": len(heads.target_layers),
    }
    assert expected == DEFAULTS


def test_every_activation_that_a_conversion_allows_is_here_and_differs(golden_dir: Path) -> None:
    source, clips = read_checkpoint(golden_dir / "conversion" / "paper.ckpt"), [torch.randn(4_000)]
    assert set(ACTIVATIONS) == {*configuration.ACTIVATIONS, *configuration.ALIASES}
    names = configuration.ACTIVATIONS
    outputs = {name: parts_of(source, clips, activation_fn=name)["hidden_states.2"] for name in names}
    for name, output in outputs.items():
        assert output.isfinite().all()
        assert [other for other in outputs if torch.equal(outputs[other], output)] == [name]


def test_a_longer_clip_beside_it_leaves_frames_alone_where_only_channels_are_normalised(
    golden_dir: Path,
) -> None:
    source = read_checkpoint(golden_dir / "conversion" / "extractor-layer-norm.ckpt")
    short, long = torch.randn(4_000), torch.randn(9_000)
    alone, beside = parts_of(source, [short]), parts_of(source, [short, long])
    frames = int(beside["frame_mask"][0].sum())
    assert frames == alone["frame_mask"].sum()
    for name in ("conv_features", "hidden_states.1", "hidden_states.2"):
        assert relative_difference(beside[name][:1, :frames], alone[name]) <= TOLERANCE, name
