"""Distil a speech teacher into a small student: DistilHuBERT's pretraining (arXiv 2110.01900, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from hf_distilhubert.pretraining import Run
    from hf_distilhubert.speech_data import Clip, SpeechData
    from hf_distilhubert.teachers import Teacher

EXAMPLES = """\
  distilhubert distill --teacher facebook/hubert-base-ls960 --data LibriSpeech --output_dir runs/student
  accelerate launch -m hf_distilhubert.distill --teacher runs/teacher --data speech \\
      --output_dir runs/student --target_layers 2 4 6 --max_steps 500
  distilhubert distill runs/student/distill.yaml --output_dir runs/again --seed 1"""


def _setting(default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class DistillConfig:
    """What to distil and how; the defaults are the published recipe."""

    teacher: str = _setting("facebook/hubert-base-ls960", "folder or Hub repository of the teacher")
    data: str = _setting("hub:openslr/librispeech_asr:clean", "folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    output_dir: str = _setting("runs/student", "new folder for the student")
    train_split: str | None = _setting("train", "split to learn from; '' takes every clip")
    eval_split: str | None = _setting("validation", "split for the held-out loss; '' leaves it out")
    target_layers: list[int] = _setting(
        (4, 8, 12), "numbers of the teacher's layers to predict, one head each"
    )
    num_hidden_layers: int = _setting(
        2, "Transformer layers of the student, taken from the teacher's first ones"
    )
    max_steps: int = _setting(200_000, "optimiser steps; 0 writes the student as it starts")
    batch_size: int = _setting(24, "clips per step, over all processes")
    accumulation: int = _setting(1, "cut a step's clips into this many batches, one after the other")
    learning_rate: float = _setting(2e-4, "the highest, after the warm-up")
    warmup: float = _setting(0.07, "share of the steps in which the learning rate rises; then it falls to 0")
    weight_decay: float = _setting(1e-6, "of AdamW")
    max_grad_norm: float = _setting(5.0, "the gradient is scaled down to this norm")
    cosine_weight: float = _setting(1.0, "weight of the cosine part of the loss (lambda in the paper)")
    feature_grad_mult: float = _setting(0.1, "the front end's gradient is multiplied by this")
    max_samples: int = _setting(250_000, "longer clips are cropped at random to this many samples (16 kHz)")
    pad_multiple: int = _setting(3_200, "pad batches to a multiple of this many samples")
    num_workers: int = _setting(0, "processes that read audio")
    logging_steps: int = _setting(10, "steps between two lines of log.jsonl")
    seed: int = _setting(0, "of the heads, the order of the clips and their crops")
    overwrite: bool = _setting(False, "replace the output folder if it is there")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, before anything is loaded."""
        positive = (
            "num_hidden_layers",
            "batch_size",
            "accumulation",
            "learning_rate",
            "logging_steps",
        )
        for name in (*positive, "max_samples", "pad_multiple", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; give a number above 0")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup is {self.warmup}; give a share of the steps between 0 and 1")
        if self.batch_size % self.accumulation:
            raise UserError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulation} batches; give a divisor"
            )


@dataclass(frozen=True)
class DistillResult:
    """What came out.

    Attributes:
        output_dir: the student's folder.
        run: losses per layer, also held-out, and how long it took.
    """

    output_dir: Path
    run: Run


def distill(config: DistillConfig) -> DistillResult:
    """Distil a student and write its folder (model, `preprocessor_config.json`, log, results).

    Raises:
        UserError: teacher, data or output folder do not fit.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.pretraining import pretrain
    from hf_distilhubert.speech_data import write_skipped
    from hf_distilhubert.students import student_from_teacher
    from hf_distilhubert.teachers import load_teacher

    # 1. What can be refused is refused before anything heavy starts.
    check_new(config.output_dir, overwrite=config.overwrite)
    accelerator = Accelerator(split_batches=True, step_scheduler_with_optimizer=False)
    if config.batch_size % (config.accumulation * accelerator.num_processes):
        raise UserError(
            f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} processes "
            f"with {config.accumulation} batches each; give a multiple"
        )
    teacher = load_teacher(config.teacher, config.target_layers, config.num_hidden_layers)
    train, held_out = _load_data(config)

    # 2. The student starts as the lower part of its teacher.
    set_seed(config.seed)
    student = student_from_teacher(teacher.model, config.target_layers, config.num_hidden_layers)
    accelerator.print(_describe(config, teacher, student, train))

    # 3. Train; the folder gets its name when it is whole.
    main_process = accelerator.is_main_process
    with (
        new_folder(config.output_dir, overwrite=config.overwrite)
        if main_process
        else nullcontext(Path()) as folder
    ):
        run = pretrain(config, accelerator, teacher, student, train.clips, held_out, folder / "log.jsonl")
        if main_process:
            _save(config, folder, teacher, student, train, run)
            write_skipped(folder, train.skipped)
    accelerator.wait_for_everyone()
    accelerator.print(_summary(run))
    return DistillResult(Path(config.output_dir), run)


def _load_data(config: DistillConfig) -> tuple[SpeechData, list[Clip]]:
    """The clips to learn from, and the held-out ones (none where the data has no such split)."""
    from hf_distilhubert.speech_data import load_clips, verify_audio

    train = load_clips(config.data, config.train_split or None)
    verify_audio(train)
    if not config.eval_split:
        return train, []
    try:
        held_out = load_clips(config.data, config.eval_split)
        verify_audio(held_out)
    except UserError as error:
        print(f"no held-out loss: {error}", flush=True)
        return train, []
    return train, held_out.clips


def _describe(config: DistillConfig, teacher: Teacher, student: Any, train: SpeechData) -> str:
    return (
        f"teacher {config.teacher}: {teacher.config.num_hidden_layers} layers, "
        f"{teacher.model.num_parameters():,} parameters\n"
        f"student: {config.num_hidden_layers} layers, {student.hubert.num_parameters():,} parameters, "
        f"{len(config.target_layers)} heads for layers {', '.join(map(str, config.target_layers))}\n"
        f"speech: {len(train.clips):,} clips, {train.hours:.2f} hours, {len(train.skipped)} skipped"
    )


def _summary(run: Run) -> str:
    if run.held_out is None:
        return f"final training loss {run.final['loss']:.4f} after {run.seconds:.0f} s"
    before, after = run.held_out["before"]["loss"], run.held_out["after"]["loss"]
    return f"held-out loss {before:.4f} before, {after:.4f} after {run.seconds:.0f} s"


def _save(
    config: DistillConfig, folder: Path, teacher: Teacher, student: Any, train: SpeechData, run: Run
) -> None:
    """Model, feature extractor, settings and results; plain Transformers classes load the folder."""
    from transformers import Wav2Vec2FeatureExtractor

    from hf_distilhubert.loading import quiet_transformers
    from hf_distilhubert.provenance import record, short_name

    with quiet_transformers():
        student.save_pretrained(folder)
    # The student hears the waveform as it is (S3PRL), and was trained with masked padding.
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    results = {
        "data": short_name(config.data),
        "steps": config.max_steps,
        "batch_size": config.batch_size,
        "audio_hours": round(train.hours, 4),
        "seed": config.seed,
        "target_layers": config.target_layers,
        "num_parameters": student.hubert.num_parameters(),
        "teacher_parameters": teacher.model.num_parameters(),
        "skipped": len(train.skipped),
        **asdict(run),
    }
    record(folder, "distill", config, results, source=config.teacher)


def main(argv: Sequence[str] | None = None, prog: str = "python -m hf_distilhubert.distill") -> DistillResult:
    """Distil from the command line."""
    (config,) = parse_dataclasses([DistillConfig], prog, __doc__.splitlines()[0], EXAMPLES, argv)
    return distill(config)


if __name__ == "__main__":
    run_command(main)
