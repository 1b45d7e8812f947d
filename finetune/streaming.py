"""Fine-tuning on speech that is read while it is learned from; only its transcripts are read before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from finetune.data import SpeechCollator, normalise_transcripts
from finetune.exact import ExactTrainer
from finetune.recogniser import own_processor, rules_for
from finetune.spoken_steps import SentenceReader, SpokenSteps
from hf_distilhubert.batches import ByCount
from hf_distilhubert.errors import UserError
from hf_distilhubert.processes import on_main
from hf_distilhubert.speech_data import Skipped, SpeechData
from hf_distilhubert.streamed_data import SharedBatches, StreamedSpeech, first_clips, open_speech
from hf_distilhubert.text_rules import Normaliser, TextRules

if TYPE_CHECKING:
    from finetune.arguments import CTCTrainingArguments
    from finetune.recogniser import Recogniser
    from finetune.settings import FinetuneConfig

STREAM = "stream.json"  # in a checkpoint: where the stream stands
WHOLE = 2**31  # samples: no clip is cropped, for its text belongs to all of it


@dataclass
class StreamedTraining:
    """What a run learns from, as far as it was read.

    Attributes:
        speech: the stream.
        rules: make the normal form of its transcripts.
        written: the transcripts as they stand there; none where they cannot be read alone.
        done: steps of the run that it goes on from.
    """

    speech: StreamedSpeech
    rules: TextRules
    written: list[str]
    done: int
    num_speakers: int = field(default=0, init=False)

    @property
    def texts(self) -> list[str]:
        """The transcripts in normal form, without empty ones."""
        return [text for text in map(self.rules, self.written) if text]

    @property
    def num_clips(self) -> int:
        """Different clips that were heard."""
        return self.speech.place.clips

    @property
    def hours(self) -> float:
        """Their duration."""
        return self.speech.hours

    @property
    def skipped(self) -> list[Skipped]:
        """What was passed over."""
        return self.speech.skipped

    def __str__(self) -> str:
        """What is known before anything is heard."""
        read = (
            f"{len(self.written):,} transcripts were read before" if self.written else "nothing read before"
        )
        return f"{self.speech}, {read}"


def open_stream(
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    normalise: Normaliser | None,
    checkpoint: Path | None,
) -> StreamedTraining:
    """Open the training split, at its beginning or where a checkpoint was written, and read its transcripts.

    Raises:
        UserError: a setting needs the list of clips, there is no such data, or a vocabulary would have to be
            made of transcripts that cannot be read without the sound.
    """
    _check(arguments)
    record: Mapping[str, Any] = _read_record(checkpoint) if checkpoint else {}
    state = arguments.distributed_state
    speech = open_speech(
        state, config.data, config.train_split, _order_seed(arguments), record.get("speech"), need_text=True
    )
    written = on_main(state, lambda: speech.stream and speech.stream.transcripts())
    own = not (config.new_head or config.from_scratch) and own_processor(config.model) is not None
    if not written and not own:
        raise UserError(
            f"{config.data}: a vocabulary is made of the transcripts, which only Parquet files give without "
            "their sound; adapt a recogniser with --model, or leave out --streaming"
        )
    return StreamedTraining(speech, rules_for(config, normalise), written or [], record.get("step", 0))


def first_of_split(data: str, split: str, rules: TextRules) -> SpeechData:
    """The first clips of a split on the Hub, in memory, with transcripts in normal form.

    Raises:
        UserError: no such split, or too few of them can be used.
    """
    found = first_clips(data, split, None)
    normalise_transcripts(found, rules)
    return found


def _check(arguments: CTCTrainingArguments) -> None:
    if arguments.max_steps < 1:
        raise UserError(
            "--streaming true needs --max_steps: how long a stream is, is not known before its end; give the "
            "number of steps, such as --max_steps 10000"
        )
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(arguments, name) == "epoch":
            raise UserError(f"--{name} epoch: a stream has no length, so no epochs; give steps")
    if arguments.dataloader_drop_last:
        raise UserError("--dataloader_drop_last true: a stream's batches are all whole; leave it out")
    if arguments.train_sampling_strategy != "group_by_length":
        raise UserError(
            f"--train_sampling_strategy {arguments.train_sampling_strategy} needs the list of clips, which "
            "--streaming true lacks; leave one of them out"
        )


def _order_seed(arguments: CTCTrainingArguments) -> int:
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def _read_record(checkpoint: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads((checkpoint / STREAM).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint} has no {STREAM}, so its run was not streamed; give the same --streaming"
        ) from error


def spoken_steps(
    training: StreamedTraining,
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    recogniser: Recogniser,
    collator: SpeechCollator,
) -> SpokenSteps:
    """The steps that are left of a run; they are read in the first process."""
    speech, parts = training.speech, arguments.gradient_accumulation_steps
    return SpokenSteps(
        speech,
        SentenceReader(
            training.rules,
            recogniser.processor.tokenizer,
            recogniser.model.config,
            arguments.seed if config.augment else None,
            arguments.seed if config.spec_augment else None,
        ),
        speech.stream,
        speech.name,
        ByCount(arguments.train_batch_size * parts * arguments.world_size),
        parts,
        collator,
        WHOLE,
        _order_seed(arguments),
        max(1, arguments.dataloader_num_workers),
        speech.place,
        max(1, arguments.max_steps - training.done),
    )


class StreamedTrainer(ExactTrainer):
    """Trainer on `SpokenSteps`, which one process reads for all; a checkpoint says where they stand."""

    def get_train_dataloader(self) -> Any:
        """The batches that are left, on the device."""
        steps, speech = self.train_dataset, self.train_dataset.speech
        own = steps if speech.stream is not None else None
        return SharedBatches(self.accelerator, speech, own, self.args.dataloader_num_workers)

    def _save_rng_state(self, output_dir: str) -> None:
        if self.args.process_index == 0:
            record = {"step": self.state.global_step, "speech": self.train_dataset.speech.record()}
            Path(output_dir, STREAM).write_text(json.dumps(record), encoding="utf-8")
        super()._save_rng_state(output_dir)


class StreamEpochs(TrainerCallback):
    """Trainer takes a stream for one epoch; what is logged is how often it was heard to its end.

    Args:
        speech: what is trained on.
    """

    def __init__(self, speech: StreamedSpeech) -> None:
        self.speech = speech

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the number right."""
        state.epoch = float(self.speech.place.epoch)
