"""A `transformers.Trainer` for a recogniser, with our data, collator and metrics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from finetune.advice import Advice
from finetune.arguments import CTCTrainingArguments
from finetune.checkpoints import run_settings
from finetune.data import CACHE_HOURS, ClipDataset, SpeechCollator
from finetune.evaluation import ErrorRates, argmax_tokens
from finetune.exact import ExactTrainer, LateCheckpoints
from finetune.optimiser import FreezeEncoder, decay_layers
from finetune.progress import watch
from finetune.recogniser import Recogniser
from finetune.settings import FinetuneConfig
from finetune.spec_augment import spec_augment_for
from finetune.spoken_steps import SpokenSteps
from finetune.streaming import StreamedTrainer, StreamedTraining, StreamEpochs, spoken_steps
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
    training: SpeechData | StreamedTraining,
    evaluation: SpeechData | None,
    log: Path,
    checkpoints: Path,
) -> ExactTrainer:
    """A Trainer with our data, collator and metrics, whose runs can be gone on with exactly.

    Args:
        config: what is trained on what.
        arguments: how.
        recogniser: what is trained.
        training: clips to train on, listed or streamed.
        evaluation: clips to evaluate on, None for no evaluation.
        log: file for what Trainer logs.
        checkpoints: folder for what Trainer saves.

    Raises:
        UserError: Trainer refuses its settings.
    """
    model, processor = recogniser.model, recogniser.processor
    settings = run_settings(config, arguments)
    arguments = copy.copy(arguments)
    arguments.output_dir = str(checkpoints)
    arguments.dataloader_pin_memory = arguments.dataloader_pin_memory and torch.accelerator.is_available()
    collator = SpeechCollator(
        processor.feature_extractor.do_normalize, config.pad_multiple, spec_augment_for(config, model)
    )
    kind: type[ExactTrainer]
    clips: ClipDataset | SpokenSteps
    if isinstance(training, StreamedTraining):
        kind, clips = StreamedTrainer, spoken_steps(training, config, arguments, recogniser, collator)
        callbacks: list[TrainerCallback] = [StreamEpochs(training.speech)]
        arguments.ignore_data_skip = True  # the stream itself begins where the checkpoint was written
    else:
        kind, clips = ExactTrainer, _clips(config, arguments, recogniser, training)
        callbacks = [EpochCounter(clips), LateCheckpoints()]
    try:
        trainer = kind(
            model=model,
            args=arguments,
            train_dataset=clips,
            eval_dataset=ClipDataset(evaluation.clips, processor.tokenizer) if evaluation else None,
            data_collator=collator,
            processing_class=processor,
            # The types are the stock arguments'; ours hand over batches, and the mask beside the labels.
            compute_metrics=ErrorRates(processor.tokenizer) if evaluation else None,  # type: ignore[arg-type]
            preprocess_logits_for_metrics=argmax_tokens(model),  # type: ignore[arg-type]
            callbacks=[*callbacks, Advice()],
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"Trainer refuses its settings: {one_line(error, 300)}") from error
    trainer.settings = settings
    if config.freeze_encoder_steps:
        trainer.add_callback(FreezeEncoder(model.base_model, config.freeze_encoder_steps))
    if config.layer_decay < 1:
        decay_layers(trainer, config.layer_decay)
    watch(trainer, log)
    return trainer


def _clips(
    config: FinetuneConfig, arguments: CTCTrainingArguments, recogniser: Recogniser, training: SpeechData
) -> ClipDataset:
    return ClipDataset(
        training.clips,
        recogniser.processor.tokenizer,
        augment_seed=arguments.seed if config.augment else None,
        mask_seed=arguments.seed if config.spec_augment else None,
        cache=training.hours <= CACHE_HOURS and arguments.dataloader_num_workers == 0,
    )
