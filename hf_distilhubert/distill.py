"""Distil a speech teacher into a small student: DistilHuBERT's pretraining (arXiv 2110.01900, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.settings import FREE, NO_TRACKER, DistillConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_distilhubert.checkpoints import Checkpoints
    from hf_distilhubert.distillation_folder import PretrainingData, Run
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.resume import Standing
    from hf_distilhubert.shapes import StudentShape
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.teachers import Teacher

EXAMPLES = """\
  distilhubert distill --teacher facebook/hubert-base-ls960 --data LibriSpeech --output_dir runs/student
  accelerate launch -m hf_distilhubert.distill --teacher runs/teacher --data speech \\
      --output_dir runs/student --target_layers 2 4 6 --max_steps 500
  distilhubert distill --recipe s3prl --data LibriSpeech --output_dir runs/as-s3prl
  distilhubert distill runs/student/distill.yaml --output_dir runs/again --seed 1"""


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

    Until then its checkpoints lie in `OUTPUT_DIR.checkpoints`, each of them a student too. Called again after
    a stop, it goes on from the newest; called again after the end, it returns what came out.

    Raises:
        UserError: teacher, data or output folder do not fit, or a checkpoint cannot be written.
        SystemExit: after SIGTERM, with status 0; a checkpoint is saved.
        KeyboardInterrupt: after Ctrl-C; a checkpoint is saved.
    """
    from accelerate.utils import set_seed

    from hf_distilhubert.checkpoints import Checkpoints
    from hf_distilhubert.distillation_folder import read_run, write_result
    from hf_distilhubert.distillation_run import pretrain
    from hf_distilhubert.processes import StopRequest
    from hf_distilhubert.teachers import load_teacher

    # 1. What can be refused is refused before anything heavy starts.
    checkpoints = Checkpoints(config.output_dir, config.keep_checkpoints)
    accelerator = _accelerator(config, checkpoints)
    main_process = accelerator.is_main_process
    standing = _standing(config, accelerator, checkpoints)
    if standing.finished:
        accelerator.end_training()
        return DistillResult(Path(config.output_dir), read_run(Path(config.output_dir)))
    shape = _shape(config)
    teacher = load_teacher(
        config.teacher,
        config.target_layers,
        shape,
        mask_group_norm=config.mask_group_norm,
        train_mode=config.teacher_dropout,
    )

    # 2. The student starts as the lower part of its teacher, or goes on where it stood.
    set_seed(config.seed)
    student = _student(config, teacher, shape)
    data = _load_data(config, accelerator)
    accelerator.print(_describe(config, teacher, student, data.train))

    # 3. Train; the folder gets its name when it is whole.
    stop = StopRequest()
    with checkpoints.opened(anew=standing.checkpoint is None) if main_process else nullcontext():
        run = pretrain(config, accelerator, teacher, student, data, checkpoints, standing, stop)
        if run is None:
            accelerator.print(_how_to_go_on(checkpoints))
            _end(accelerator)
            raise stop.leave()
        if main_process:
            write_result(config, teacher, student, data, run, checkpoints.log, replace=standing.replace)
            best = checkpoints.finish(run.best_step if run.best_step != config.max_steps else None)
            print(_summary(run, best))
    _end(accelerator)
    return DistillResult(Path(config.output_dir), run)


def _end(accelerator: Accelerator) -> None:
    """Part from the other processes while all are still there: what is left of a group waits for them."""
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _accelerator(config: DistillConfig, checkpoints: Checkpoints) -> Accelerator:
    """The processes and the precision are Accelerate's; each process gets its part of every batch."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DataLoaderConfiguration

    from hf_distilhubert.processes import choose_precision
    from hf_distilhubert.training_log import check_tracker

    check_tracker(config.report_to)
    # A notebook's second run may ask for another precision; Accelerate would keep to that of the first.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        # As an argument of its own, Accelerate 1.15 takes split_batches without a word, and ignores it.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
        mixed_precision=choose_precision(config.precision),
        log_with=None if config.report_to == NO_TRACKER else config.report_to,
        project_dir=str(checkpoints.folder),
    )
    if config.batch_size % (config.accumulation * accelerator.num_processes):
        raise UserError(
            f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} processes "
            f"with {config.accumulation} batches each; give a multiple"
        )
    return accelerator


def _standing(config: DistillConfig, accelerator: Accelerator, checkpoints: Checkpoints) -> Standing:
    """Whether the run begins, goes on or is finished, found out by the first process and said aloud."""
    from hf_distilhubert.processes import on_main
    from hf_distilhubert.resume import find_standing

    folder = Path(config.output_dir)
    inputs = [name for name in (config.teacher, config.student, config.data) if name]
    find = partial(find_standing, folder, "distill", asdict(config), checkpoints)
    standing = on_main(accelerator, partial(find, inputs=inputs, free=FREE, say=print))
    if standing.finished:
        accelerator.print(f"{folder} is finished; --overwrite begins anew")
    elif standing.checkpoint is not None:
        accelerator.print(f"going on from {standing.checkpoint}")
    return standing


def _shape(config: DistillConfig) -> StudentShape:
    """The student's shape: a named one, with what is given of its own over it."""
    from transformers import AutoConfig

    from hf_distilhubert.loading import load
    from hf_distilhubert.shapes import StudentShape, student_shape

    changes = {field.name: getattr(config, field.name) for field in fields(StudentShape)}
    return student_shape(config.shape, load(AutoConfig, config.teacher), **changes)


def _student(config: DistillConfig, teacher: Teacher, shape: StudentShape) -> HubertForLayerDistillation:
    """A new student, or the one that is named; its heads must be those that are asked for."""
    from hf_distilhubert.group_norm import mask_group_norm

    student = _existing_student(config) if config.student else _new_student(config, teacher, shape)
    if config.mask_group_norm:
        mask_group_norm(student)
    return student


def _new_student(config: DistillConfig, teacher: Teacher, shape: StudentShape) -> HubertForLayerDistillation:
    from hf_distilhubert.students import student_from_teacher

    return student_from_teacher(teacher.model, config.target_layers, shape, objective=config.objective)


def _existing_student(config: DistillConfig) -> HubertForLayerDistillation:
    from hf_distilhubert.heads import HubertForLayerDistillation, distillation_settings
    from hf_distilhubert.loading import load_model

    student = load_model(HubertForLayerDistillation, config.student)
    objective = distillation_settings(student.config)["objective"]
    if objective != config.objective:
        raise UserError(f"{config.student} has learned {objective}; give --objective {objective}")
    if student.target_layers != config.target_layers:
        raise UserError(
            f"{config.student} predicts layers {student.target_layers}, not {config.target_layers}; "
            f"give --target_layers {' '.join(map(str, student.target_layers))}"
        )
    return student


def _load_data(config: DistillConfig, accelerator: Accelerator) -> PretrainingData:
    """The clips to learn from, and the held-out ones (none where the data has no such split)."""
    from hf_distilhubert.distillation_folder import PretrainingData
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
        f"student: {student.config.num_hidden_layers} layers, "
        f"{student.hubert.num_parameters():,} parameters, "
        f"{len(config.target_layers)} heads for layers {', '.join(map(str, config.target_layers))}\n"
        f"speech: {len(train.clips):,} clips, {train.hours:.2f} hours, {len(train.skipped)} skipped"
    )


def _how_to_go_on(checkpoints: Checkpoints) -> str:
    saved = checkpoints.named()
    if not saved:
        return "stopped before there was anything to save; the same command begins again"
    return f"stopped, and saved {saved[-1]}; the same command (without --overwrite) goes on from there"


def _summary(run: Run, best: Path | None) -> str:
    rest = f"; {run.skipped_steps} steps left out, their loss not being finite" if run.skipped_steps else ""
    rest += f"; the lowest held-out loss was that of {best}" if best else ""
    if run.held_out is None:
        return f"trained for {run.seconds:.0f} s{rest}"
    before, after = run.held_out["before"]["loss"], run.held_out["after"]["loss"]
    return f"held-out loss {before:.4f} before, {after:.4f} after {run.seconds:.0f} s{rest}"


def main(argv: Sequence[str] | None = None, prog: str = "python -m hf_distilhubert.distill") -> DistillResult:
    """Distil from the command line."""
    (config,) = parse_dataclasses(
        [DistillConfig], prog, __doc__.splitlines()[0], EXAMPLES, argv, Path(__file__).parent / "recipes"
    )
    return distill(config)


if __name__ == "__main__":
    run_command(main)
