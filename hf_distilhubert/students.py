"""A student's config, and a student that starts as the lower part of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import HubertConfig

from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation, head_settings

FRAME_STRIDE = 320  # samples per frame at 16 kHz, in all of the family that shares HuBERT's call

# A converted model has no trained mask vector, and a model of two layers none to spare.
NO_MASKING: dict[str, Any] = {
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
}

# What a student takes over from its teacher's config; everything else is HubertConfig's default.
INHERITED = (
    "activation_dropout",
    "attention_dropout",
    "conv_bias",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "do_stable_layer_norm",
    "feat_extract_activation",
    "feat_extract_norm",
    "hidden_act",
    "hidden_dropout",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_conv_pos_embedding_groups",
    "num_conv_pos_embeddings",
)


def student_config(teacher: Any, target_layers: Sequence[int], num_hidden_layers: int = 2) -> HubertConfig:
    """The config of a student that is `num_hidden_layers` deep and otherwise shaped like its teacher.

    Args:
        teacher: the teacher's config (HuBERT, wav2vec2 or one of that shape).
        target_layers: numbers of the teacher's layers that the heads predict.
        num_hidden_layers: Transformer layers of the student.

    Raises:
        UserError: the teacher lacks such layers, or its frames are not 20 ms long.
    """
    check_teacher(teacher, target_layers, num_hidden_layers)
    return HubertConfig(
        **{name: getattr(teacher, name) for name in INHERITED},
        **NO_MASKING,
        num_hidden_layers=num_hidden_layers,
        # S3PRL's distiller has no LayerNorm before the projection.
        feat_proj_layer_norm=False,
        feat_proj_dropout=0.0,
        distillation=head_settings(target_layers, teacher.hidden_size, teacher.hidden_size),  # type: ignore[call-arg]
    )


def check_teacher(teacher: Any, target_layers: Sequence[int], num_hidden_layers: int) -> None:
    """Refuse a teacher that such a student cannot learn from.

    Raises:
        UserError: see `student_config`.
    """
    missing = [name for name in (*INHERITED, "num_hidden_layers") if not hasattr(teacher, name)]
    if missing:
        raise UserError(
            f"a teacher of type {getattr(teacher, 'model_type', '?')!r} has no {missing[0]}; "
            "give a model of the HuBERT or wav2vec2 kind"
        )
    stride = 1
    for step in teacher.conv_stride:
        stride *= step
    if stride != FRAME_STRIDE:
        raise UserError(f"the teacher makes a frame of {stride} samples; {FRAME_STRIDE} (20 ms) is needed")
    depth = teacher.num_hidden_layers
    if not target_layers or len(set(target_layers)) < len(target_layers):
        raise UserError(f"target layers {list(target_layers)}: give one or more different layers")
    wrong = [layer for layer in target_layers if not 1 <= layer <= depth]
    if wrong:
        raise UserError(f"the teacher has no layer {wrong[0]}; its layers are 1 to {depth}")
    if not 1 <= num_hidden_layers <= depth:
        raise UserError(f"a student of {num_hidden_layers} layers; 1 to {depth} can come from this teacher")


def student_from_teacher(
    teacher: Any, target_layers: Sequence[int], num_hidden_layers: int = 2
) -> HubertForLayerDistillation:
    """A student that starts with its teacher's front end, projection, positional convolution, first layers.

    As in S3PRL (`pretrain/distiller/pretrain_expert.py`), `encoder.layer_norm` and the heads start afresh.

    Args:
        teacher: a `HubertModel`, `Wav2Vec2Model` or one with the same parts.
        target_layers: numbers of the teacher's layers to predict.
        num_hidden_layers: Transformer layers of the student.

    Raises:
        UserError: the teacher has other parts, see also `student_config`.
    """
    model = HubertForLayerDistillation(student_config(teacher.config, target_layers, num_hidden_layers))
    student = model.hubert
    try:
        pairs: list[tuple[nn.Module, nn.Module]] = [
            (student.feature_extractor, teacher.feature_extractor),
            (student.feature_projection.projection, teacher.feature_projection.projection),
            (student.encoder.pos_conv_embed, teacher.encoder.pos_conv_embed),
            *zip(student.encoder.layers, teacher.encoder.layers, strict=False),
        ]
        for own, taught in pairs:
            own.load_state_dict(taught.state_dict())
    except (AttributeError, RuntimeError) as error:
        kind = type(teacher).__name__
        raise UserError(f"the parts of a {kind} do not fit a HuBERT student: {error}") from error
    return model
