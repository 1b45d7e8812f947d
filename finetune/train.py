"""Teach a student to recognise speech: `python -m finetune.train`, the recipe on `transformers.Trainer`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.settings import FinetuneConfig
from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from transformers import Trainer

    from finetune.arguments import CTCTrainingArguments
    from finetune.recogniser import Recogniser
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.text_rules import Normaliser, TextRules

EXAMPLES = """\
  python -m finetune.train --model runs/student --data recordings --output_dir runs/recogniser
  python -m finetune.train --data hub:openslr/librispeech_asr:clean --output_dir runs/librispeech
  python -m finetune.train --data digits --output_dir runs/digits --augment true --eval_strategy epoch
  python -m finetune.train --recipe small-data --data recordings --output_dir runs/recogniser
  python -m finetune.train runs/digits/finetune.yaml --output_dir runs/again --seed 1
  python -m finetune.train --data recordings --save_strategy epoch --resume_from_checkpoint true
  accelerate launch -m finetune.train --data recordings --output_dir runs/recogniser

Every field of transformers.TrainingArguments is a flag too: --output_dir (runs/finetuned), --max_steps,
--num_train_epochs (10), --learning_rate (3e-4), --per_device_train_batch_size (16), --warmup_steps
(0.1, a share), --logging_steps (50), --eval_strategy and --save_strategy (no), --seed (0), --bf16
(where the hardware computes with it), …"""


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


def train(
    config: FinetuneConfig, arguments: CTCTrainingArguments, *, normalise: Normaliser | None = None
) -> FinetuneResult:
    """Fine-tune with CTC and write a folder with model, processor, log and results.

    Checkpoints, if `save_strategy` asks for any, lie in `OUTPUT_DIR.checkpoints` until the folder is written.

    Args:
        config: what is trained on what.
        arguments: how; `output_dir` is the new folder.
        normalise: a function from a transcript to its normal form, in place of `config.text`. No folder can
            hold it: give it to `score` again.

    Raises:
        UserError: the output folder exists, the data, the model, the checkpoint or a setting cannot be used,
            or the loss diverges.
    """
    from transformers import set_seed

    from finetune.checkpoints import checkpoint_folder, fit
    from finetune.data import drop_too_short, normalise_transcripts, read_split, transcripts
    from finetune.progress import announce
    from finetune.recogniser import recogniser_for, rules_for
    from finetune.text_report import text_report
    from finetune.trainer import make_trainer
    from hf_distilhubert.speech_data import write_skipped

    if config.eval_split == "none" and arguments.eval_strategy != "no":
        raise UserError(
            "--eval_strategy needs clips, and --eval_split none gives none; leave one of them out"
        )
    with (
        checkpoint_folder(arguments, overwrite=config.overwrite) as (checkpoints, checkpoint),
        _result_folder(arguments, overwrite=config.overwrite) as folder,
    ):
        # 1. Clips that can be read, with transcripts in normal form; bars are drawn once.
        with nullcontext() if arguments.process_index == 0 else redirect_stderr(StringIO()):
            training = read_split(config.data, config.train_split)
            written = transcripts(training)
            rules = rules_for(config, normalise)
            normalise_transcripts(training, rules)
            evaluation = _load_evaluation(config, arguments, rules)

        # 2. A model whose head belongs to the characters of those transcripts.
        set_seed(arguments.seed)
        texts = transcripts(training)
        recogniser = recogniser_for(config, texts, rules)
        tokenizer = recogniser.processor.tokenizer
        if arguments.process_index == 0:
            print(*text_report(rules, written, texts, recogniser), sep="\n", flush=True)
        drop_too_short(training, tokenizer, recogniser.model.config, augmented=config.augment)
        if arguments.process_index == 0:
            announce(recogniser, training, evaluation)

        # 3. Training, on Trainer.
        log = folder / "log.jsonl"
        trainer = make_trainer(config, arguments, recogniser, training, evaluation, log, checkpoints)
        start = time.perf_counter()
        fit(trainer, checkpoint)
        seconds = time.perf_counter() - start
        metrics = _evaluate(trainer) if evaluation else None

        # 4. The folder.
        result = FinetuneResult(
            folder=Path(str(arguments.output_dir)),
            steps=trainer.state.global_step,
            train_clips=len(training.clips),
            train_hours=training.hours,
            skipped=len(training.skipped),
            vocabulary_size=len(tokenizer),
            num_parameters=recogniser.model.num_parameters(),
            seconds=seconds,
            evaluation=metrics and {"wer": metrics["eval_wer"], "cer": metrics["eval_cer"]},
        )
        if arguments.process_index == 0:
            _save(folder, config, arguments, recogniser, rules, training, result)
            write_skipped(folder, [*training.skipped, *(evaluation.skipped if evaluation else ())])
    return result


def _evaluate(trainer: Trainer) -> dict[str, float]:
    """The metrics of the model as it is now, taken from the log where the last step was evaluated already."""
    done = [entry for entry in trainer.state.log_history if "eval_wer" in entry]
    if done and done[-1]["step"] == trainer.state.global_step and not trainer.args.load_best_model_at_end:
        return done[-1]
    return trainer.evaluate()


@contextmanager
def _result_folder(arguments: CTCTrainingArguments, *, overwrite: bool) -> Iterator[Path]:
    """The new folder for the first process, scratch space for the others."""
    from hf_distilhubert.folders import new_folder

    if arguments.process_index == 0:
        with new_folder(str(arguments.output_dir), overwrite=overwrite) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def _load_evaluation(
    config: FinetuneConfig, arguments: CTCTrainingArguments, rules: TextRules
) -> SpeechData | None:
    """The evaluation split; without one, evaluation is left out unless `--eval_strategy` asks for it."""
    from finetune.data import load_split

    if config.eval_split == "none":
        return None
    try:
        return load_split(config.data, config.eval_split, rules)
    except UserError as error:
        if arguments.eval_strategy != "no":
            raise
        if arguments.process_index == 0:
            print(f"no evaluation: {error}", flush=True)
        return None


def _save(
    folder: Path,
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    recogniser: Recogniser,
    rules: TextRules,
    training: SpeechData,
    result: FinetuneResult,
) -> None:
    from finetune.arguments import changed
    from hf_distilhubert.ctc import save_processor
    from hf_distilhubert.loading import quiet_transformers
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
    }
    if result.evaluation:
        figures["eval"] = result.evaluation
    # The rules as they were chosen: taken up again, these settings mean the same with any model.
    settings = asdict(config) | {"text": rules.text, "case": rules.case} | changed(arguments)
    record(folder, "finetune", settings, figures, source=None if config.from_scratch else config.model)


def main() -> None:
    """Read the command line, train, and say what came out."""
    classes: list[type] = [FinetuneConfig]
    if not {"-h", "--help"} & set(sys.argv[1:]):
        from finetune.arguments import CTCTrainingArguments

        classes.append(CTCTrainingArguments)
    config, arguments = parse_dataclasses(
        classes,
        prog="python -m finetune.train",
        description="Teach a student to recognise speech with CTC, on transformers.Trainer.",
        examples=EXAMPLES,
        recipes=Path(__file__).parent / "recipes",
    )
    result = train(config, arguments)
    if arguments.process_index == 0:
        rates = result.evaluation
        quality = f", WER {rates['wer']:.1%}, CER {rates['cer']:.1%} on {config.eval_split}" if rates else ""
        print(f"{result.folder}: {result.steps} steps in {result.seconds:.0f} s{quality}")


if __name__ == "__main__":
    run_command(main)
