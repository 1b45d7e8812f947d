"""What a distillation run is set up from: processes, where it stands, teacher, student, speech."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from transformers import AutoConfig

from hf_distilhubert.checkpoints import Checkpoints
from hf_distilhubert.distillation_folder import PretrainingData
from hf_distilhubert.errors import UserError
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.heads import HubertForLayerDistillation, distillation_settings
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.processes import choose_precision, on_main
from hf_distilhubert.resume import Standing, find_standing
from hf_distilhubert.settings import FREE, NO_TRACKER, DistillConfig
from hf_distilhubert.shapes import StudentShape, student_shape
from hf_distilhubert.speech_data import SpeechData, load_clips, verify_audio
from hf_distilhubert.students import student_from_teacher
from hf_distilhubert.teachers import Teacher, load_teacher
from hf_distilhubert.training_log import check_tracker


def make_accelerator(config: DistillConfig, checkpoints: Checkpoints) -> Accelerator:
    """The processes and the precision are Accelerate's; each process gets its part of every batch."""
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


def standing_of(config: DistillConfig, accelerator: Accelerator, checkpoints: Checkpoints) -> Standing:
    """Whether the run begins, goes on or is finished, found out by the first process and said aloud."""
    folder = Path(config.output_dir)
    inputs = [name for name in (config.teacher, config.student, config.data) if name]
    find = partial(find_standing, folder, "distill", asdict(config), checkpoints)
    standing = on_main(accelerator, partial(find, inputs=inputs, free=FREE, say=print))
    if standing.finished:
        accelerator.print(f"{folder} is finished; --overwrite begins anew")
    elif standing.checkpoint is not None:
        accelerator.print(f"going on from {standing.checkpoint}")
    return standing


def student_shape_of(config: DistillConfig) -> StudentShape:
    """The student's shape: a named one, with what is given of its own over it."""
    changes = {field.name: getattr(config, field.name) for field in fields(StudentShape)}
    return student_shape(config.shape, load(AutoConfig, config.teacher), **changes)


def make_teacher(config: DistillConfig, shape: StudentShape) -> Teacher:
    """The teacher; one that does not fit is refused before its weights are loaded."""
    return load_teacher(
        config.teacher,
        config.target_layers,
        shape,
        mask_group_norm=config.mask_group_norm,
        train_mode=config.teacher_dropout,
    )


def make_student(config: DistillConfig, teacher: Teacher, shape: StudentShape) -> HubertForLayerDistillation:
    """A new student, or the one that is named; its heads must be those that are asked for."""
    if config.student:
        student = _existing_student(config)
    else:
        student = student_from_teacher(teacher.model, config.target_layers, shape, objective=config.objective)
    if config.mask_group_norm:
        mask_group_norm(student)
    return student


def _existing_student(config: DistillConfig) -> HubertForLayerDistillation:
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


def load_data(config: DistillConfig, accelerator: Accelerator) -> PretrainingData:
    """The clips to learn from, and the held-out ones (none where the data has no such split)."""
    train, held_out = load_clips(config.data, config.train_split), SpeechData("held out")
    if config.eval_split != "none":
        try:
            held_out = load_clips(config.data, config.eval_split)
        except UserError as error:
            accelerator.print(f"no held-out loss: {error}")
    for data in (train, held_out):
        verify_audio(data)
    return PretrainingData(train, held_out)
