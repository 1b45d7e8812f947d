"""A model that can be exported: what is loaded, what its file says of itself, and what lies beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from hf_distilhubert import __version__
from hf_distilhubert.acoustic import AcousticModel
from hf_distilhubert.audio import MIN_SAMPLES, SAMPLING_RATE
from hf_distilhubert.ctc import save_processor
from hf_distilhubert.errors import UserError
from hf_distilhubert.export_graph import FramesAndLengths
from hf_distilhubert.layer_sum import MODEL_TYPE as LAYER_SUM
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.provenance import short_name, write_json
from hf_distilhubert.speech_data import Clip, load_clips
from hf_distilhubert.students import TEACHERS
from hf_distilhubert.text_rules import Normaliser, chosen_rules, read_text_rules
from hf_distilhubert.tokens import tokens_of

# What a model may be; the heads of these are there for its training alone.
HEADLESS = ("Model", "ForPreTraining", "ForLayerDistillation")


@dataclass(frozen=True)
class Exportable:
    """A model and what belongs to it.

    Attributes:
        source: its folder or repository.
        module: what is traced.
        processor: of a recogniser; None for a model without a CTC head.
        extractor: its feature extractor.
    """

    source: str | Path
    module: FramesAndLengths
    processor: Any
    extractor: Any

    @property
    def do_normalize(self) -> bool:
        """Whether it expects waveforms of zero mean and unit variance."""
        return bool(self.extractor.do_normalize)

    def metadata(self) -> dict[str, str]:
        """What the file says of itself: all that is needed to use it without the files beside it."""
        config = self.module.model.config
        stride = prod(config.conv_stride)
        found = {
            "model": str(short_name(self.source)),
            "architecture": type(self.module.model).__name__,
            "producer": f"hf-distilhubert {__version__}",
            "sampling_rate": str(SAMPLING_RATE),
            "frame_stride": str(stride),
            "frame_rate": f"{SAMPLING_RATE / stride:g}",
            "min_samples": str(MIN_SAMPLES),
            "do_normalize": json.dumps(self.do_normalize),
        }
        if self.processor is not None:
            tokenizer = self.processor.tokenizer
            found |= {
                "vocabulary": json.dumps(tokens_of(tokenizer), ensure_ascii=False),
                "blank_id": str(tokenizer.pad_token_id),
                "word_delimiter": tokenizer.word_delimiter_token,
            }
        return found

    def save(self, folder: Path, dtype: str) -> None:
        """Write what transformers.js and `AutoProcessor` read beside the file.

        Args:
            folder: the new folder.
            dtype: transformers.js' word for the file: `fp32` (`onnx/model.onnx`) or `q8`
                (`onnx/model_quantized.onnx`), which it then takes without being asked to.
        """
        if self.processor is None:
            self.extractor.save_pretrained(folder)
        else:
            save_processor(self.processor, folder, read_text_rules(self.source, self.processor.tokenizer))
        config = json.loads(self.module.model.config.to_json_string())
        if config["model_type"] == LAYER_SUM:  # it is part of the graph, and other clients know no such model
            config |= {"model_type": "hubert", "architectures": ["HubertForCTC"]}
        write_json(folder / "config.json", config | {"transformers.js_config": {"dtype": dtype}})


def load_exportable(source: str | Path) -> Exportable:
    """Load a model for export.

    Raises:
        UserError: there is none, or one of a kind that is not exported; said before its weights are loaded.
    """
    config = load(AutoConfig, source)
    kind = (config.architectures or [""])[0]
    _check_kind(source, config, kind)
    if kind.endswith("ForCTC"):
        recogniser = AcousticModel(source, device="cpu")
        processor = recogniser.processor
        return Exportable(source, FramesAndLengths(recogniser.model), processor, processor.feature_extractor)
    extractor = load(AutoFeatureExtractor, source)
    if getattr(extractor, "sampling_rate", None) != SAMPLING_RATE or not hasattr(extractor, "do_normalize"):
        raise UserError(
            f"{source} does not listen to waveforms of {SAMPLING_RATE} Hz; give a model that does"
        )
    return Exportable(source, FramesAndLengths(load_model(AutoModel, source)), None, extractor)


def _check_kind(source: str | Path, config: Any, kind: str) -> None:
    allowed = (*TEACHERS, LAYER_SUM)
    if config.model_type not in allowed:
        raise UserError(
            f"{source} is of type {config.model_type!r}, which cannot be exported; "
            f"give one of {', '.join(allowed)}"
        )
    if not kind.endswith(("ForCTC", *HEADLESS)):
        raise UserError(
            f"{source} holds a {kind or 'model of no name'}; give a model with a CTC head, or with none"
        )
    if getattr(config, "add_adapter", False):
        raise UserError(f"{source} has an adapter, which hears padding; give a model without one")


def speech_with_texts(
    exportable: Exportable, data: str | Path, split: str, text: str | Normaliser | None
) -> tuple[list[Clip], list[str]]:
    """Clips, and what is said in them in the recogniser's normal form; those that say nothing are left out.

    Raises:
        UserError: the model is no recogniser, or there are no such clips.
    """
    if exportable.processor is None:
        raise UserError(
            f"{exportable.source} is no recogniser, so there are no words to measure; leave out --data"
        )
    rules = chosen_rules(read_text_rules(exportable.source, exportable.processor.tokenizer), text)
    clips = load_clips(data, split, need_text=True).clips
    said = [(clip, rules(clip.text or "")) for clip in clips]
    return [clip for clip, words in said if words], [words for _, words in said if words]
