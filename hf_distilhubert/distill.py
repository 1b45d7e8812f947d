"""Distil a speech teacher into a small student: DistilHuBERT's pretraining (arXiv 2110.01900, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.audio import MIN_SAMPLES
from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.pretraining import PretrainingData, Run
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.teachers import Teacher

EXAMPLES = """\
  distilhubert distill --teacher facebook/hubert-base-ls960 --data LibriSpeech --output_dir runs/student
  accelerate launch -m hf_distilhubert.distill --teacher runs/teacher --data speech \\
      --output_dir runs/student --target_layers 2 4 6 --max_steps 500
  distilhubert distill runs/student/distill.yaml --output_dir runs/again --seed 1"""

POSITIVE = (
    *("num_hidden_layers", "batch_size", "accumulation", "learning_rate", "max_grad_norm"),
    *("pad_multiple", "logging_steps"),
)


def _setting(default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class DistillConfig:
    """What to distil and how; the defaults are the published recipe."""

    teacher: str = _setting("facebook/hubert-base-ls960", "folder or Hub repository of the teacher")
    student: str = _setting(
        "", "go on with this student (heads and all) instead of starting from the teacher"
    )
    data: str = _setting("hub:openslr/librispeech_asr:clean", "folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    output_dir: str = _setting("runs/student", "new folder for the student")
    train_split: str = _setting("train", "split to learn from; all takes every clip")
    eval_split: str = _setting("validation", "split for the held-out loss; none leaves it out")
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
        for name in POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in ("max_steps", "seed", "num_workers"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.max_samples < MIN_SAMPLES:
            raise UserError(f"max_samples is {self.max_samples}; a frame needs {MIN_SAMPLES}")
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
        folder: where the student lies.
        run: losses per layer, also held-out, and how long it took.
    """

    folder: Path
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

    # 2. The student starts as the lower part of its teacher, or goes on where it stood.
    set_seed(config.seed)
    student = _student(config, teacher)
    data = _load_data(config, accelerator)
    accelerator.print(_describe(config, teacher, student, data.train))

    # 3. Train; the folder gets its name when it is whole.
    main_process = accelerator.is_main_process
    with (
        new_folder(config.output_dir, overwrite=config.overwrite)
        if main_process
        else nullcontext(Path()) as folder
    ):
        run = pretrain(config, accelerator, teacher, student, data, folder / "log.jsonl")
        if main_process:
            _save(config, folder, teacher, student, data, run)
    accelerator.end_training()
    accelerator.print(_summary(run))
    return DistillResult(Path(config.output_dir), run)


def _student(config: DistillConfig, teacher: Teacher) -> HubertForLayerDistillation:
    """A new student, or the one that is named; its heads must be those that are asked for."""
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.loading import load_model
    from hf_distilhubert.students import student_from_teacher

    if not config.student:
        return student_from_teacher(teacher.model, config.target_layers, config.num_hidden_layers)
    student = load_model(HubertForLayerDistillation, config.student)
    if student.target_layers != config.target_layers:
        raise UserError(
            f"{config.student} predicts layers {student.target_layers}, not {config.target_layers}; "
            f"give --target_layers {' '.join(map(str, student.target_layers))}"
        )
    return student


def _load_data(config: DistillConfig, accelerator: Accelerator) -> PretrainingData:
    """The clips to learn from, and the held-out ones (none where the data has no such split)."""
    from hf_distilhubert.pretraining import PretrainingData
    from hf_distilhubert.speech_data import SpeechData, load_clips, verify_audio

    train, held_out = load_clips(config.data, config.train_split), SpeechData("held out")
    if config.eval_split != "none":
        try:
            held_out = load_clips(config.data, config.eval_split)
        except UserError as error:
            accelerator.print(f"no held-out loss: {error}")
    for data in (train, held_out):
        verify_audio(data)
    return PretrainingData(train, held_out)


def _describe(config: DistillConfig, teacher: Teacher, student: Any, train: SpeechData) -> str:
    return (
        f"teacher {config.teacher}: {teacher.config.num_hidden_layers} layers, "
        f"{teacher.model.num_parameters():,} parameters\n"
        f"student: {config.num_hidden_layers} layers, {student.hubert.num_parameters():,} parameters, "
        f"{len(config.target_layers)} heads for layers {', '.join(map(str, config.target_layers))}\n"
        f"speech: {len(train.clips):,} clips, {train.hours:.2f} hours, {len(train.skipped)} skipped"
    )


def _summary(run: Run) -> str:
    left_out = (
        f"; {run.skipped_steps} steps left out, their loss not being finite" if run.skipped_steps else ""
    )
    if run.held_out is None:
        return f"trained for {run.seconds:.0f} s{left_out}"
    before, after = run.held_out["before"]["loss"], run.held_out["after"]["loss"]
    return f"held-out loss {before:.4f} before, {after:.4f} after {run.seconds:.0f} s{left_out}"


def _save(
    config: DistillConfig,
    folder: Path,
    teacher: Teacher,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    run: Run,
) -> None:
    """Model, feature extractor, settings and results; plain Transformers classes load the folder."""
    from hf_distilhubert.audio import feature_extractor
    from hf_distilhubert.loading import quiet_transformers
    from hf_distilhubert.provenance import record, short_name
    from hf_distilhubert.speech_data import write_skipped

    with quiet_transformers():
        student.save_pretrained(folder)
    # The student hears the waveform as it is, as S3PRL's do.
    feature_extractor(do_normalize=False).save_pretrained(folder)
    skipped = [*data.train.skipped, *data.held_out.skipped]
    write_skipped(folder, skipped)
    results = {
        "data": short_name(config.data),
        "steps": config.max_steps,
        "batch_size": config.batch_size,
        "audio_hours": round(data.train.hours, 4),
        "seed": config.seed,
        "target_layers": config.target_layers,
        "num_parameters": student.hubert.num_parameters(),
        "teacher_parameters": teacher.model.num_parameters(),
        "skipped": len(skipped),
        **asdict(run),
    }
    record(folder, "distill", config, results, source=config.student or config.teacher)


def main(argv: Sequence[str] | None = None, prog: str = "python -m hf_distilhubert.distill") -> DistillResult:
    """Distil from the command line."""
    (config,) = parse_dataclasses([DistillConfig], prog, __doc__.splitlines()[0], EXAMPLES, argv)
    return distill(config)


if __name__ == "__main__":
    run_command(main)
