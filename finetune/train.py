"""Teach a student to recognise speech: `python -m finetune.train`, the recipe on `transformers.Trainer`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.result import FinetuneResult, result_folder, save_result
from finetune.settings import FinetuneConfig
from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from transformers import Trainer

    from finetune.arguments import CTCTrainingArguments
    from finetune.streaming import StreamedTraining
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
    from finetune.data import drop_too_short
    from finetune.progress import announce
    from finetune.recogniser import recogniser_for
    from finetune.text_report import text_report
    from finetune.trainer import make_trainer
    from hf_distilhubert.speech_data import SpeechData, write_skipped

    if config.eval_split == "none" and arguments.eval_strategy != "no":
        raise UserError(
            "--eval_strategy needs clips, and --eval_split none gives none; leave one of them out"
        )
    if 0 < arguments.max_steps <= config.freeze_encoder_steps:
        raise UserError(
            f"--freeze_encoder_steps {config.freeze_encoder_steps} of {arguments.max_steps} steps teach the "
            "encoder nothing; give fewer"
        )
    with (
        checkpoint_folder(arguments, overwrite=config.overwrite) as (checkpoints, checkpoint),
        result_folder(arguments, overwrite=config.overwrite) as folder,
    ):
        # 1. Clips that can be read, with transcripts in normal form; bars are drawn once.
        with nullcontext() if arguments.process_index == 0 else redirect_stderr(StringIO()):
            training, rules, written, texts = _read_training(config, arguments, normalise, checkpoint)
            evaluation = _load_evaluation(config, arguments, rules)

        # 2. A model whose head belongs to the characters of those transcripts.
        set_seed(arguments.seed)
        recogniser = recogniser_for(config, texts, rules)
        tokenizer = recogniser.processor.tokenizer
        if arguments.process_index == 0:
            print(*text_report(rules, written, texts, recogniser), sep="\n", flush=True)
        if isinstance(training, SpeechData):
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
            train_clips=len(training.clips) if isinstance(training, SpeechData) else training.num_clips,
            train_hours=training.hours,
            skipped=len(training.skipped),
            vocabulary_size=len(tokenizer),
            num_parameters=recogniser.model.num_parameters(),
            seconds=seconds,
            evaluation=metrics and {"wer": metrics["eval_wer"], "cer": metrics["eval_cer"]},
        )
        if arguments.process_index == 0:
            save_result(folder, config, arguments, recogniser, rules, training, result)
            write_skipped(folder, [*training.skipped, *(evaluation.skipped if evaluation else ())])
    return result


def _evaluate(trainer: Trainer) -> dict[str, float]:
    """The metrics of the model as it is now, taken from the log where the last step was evaluated already."""
    done = [entry for entry in trainer.state.log_history if "eval_wer" in entry]
    if done and done[-1]["step"] == trainer.state.global_step and not trainer.args.load_best_model_at_end:
        return done[-1]
    return trainer.evaluate()


def _read_training(
    config: FinetuneConfig,
    arguments: CTCTrainingArguments,
    normalise: Normaliser | None,
    checkpoint: Path | None,
) -> tuple[SpeechData | StreamedTraining, TextRules, list[str], list[str]]:
    """What is learned from, the rules of its texts, its transcripts as they stand and in normal form."""
    from finetune.data import normalise_transcripts, read_split, transcripts
    from finetune.recogniser import rules_for
    from finetune.streaming import open_stream

    if config.streaming:
        stream = open_stream(config, arguments, normalise, checkpoint)
        return stream, stream.rules, stream.written, stream.texts
    found = read_split(config.data, config.train_split)
    written, rules = transcripts(found), rules_for(config, normalise)
    normalise_transcripts(found, rules)
    return found, rules, written, transcripts(found)


def _load_evaluation(
    config: FinetuneConfig, arguments: CTCTrainingArguments, rules: TextRules
) -> SpeechData | None:
    """The evaluation split; without one, evaluation is left out unless `--eval_strategy` asks for it."""
    from finetune.data import load_split
    from finetune.streaming import first_of_split

    if config.eval_split == "none":
        return None
    try:
        load = first_of_split if config.streaming and config.data.startswith("hub:") else load_split
        return load(config.data, config.eval_split, rules)
    except UserError as error:
        if arguments.eval_strategy != "no":
            raise
        if arguments.process_index == 0:
            print(f"no evaluation: {error}", flush=True)
        return None


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
