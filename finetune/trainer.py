"""A stock `transformers.Trainer` for a recogniser, with our data, collator and metrics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from finetune.advice import Advice
from finetune.arguments import CTCTrainingArguments
from finetune.data import CACHE_HOURS, ClipDataset, SpeechCollator
from finetune.evaluation import ErrorRates, argmax_tokens
from finetune.progress import watch
from finetune.recogniser import Recogniser
from finetune.settings import FinetuneConfig
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.speech_data import SpeechData


class EpochCounter(TrainerCallback):
    """Tell a data set which epoch begins: Accelerate does so for some samplers only.

    Args:
        dataset: what is trained on.
    """

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pass the number on; `state.epoch` is a fraction that may fall short of a whole by a hair."""
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))


def make_trainer(
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    recogniser: Recogniser,
    training: SpeechData,
    evaluation: SpeechData | None,
    log: Path,
    checkpoints: Path,
) -> Trainer:
    """A stock Trainer with our data, collator and metrics.

    Args:
        config: what is trained on what.
        arguments: how.
        recogniser: what is trained.
        training: clips to train on.
        evaluation: clips to evaluate on, None for no evaluation.
        log: file for what Trainer logs.
        checkpoints: folder for what Trainer saves.

    Raises:
        UserError: Trainer refuses its settings.
    """
    model, processor = recogniser.model, recogniser.processor
    arguments = copy.copy(arguments)
    arguments.output_dir = str(checkpoints)
    arguments.dataloader_pin_memory = arguments.dataloader_pin_memory and torch.accelerator.is_available()
    clips = ClipDataset(
        training.clips,
        processor.tokenizer,
        augment_seed=arguments.seed if config.augment else None,
        cache=training.hours <= CACHE_HOURS and arguments.dataloader_num_workers == 0,
    )
    try:
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=clips,
            eval_dataset=ClipDataset(evaluation.clips, processor.tokenizer) if evaluation else None,
            data_collator=SpeechCollator(processor.feature_extractor.do_normalize, config.pad_multiple),
            processing_class=processor,
            # The types are the stock arguments'; ours hand over batches, and the mask beside the labels.
            compute_metrics=ErrorRates(processor.tokenizer) if evaluation else None,  # type: ignore[arg-type]
            preprocess_logits_for_metrics=argmax_tokens(model),  # type: ignore[arg-type]
            callbacks=[EpochCounter(clips), Advice()],
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"Trainer refuses its settings: {one_line(error, 300)}") from error
    watch(trainer, log)
    return trainer
