"""A student's config, and a student that starts with parts of its teacher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from transformers import HubertConfig

from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation, head_settings
from hf_distilhubert.objective import PAPER_OBJECTIVE
from hf_distilhubert.shapes import StudentShape, start_layers, student_sizes
from hf_distilhubert.starts import copy_parts

logger = logging.getLogger(__name__)

PAPER_SHAPE = StudentShape()
FRAME_STRIDE = 320  # samples per frame at 16 kHz, in all of the family that shares HuBERT's call

# The family, by `config.model_type`: one call, one order of layers, the same names for the same parts.
TEACHERS = ("hubert", "wav2vec2", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")

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

# data2vec-audio's config leaves unsaid what it always does, and counts five small positional convolutions
# where the others give the width of their one; a student has HuBERT's.
UNLIKE_HUBERT: dict[str, dict[str, Any]] = {
    "data2vec-audio": {
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": False,
        "num_conv_pos_embeddings": HubertConfig().num_conv_pos_embeddings,
    }
}


def student_config(
    teacher: Any,
    target_layers: Sequence[int],
    shape: StudentShape | int = PAPER_SHAPE,
    objective: str = PAPER_OBJECTIVE,
) -> HubertConfig:
    """The config of a student of this shape; what the shape leaves open is as its teacher has it.

    Args:
        teacher: the teacher's config, of one of the kinds of `TEACHERS`.
        target_layers: numbers of the teacher's layers that the heads predict.
        shape: see `StudentShape`; a number stands for so many of the teacher's first layers.
        objective: what the heads learn, a name of `OBJECTIVES`.

    Raises:
        UserError: the teacher is of another kind, or has no such layers, or its frames are not 20 ms long, or
            the shape's sizes do not go together.
    """
    check_teacher(teacher, target_layers, shape)
    sizes = student_sizes(_as_shape(shape), teacher)
    heads = head_settings(target_layers, sizes["hidden_size"], teacher.hidden_size, objective)
    if objective == "layer-to-layer" and len(target_layers) > sizes["num_hidden_layers"]:
        raise UserError(
            f"the objective layer-to-layer has a layer of the student for each of {list(target_layers)}, and "
            f"the student has {sizes['num_hidden_layers']}; give fewer target layers"
        )
    unlike = UNLIKE_HUBERT.get(teacher.model_type, {})
    inherited = {name: getattr(teacher, name) for name in INHERITED if name not in unlike}
    return HubertConfig(
        **inherited | unlike | NO_MASKING | sizes,
        # S3PRL's distiller has no LayerNorm before the projection.
        feat_proj_layer_norm=False,
        feat_proj_dropout=0.0,
        # The heads predict the teacher, however narrow the student is.
        distillation=heads,  # type: ignore[call-arg]
    )


def check_teacher(teacher: Any, target_layers: Sequence[int], shape: StudentShape | int) -> None:
    """Refuse a teacher that such a student cannot learn from.

    Raises:
        UserError: see `student_config`.
    """
    kind = getattr(teacher, "model_type", "?")
    if kind not in TEACHERS:
        raise UserError(f"a teacher of type {kind!r} cannot be followed; give one of {', '.join(TEACHERS)}")
    stride = 1
    for step in teacher.conv_stride:
        stride *= step
    if stride != FRAME_STRIDE:
        raise UserError(f"the teacher makes a frame of {stride} samples; {FRAME_STRIDE} (20 ms) is needed")
    if getattr(teacher, "add_adapter", False):
        raise UserError("the teacher has an adapter that makes its frames longer; give a model without one")
    depth = teacher.num_hidden_layers
    if not target_layers or len(set(target_layers)) < len(target_layers):
        raise UserError(f"target layers {list(target_layers)}: give one or more different layers")
    wrong = [layer for layer in target_layers if not 1 <= layer <= depth]
    if wrong:
        raise UserError(f"the teacher has no layer {wrong[0]}; its layers are 1 to {depth}")
    start_layers(_as_shape(shape), teacher)
    student_sizes(_as_shape(shape), teacher)


def student_from_teacher(
    teacher: Any,
    target_layers: Sequence[int],
    shape: StudentShape | int = PAPER_SHAPE,
    objective: str = PAPER_OBJECTIVE,
) -> HubertForLayerDistillation:
    """A student that starts with its teacher's front end, projection, positional convolution, some layers.

    As in S3PRL, `encoder.layer_norm` and the heads start afresh. Where the student is the narrower, its
    teacher's parts are cut to the channels of largest norm. What does not come over as it is, is said in the
    log (see `copy_parts`).

    S3PRL's distiller cannot be a student whose last convolution is as wide as its Transformer (see
    `conversion.to_s3prl`); of HuBERT Base none of the named shapes is.

    Args:
        teacher: a `HubertModel`, `Wav2Vec2Model` or another of the kinds of `TEACHERS`.
        target_layers: numbers of the teacher's layers to predict.
        shape: see `StudentShape`; a number stands for so many of the teacher's first layers.
        objective: what the heads learn, a name of `OBJECTIVES`.

    Raises:
        UserError: see `student_config`.
    """
    model = HubertForLayerDistillation(student_config(teacher.config, target_layers, shape, objective))
    layers = start_layers(_as_shape(shape), teacher.config)
    if not layers:
        logger.warning("student of a %s teacher: all of it starts at random", teacher.config.model_type)
        return model
    for start in copy_parts(model.hubert, teacher.base_model, layers):
        level = logging.INFO if start.whole else logging.WARNING
        logger.log(level, "student from a %s teacher: %s", teacher.config.model_type, start)
    return model


def _as_shape(shape: StudentShape | int) -> StudentShape:
    return StudentShape(num_hidden_layers=shape) if isinstance(shape, int) else shape
