"""The folder that a fine-tuning run leaves, and what it says of itself; light to import."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.settings import FinetuneConfig

if TYPE_CHECKING:
    from finetune.arguments import CTCTrainingArguments
    from finetune.recogniser import Recogniser
    from finetune.streaming import StreamedTraining
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.text_rules import TextRules


@dataclass(frozen=True)
class FinetuneResult:
    """What came out.

    Attributes:
        folder: where the recogniser lies.
        steps: optimiser steps.
        train_clips: clips trained on.
        train_hours: their duration.
        skipped: clips left out of them.
        vocabulary_size: tokens, the blank and the unknown among them.
        num_parameters: of the model.
        seconds: wall time of the training, since the checkpoint where it goes on from one.
        evaluation: `wer` and `cer` on the evaluation split (0.25 = 25 %), None without one.
    """

    folder: Path
    steps: int
    train_clips: int
    train_hours: float
    skipped: int
    vocabulary_size: int
    num_parameters: int
    seconds: float
    evaluation: dict[str, float] | None


@contextmanager
def result_folder(arguments: CTCTrainingArguments, *, overwrite: bool) -> Iterator[Path]:
    """The new folder for the first process, scratch space for the others."""
    from hf_distilhubert.folders import new_folder

    if arguments.process_index == 0:
        with new_folder(str(arguments.output_dir), overwrite=overwrite) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def save_result(
    folder: Path,
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    recogniser: Recogniser,
    rules: TextRules,
    training: SpeechData | StreamedTraining,
    result: FinetuneResult,
) -> None:
    """Write weights, processor, settings and figures into the folder."""
    from finetune.arguments import changed
    from hf_distilhubert.ctc import save_processor
    from hf_distilhubert.loading import quiet_transformers
    from hf_distilhubert.machine import hardware
    from hf_distilhubert.provenance import record, short_name
    from hf_distilhubert.tokens import tokens_of

    with quiet_transformers():
        recogniser.model.save_pretrained(folder)
    save_processor(recogniser.processor, folder, rules)
    figures: dict[str, Any] = {
        "data": short_name(config.data),
        "steps": result.steps,
        "batch_size": arguments.train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size,
        "learning_rate": arguments.learning_rate,
        "seed": arguments.seed,
        "train_clips": result.train_clips,
        "train_hours": result.train_hours,
        "train_speakers": training.num_speakers,
        "skipped": result.skipped,
        "seconds": result.seconds,
        "num_parameters": result.num_parameters,
        "text": str(rules),
        "vocabulary_size": result.vocabulary_size,
        "vocabulary": tokens_of(recogniser.processor.tokenizer),
        "hardware": hardware(arguments.device),
    }
    if result.evaluation:
        figures["eval"] = result.evaluation
    # The rules as they were chosen: taken up again, these settings mean the same with any model.
    settings = asdict(config) | {"text": rules.text, "case": rules.case} | changed(arguments)
    record(folder, "finetune", settings, figures, source=None if config.from_scratch else config.model)
