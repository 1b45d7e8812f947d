"""A CTC model and its processor: from a student, from a recogniser that is adapted, or from nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.settings import FinetuneConfig
from finetune.vocabulary import build_processor, unknown_characters, unknown_share
from hf_distilhubert.ctc import ctc_settings, reset_head
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.layer_sum import with_layer_sum
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.text import change_case
from hf_distilhubert.text_rules import Normaliser, TextRules, chosen_rules, read_text_rules

MAX_UNKNOWN_SHARE = 0.05
# What `build_processor` takes where nothing is asked for.
IDLE: dict[str, Any] = {"min_count": 1, "digraphs": [], "graphemes": False}


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


def recogniser_for(config: FinetuneConfig, texts: Sequence[str], rules: TextRules) -> Recogniser:
    """What a run trains, with its front end frozen where the run leaves that alone.

    Raises:
        UserError: see `load_recogniser` and `fresh_recogniser`, or a model of this kind has no sum of layers.
    """
    alphabet = config.alphabet(rules)
    if config.from_scratch:
        recogniser = fresh_recogniser(config.from_scratch, texts, **alphabet)
    else:
        recogniser = load_recogniser(config.model, texts, new_head=config.new_head, **alphabet)
    if config.weighted_layer_sum:
        recogniser = _summed(recogniser, config.model)
    if config.freeze_feature_encoder and not config.from_scratch:
        recogniser.model.freeze_feature_encoder()
    return recogniser


def rules_for(config: FinetuneConfig, normalise: Normaliser | None = None) -> TextRules:
    """What a run normalises its texts with: as it is told, and for the rest as the recogniser's own were.

    Args:
        config: what is trained on what.
        normalise: a function in place of `config.text`.

    Raises:
        UserError: no such model, or its text rules are damaged.
    """
    processor = None if config.from_scratch else own_processor(config.model)
    own = None if processor is None else read_text_rules(config.model, processor.tokenizer)
    return chosen_rules(own, normalise or config.text, config.case)


def load_recogniser(
    source: str, texts: Sequence[str], *, new_head: bool = False, **alphabet: Any
) -> Recogniser:
    """Load any HuBERT, wav2vec2 or WavLM model; a recogniser keeps its own tokenizer and head.

    Args:
        source: a folder, or a repository on the Hub.
        texts: normalised transcripts.
        new_head: give a recogniser the characters of `texts` and an output layer that starts from nothing.
        **alphabet: how to choose characters for a model that has none, see `build_processor`.

    Raises:
        UserError: no such model, weights other than the head's are missing, or too many of the characters
            would be unknown.
    """
    from transformers import AutoFeatureExtractor, AutoModelForCTC

    processor = None if new_head else own_processor(source)
    new_head = processor is None
    if processor is None:
        do_normalize = load(AutoFeatureExtractor, source).do_normalize
        processor = _new_processor(texts, do_normalize=do_normalize, **alphabet)
    else:
        if any(value != IDLE.get(name) for name, value in alphabet.items()):
            raise UserError(
                f"{source} has a vocabulary of its own, so --min_count, --digraphs and --graphemes would do "
                "nothing; leave them out, or give --new_head true"
            )
        _check_own(source, texts, processor.tokenizer)
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


def fresh_recogniser(config_file: str | Path, texts: Sequence[str], **alphabet: Any) -> Recogniser:
    """A model with random weights, from the JSON of its config; it takes raw waveforms.

    Args:
        config_file: the JSON of a config.
        texts: normalised transcripts.
        **alphabet: how to choose the characters, see `build_processor`.

    Raises:
        UserError: the file cannot be read, or is not the config of a model of the HuBERT kind, or too many
            of the characters would be unknown.
    """
    from transformers import AutoConfig, AutoModelForCTC

    processor = _new_processor(texts, do_normalize=False, **alphabet)
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


def own_processor(source: str) -> Any | None:
    """The model's own processor, if the model is a recogniser whose tokenizer belongs to its outputs.

    Raises:
        UserError: no such model.
    """
    from transformers import AutoConfig, Wav2Vec2Processor

    config = load(AutoConfig, source)
    if not any(name.endswith("ForCTC") for name in config.architectures or ()):
        return None
    try:
        processor = load(Wav2Vec2Processor, source)
    except UserError:
        return None
    if len(processor.tokenizer) != config.vocab_size:
        return None
    processor.feature_extractor.return_attention_mask = True
    return processor


def _new_processor(texts: Sequence[str], *, do_normalize: bool, **alphabet: Any) -> Any:
    processor = build_processor(texts, do_normalize=do_normalize, **alphabet)
    share = unknown_share(texts, processor.tokenizer)
    if share > MAX_UNKNOWN_SHARE:
        raise UserError(
            f"{share:.0%} of the characters of the transcripts would be unknown (at most "
            f"{MAX_UNKNOWN_SHARE:.0%} may); lower --min_count"
        )
    return processor


def _check_own(source: str, texts: Sequence[str], tokenizer: Any) -> None:
    """Refuse a vocabulary that lacks much of the texts.

    Raises:
        UserError: it does.
    """
    share = unknown_share(texts, tokenizer)
    if share <= MAX_UNKNOWN_SHARE:
        return
    remedy = "give --new_head true for new outputs, which lose what the old ones learned"
    for case in ("upper", "lower"):
        if unknown_share([change_case(text, case) for text in texts], tokenizer) <= MAX_UNKNOWN_SHARE:
            remedy = f"they differ in case: give --case {case}"
    lacking = " ".join(list(unknown_characters(texts, tokenizer))[:20])
    raise UserError(
        f"the vocabulary of {source} lacks {share:.0%} of the characters of the transcripts (at most "
        f"{MAX_UNKNOWN_SHARE:.0%} may be unknown), such as {lacking}; {remedy}"
    )


def _summed(recogniser: Recogniser, source: str) -> Recogniser:
    model = with_layer_sum(recogniser.model)
    if model is not recogniser.model and not recogniser.new_head:
        raise UserError(
            f"the output layer of {source} was taught on its last layer, not on a sum of all; give "
            "--new_head true for a new one, or leave out --weighted_layer_sum"
        )
    return _ready(replace(recogniser, model=model))


def _ready(recogniser: Recogniser) -> Recogniser:
    # Trainer takes `**kwargs` of the model's forward as a sign that the model scales its own loss, and then
    # multiplies loss and gradients by accumulation steps and processes.
    recogniser.model.accepts_loss_kwargs = False
    # A clip sounds the same in training, in evaluation and alone, whatever it is padded to.
    mask_group_norm(recogniser.model)
    return recogniser
