"""What a distillation run is set up from: processes, where it stands, teacher, student, speech."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoConfig

from hf_distilhubert.checkpoints import Checkpoints
from hf_distilhubert.distillation_data import cut_of, fingerprint
from hf_distilhubert.distillation_folder import PretrainingData
from hf_distilhubert.errors import UserError
from hf_distilhubert.folders import resolved
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.heads import HubertForLayerDistillation, distillation_settings
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.processes import choose_precision, on_main
from hf_distilhubert.resume import Standing, find_standing, taken_up
from hf_distilhubert.settings import FREE, NO_TRACKER, DistillConfig
from hf_distilhubert.shapes import StudentShape, student_shape
from hf_distilhubert.speech_data import Skipped, SpeechData, load_clips, undecodable
from hf_distilhubert.streamed_data import first_clips, open_speech
from hf_distilhubert.students import student_from_teacher
from hf_distilhubert.target_building import fill
from hf_distilhubert.target_cache import TargetCache, describe
from hf_distilhubert.teachers import Teacher, load_teacher
from hf_distilhubert.trackers import check_tracker


def make_accelerator(config: DistillConfig, checkpoints: Checkpoints) -> Accelerator:
    """The processes and the precision are Accelerate's; each process gets its part of every batch."""
    check_tracker(config.report_to)
    # A notebook's second run may ask for another precision; Accelerate would keep to that of the first.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        step_scheduler_with_optimizer=False,
        mixed_precision=choose_precision(config.precision),
        log_with=None if config.report_to == NO_TRACKER else config.report_to,
        project_dir=str(checkpoints.folder),
    )
    cut_of(config, accelerator.num_processes)  # refuses what cannot be shared out
    return accelerator


def standing_of(config: DistillConfig, accelerator: Accelerator, checkpoints: Checkpoints) -> Standing:
    """Whether the run begins, goes on or is finished, found out by the first process and said aloud."""
    folder = Path(config.output_dir)
    inputs = [name for name in (config.teacher, config.student, config.data, config.cache_targets) if name]
    outputs = (folder, checkpoints.folder) if config.cache_targets else ()
    if any(resolved(config.cache_targets).is_relative_to(resolved(output)) for output in outputs):
        raise UserError(f"{config.cache_targets} lies in the output folder; give another as --cache_targets")
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


def open_targets(config: DistillConfig, accelerator: Accelerator, teacher: Teacher) -> TargetCache | None:
    """The cache of targets that is named, as far as it is filled; another teacher's is refused."""
    if not config.cache_targets:
        return None
    header = describe(
        teacher,
        mask_group_norm=config.mask_group_norm,
        precision=str(accelerator.mixed_precision),
        dtype=config.cache_dtype,
    )
    return on_main(accelerator, partial(TargetCache, config.cache_targets, header))


def with_targets(
    accelerator: Accelerator, cache: TargetCache, teacher: Teacher, data: PretrainingData
) -> PretrainingData:
    """The data with a cache of targets, the held-out ones among them; what is not there yet is computed.

    From here on the teacher is only asked for its layers' numbers and its size: its weights are let go.
    """
    fill(accelerator, teacher, cache, [*data.train.clips, *data.held_out.clips])
    teacher.to("meta")
    return replace(data, targets=cache)


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


def load_data(config: DistillConfig, accelerator: Accelerator, standing: Standing) -> PretrainingData:
    """The clips to learn from, and the held-out ones (none where the data has no such split).

    Audio is decoded once to see that it can be: by the first process, and not again by a run that goes on.
    """
    known = taken_up(standing.checkpoint)
    if config.streaming:
        train = open_speech(accelerator, config.data, config.train_split, config.seed, known.get("train"))
        held_out = _held_out(config, accelerator, train.revision)
        check = {"held_out": _without_undecodable(accelerator, held_out, known.get("held_out"))}
        return PretrainingData(train, held_out, check=check)
    clips, held_out = load_clips(config.data, config.train_split), _held_out(config, accelerator)
    check = {
        name: _without_undecodable(accelerator, data, known.get(name))
        for name, data in (("train", clips), ("held_out", held_out))
    }
    return PretrainingData(clips, held_out, check=check)


def _held_out(config: DistillConfig, accelerator: Accelerator, revision: str | None = None) -> SpeechData:
    """The held-out clips: of streamed data on the Hub the first ones, of other data all."""
    if config.eval_split == "none":
        return SpeechData("held out")
    try:
        if revision is not None:
            return on_main(accelerator, partial(first_clips, config.data, config.eval_split, revision))
        return load_clips(config.data, config.eval_split)
    except UserError as error:
        accelerator.print(f"no held-out loss: {error}")
        return SpeechData("held out")


def _without_undecodable(
    accelerator: Accelerator, data: SpeechData, known: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Leave out what does not decode.

    Args:
        accelerator: its first process decodes.
        data: the clips, by their headers.
        known: what was found before, and of which clips.

    Returns:
        What was found, and of which clips, in plain values.
    """
    listed = fingerprint(data.clips)
    if known is not None and known["speech"] == listed:
        unusable = [Skipped(**clip) for clip in known["unusable"]]
    else:
        unusable = on_main(accelerator, partial(undecodable, data.clips))
    if unusable:
        data.skip(unusable)
    return {"speech": listed, "unusable": [asdict(clip) for clip in unusable]}
