"""Settings of a student: S3PRL's `Config['distiller']` <-> `HubertConfig`, one table for both directions.

S3PRL's keys and defaults are those of `DistillerConfig` (`s3prl/upstream/distiller/model.py`, v0.4.18).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from transformers import HubertConfig

from conversion.conv_layers import PAPER_CONV_LAYERS, format_conv_layers, parse_conv_layers
from conversion.mapping import Heads
from hf_distilhubert.errors import UserError
from hf_distilhubert.students import NO_MASKING

# S3PRL's key: Transformers' key and S3PRL's default.
SIZES = {
    "conv_pos": ("num_conv_pos_embeddings", 128),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16),
    "encoder_layers": ("num_hidden_layers", 1),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
}
DROPOUTS = {
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
}
NORMS = {"default": "group", "layer_norm": "layer"}
# Functions that both sides know under the same name.
ACTIVATIONS = ("gelu", "relu", "gelu_accurate", "tanh", "linear")
# What S3PRL takes it for; Transformers' function of this name is another.
ALIASES = {"gelu_fast": "gelu_accurate"}
# What S3PRL's distiller always is.
FIXED: dict[str, Any] = {
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": False,
    "layer_norm_eps": 1e-5,
}
# Training settings that S3PRL lacks. Without masking Transformers creates no (untrained) mask vector.
WITHOUT: dict[str, Any] = {"feat_proj_dropout": 0.0, "final_dropout": 0.0}
LARGEST = 100_000
MAX_LAYERS = 100


def from_distiller(distiller: Mapping[str, Any]) -> tuple[HubertConfig, Heads | None]:
    """The student that S3PRL's settings describe, and its prediction heads.

    Numbers may be given as S3PRL's casts take them (`2`, `2.0`, `"2"`). What only training knows and the
    config has no place for (`extractor_dropout`, `encoder_layerdrop`, `feature_grad_mult`) is left out.

    Raises:
        UserError: a setting is impossible, or one that Transformers cannot express.
    """
    _one_of(distiller, "attention_type", "original", ("original",))
    values: dict[str, Any] = FIXED | WITHOUT | NO_MASKING
    for key, (ours, default) in SIZES.items():
        values[ours] = _whole(distiller, key, default)
    for key, (ours, rate) in DROPOUTS.items():
        values[ours] = _rate(distiller, key, rate)
    layers = parse_conv_layers(distiller.get("extractor_conv_feature_layers", PAPER_CONV_LAYERS))
    values["conv_dim"], values["conv_kernel"], values["conv_stride"] = map(list, zip(*layers, strict=True))
    if values["num_hidden_layers"] > MAX_LAYERS:
        raise UserError(
            f"the checkpoint's config has encoder_layers = {values['num_hidden_layers']}; "
            f"allowed: 1 to {MAX_LAYERS}"
        )
    values["feat_extract_norm"] = NORMS[_one_of(distiller, "extractor_mode", "default", tuple(NORMS))]
    values["do_stable_layer_norm"] = _one_of(distiller, "layer_norm_first", False, (False, True))
    activation = _one_of(distiller, "activation_fn", "gelu", (*ACTIVATIONS, *ALIASES))
    values["hidden_act"] = ALIASES.get(activation, activation)
    for key in ("encoder_attention_heads", "conv_pos_groups"):
        if values["hidden_size"] % values[SIZES[key][0]]:
            raise UserError(
                f"the checkpoint's config has {key} = {values[SIZES[key][0]]}, which does not divide "
                f"encoder_embed_dim = {values['hidden_size']}; give a checkpoint with a config of its own"
            )
    return HubertConfig(**values), _heads(distiller, values["hidden_size"])


def to_distiller(config: HubertConfig, heads: Heads | None) -> dict[str, Any]:
    """S3PRL's settings of a student.

    Raises:
        UserError: the model is something that S3PRL's distiller cannot be.
    """
    for key, needed in FIXED.items():
        if getattr(config, key) != needed:
            raise UserError(
                f"S3PRL's distiller has no {key} = {getattr(config, key)!r}, only {needed!r}; "
                "give a student made by this project or converted from S3PRL, not a teacher"
            )
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(f"S3PRL's distiller has no hidden_act = {config.hidden_act!r}, only {ACTIVATIONS}")
    triples = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
    modes = {ours: theirs for theirs, ours in NORMS.items()}
    distiller: dict[str, Any] = {
        "extractor_mode": modes[config.feat_extract_norm],
        "extractor_conv_feature_layers": format_conv_layers(list(triples)),
        **{key: getattr(config, ours) for key, (ours, _) in SIZES.items()},
        "activation_fn": config.hidden_act,
        "layer_norm_first": config.do_stable_layer_norm,
        "attention_type": "original",
        **{key: float(getattr(config, ours)) for key, (ours, _) in DROPOUTS.items()},
        "encoder_layerdrop": 0.0,
    }
    if heads is None:
        return distiller | _without_heads(config)
    return distiller | {
        "out_layer_type": "expand-last",
        "task_emb_type": "expand-last",
        "out_layer_inter_dim": heads.inner_size,
        "final_dim": heads.output_size,
        "n_tasks": len(heads.target_layers),
        "pred_layer_id": list(heads.target_layers),
    }


def _without_heads(config: HubertConfig) -> dict[str, Any]:
    """Settings under which S3PRL's distiller has no heads and can still be listened to.

    With "none" S3PRL's expert calls a head that is not there, unless it gets `no_pred=True`, which SUPERB
    never says. With "self-hidden" the projected features and the layers themselves are handed out as the
    predictions: no weights either, and its expert asks for as many numbers of layers as there are of these.
    """
    number = config.num_hidden_layers + 1
    modes = {"out_layer_type": "self-hidden", "task_emb_type": "self-hidden"}
    return {**modes, "n_tasks": number, "pred_layer_id": list(range(number))}


def _heads(distiller: Mapping[str, Any], hidden_size: int) -> Heads | None:
    """The heads that S3PRL's `DistillerModel` builds: one per predicted layer, or none at all."""
    modes = ("expand-last", "self-hidden", "none")
    task = _one_of(distiller, "task_emb_type", "expand-last", modes)
    if _one_of(distiller, "out_layer_type", "expand-last", modes) != "expand-last":
        return None
    if task != "expand-last":
        raise UserError(
            f"the checkpoint's config has task_emb_type = {task!r} with out_layer_type = 'expand-last'; "
            "these two go together only where both are 'expand-last'"
        )
    number = _whole(distiller, "n_tasks", 12)
    layers = distiller.get("pred_layer_id", list(range(1, number + 1)))
    if not isinstance(layers, list) or len(layers) != number or not all(_is_whole(layer) for layer in layers):
        raise UserError(
            f"the checkpoint's config has pred_layer_id = {layers!r} and n_tasks = {number}; "
            f"expected {number} numbers of layers"
        )
    inner = _number(distiller.get("out_layer_inter_dim", -1))
    # S3PRL takes the encoder's size where the inner size is absent or negative.
    inner = hidden_size if _is_whole(inner) and inner <= 0 else _whole(distiller, "out_layer_inter_dim", -1)
    return Heads(tuple(layers), inner, _whole(distiller, "final_dim", 768))


def _one_of(distiller: Mapping[str, Any], key: str, default: Any, allowed: tuple[Any, ...]) -> Any:
    value = distiller.get(key, default)
    if isinstance(default, bool) and value in (0, 1):
        value = bool(value)
    if type(value) is not type(default) or value not in allowed:
        raise UserError(
            f"the checkpoint's config has {key} = {value!r}, which Transformers' HuBERT cannot express; "
            f"allowed: {', '.join(map(repr, allowed))}"
        )
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> object:
    """What S3PRL's `int()` or `float()` makes of a text; a number without a fraction is a whole one."""
    if isinstance(value, str) and len(value) <= 30:
        for cast in (int, float):
            try:
                return cast(value)
            except ValueError:
                continue
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole(distiller: Mapping[str, Any], key: str, default: int) -> int:
    value = _number(distiller.get(key, default))
    if not _is_whole(value) or not 1 <= value <= LARGEST:
        raise UserError(
            f"the checkpoint's config has {key} = {value!r}; expected a whole number from 1 to {LARGEST}"
        )
    return int(value)


def _rate(distiller: Mapping[str, Any], key: str, default: float) -> float:
    value = _number(distiller.get(key, default))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"the checkpoint's config has {key} = {value!r}; expected a number from 0 to 1")
    return float(value)
