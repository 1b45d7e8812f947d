"""The model that a checkpoint becomes: with its heads, without, or with a new one for CTC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import HubertConfig, HubertForCTC, HubertModel

from conversion.checkpoint import Checkpoint
from conversion.configuration import from_distiller
from conversion.mapping import table, to_hugging_face
from hf_distilhubert.audio import feature_extractor
from hf_distilhubert.ctc import ctc_settings, load_vocabulary, reset_head, save_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.heads import HubertForLayerDistillation, head_settings
from hf_distilhubert.text_rules import read_text_rules

PREFIX = "hubert."


@dataclass(frozen=True)
class Student:
    """What is going to be written.

    Attributes:
        model: in evaluation mode, with the checkpoint's weights.
        names: the new name of every tensor of the checkpoint.
        target_layers: the teacher's layers that the heads predict; empty without heads.
        vocabulary_size: number of a CTC head's tokens; None for the other classes.
        save_processor: writes what brings sound to the model (and text from it) into a folder.
    """

    model: Any
    names: dict[str, str]
    target_layers: tuple[int, ...]
    vocabulary_size: int | None
    save_processor: Callable[[Path], object]


def make_student(
    source: Checkpoint, *, keep_heads: bool = False, ctc: str | Path | None = None, dtype: str = "float32"
) -> Student:
    """The student of a checkpoint.

    Args:
        source: S3PRL's checkpoint.
        keep_heads: keep the prediction heads (`HubertForLayerDistillation`).
        ctc: a `vocab.json` or a processor's folder, for `HubertForCTC` with a new head.
        dtype: type of the weights.

    Raises:
        UserError: Transformers cannot express the model, or it has no heads to keep.
    """
    if keep_heads and ctc is not None:
        raise UserError("--keep_heads goes on with distillation, --ctc with fine-tuning; give one of them")
    try:
        config, heads = from_distiller(source.distiller)
        weights = to_hugging_face(source.weights, config, heads)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    if keep_heads and heads is None:
        raise UserError(f"{source.path} has no prediction heads; leave --keep_heads out")
    names = {row.s3prl: row.hugging_face for row in table(config, heads)}
    if keep_heads and heads is not None:
        config.distillation = head_settings(heads.target_layers, heads.inner_size, heads.output_size)
        model = _filled(HubertForLayerDistillation, config, weights, dtype)
        return Student(model, names, heads.target_layers, None, _save_feature_extractor)
    weights = {name: tensor for name, tensor in weights.items() if name.startswith(PREFIX)}
    names = {old: new for old, new in names.items() if new in weights}
    if ctc is not None:
        return _recogniser(ctc, config, weights, names, dtype)
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    names = {old: new.removeprefix(PREFIX) for old, new in names.items()}
    return Student(_filled(HubertModel, config, weights, dtype), names, (), None, _save_feature_extractor)


def _recogniser(
    vocabulary: str | Path,
    config: HubertConfig,
    weights: dict[str, Tensor],
    names: dict[str, str],
    dtype: str,
) -> Student:
    """`HubertForCTC` with a head that starts from nothing, and the processor that belongs to it."""
    processor = load_vocabulary(vocabulary, do_normalize=False)
    config.update(ctc_settings(processor.tokenizer))
    size = config.vocab_size
    head = {"lm_head.weight": torch.zeros(size, config.hidden_size), "lm_head.bias": torch.zeros(size)}
    model = _filled(HubertForCTC, config, weights | head, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same command gives the same folder
        reset_head(model.lm_head, config.initializer_range)
    rules = read_text_rules(vocabulary, processor.tokenizer)
    return Student(model, names, (), size, partial(save_processor, processor, rules=rules))


def _filled(model_class: Any, config: HubertConfig, weights: dict[str, Tensor], dtype: str) -> Any:
    """The model with these very tensors: none is drawn at random first, none is copied.

    Raises:
        UserError: a weight is too large for `dtype`.
    """
    with torch.device("meta"):
        model = model_class(config)
    target = getattr(torch, dtype)
    cast = {name: tensor.to(target) for name, tensor in weights.items()}
    for name, tensor in cast.items():
        if tensor.dtype != torch.float32 and not torch.isfinite(tensor).all():
            raise UserError(f"tensor {name!r} holds values too large for {dtype}; leave --dtype out")
    model.load_state_dict(cast, strict=True, assign=True)
    model.config.dtype = target
    return model.eval()


def _save_feature_extractor(folder: Path) -> None:
    # S3PRL feeds raw waveforms and masks the padding, so users have to do the same.
    feature_extractor(do_normalize=False).save_pretrained(folder)
