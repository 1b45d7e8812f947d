"""A CTC model and its processor: from a student, from a recogniser that is adapted, or from nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.vocabulary import build_processor, unknown_characters
from hf_distilhubert.ctc import ctc_settings, reset_head
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.loading import load, load_model


@dataclass(frozen=True)
class Recogniser:
    """What is trained.

    Attributes:
        model: a `…ForCTC`, float32, ready for Trainer.
        processor: its `Wav2Vec2Processor`.
        new_head: whether the output layer starts from nothing.
    """

    model: Any
    processor: Any
    new_head: bool


def load_recogniser(source: str, texts: Sequence[str]) -> Recogniser:
    """Load any HuBERT, wav2vec2 or WavLM model; its own tokenizer and head stay where they cover `texts`.

    Args:
        source: a folder, or a repository on the Hub.
        texts: normalised transcripts.

    Raises:
        UserError: no such model, or weights other than the head's are missing.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC

    config = load(AutoConfig, source)
    processor = _own_processor(source, config, texts)
    new_head = processor is None
    if processor is None:
        processor = build_processor(texts, do_normalize=load(AutoFeatureExtractor, source).do_normalize)
    model = load_model(
        AutoModelForCTC,
        source,
        allow_missing=("lm_head.",) if new_head else (),
        ignore_mismatched_sizes=new_head,  # it may have another size than the old one
        **ctc_settings(processor.tokenizer),
    )
    if new_head:
        reset_head(model.lm_head, model.config.initializer_range)
    return _ready(Recogniser(model, processor, new_head))


def fresh_recogniser(config_file: str | Path, texts: Sequence[str]) -> Recogniser:
    """A model with random weights, from the JSON of its config; it takes raw waveforms.

    Raises:
        UserError: the file cannot be read, or is not the config of a model of the HuBERT kind.
    """
    from transformers import AutoConfig, AutoModelForCTC

    processor = build_processor(texts, do_normalize=False)
    try:
        values = json.loads(Path(config_file).read_text(encoding="utf-8"))
        config = AutoConfig.for_model(**{"model_type": "hubert"} | values | ctc_settings(processor.tokenizer))
        model = AutoModelForCTC.from_config(config)
    # Transformers' strict configs raise a class of their own for values of a wrong type.
    except Exception as error:
        raise UserError(
            f"{config_file} gives no model: {one_line(error, 300)}; give a HubertConfig as JSON"
        ) from error
    return _ready(Recogniser(model.float(), processor, new_head=True))


def _own_processor(source: str, config: Any, texts: Sequence[str]) -> Any | None:
    """The model's own processor, if the model is a recogniser whose vocabulary covers the texts."""
    from transformers import Wav2Vec2Processor

    if not any(name.endswith("ForCTC") for name in config.architectures or ()):
        return None
    try:
        processor = load(Wav2Vec2Processor, source)
    except UserError:
        return None
    tokenizer = processor.tokenizer
    if len(tokenizer) != config.vocab_size or tokenizer.do_lower_case or unknown_characters(texts, tokenizer):
        return None
    processor.feature_extractor.return_attention_mask = True
    return processor


def _ready(recogniser: Recogniser) -> Recogniser:
    # Trainer takes `**kwargs` of the model's forward as a sign that the model scales its own loss, and then
    # multiplies loss and gradients by accumulation steps and processes.
    recogniser.model.accepts_loss_kwargs = False
    return recogniser
