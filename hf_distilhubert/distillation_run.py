"""One run of distillation, from its beginning or from a checkpoint to its last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from hf_distilhubert.cached_clips import TargetReader
from hf_distilhubert.checkpoints import Checkpoints
from hf_distilhubert.distillation_data import (
    Collator,
    HeldOutBatches,
    cut_of,
    fingerprint,
    training_batches,
)
from hf_distilhubert.distillation_folder import PretrainingData, Run, save_settings
from hf_distilhubert.pretraining import TeacherLoss, held_out_loss, make_optimizer, scale_gradient
from hf_distilhubert.processes import StopRequest
from hf_distilhubert.resume import Standing, resumed_state
from hf_distilhubert.snapshots import Snapshots
from hf_distilhubert.streamed_data import SharedBatches, StreamedSpeech
from hf_distilhubert.trackers import start_tracker
from hf_distilhubert.training import Hooks, Parts, run_loop
from hf_distilhubert.training_log import TrainingLog
from hf_distilhubert.training_state import LoopSettings, TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.teachers import Teacher


def pretrain(
    config: DistillConfig,
    accelerator: Accelerator,
    teacher: Teacher,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    checkpoints: Checkpoints,
    standing: Standing,
    stop: StopRequest,
) -> Run | None:
    """Train `student` in place, as `config` says, from the beginning or from a checkpoint on.

    Returns:
        The figures of the run; None if a signal stopped it, and a checkpoint is saved.

    Raises:
        UserError: the checkpoint does not fit or cannot be written, or the loss is not finite.
    """
    # 1. How far it is.
    circumstances = {
        "precision": accelerator.mixed_precision,
        "speech": data.train.fingerprint
        if isinstance(data.train, StreamedSpeech)
        else fingerprint(data.train.clips),
        "targets": data.targets.name if data.targets else "of crops",
    }
    if config.batch_seconds is not None:
        circumstances["clips in multiples of"] = config.accumulation * accelerator.num_processes
    state = resumed_state(standing.checkpoint, circumstances)

    # 2. What is trained, and on what.
    if data.targets is None:
        teacher.to(accelerator.device)
    loss_function = TeacherLoss(teacher, student.objective, config.cosine_weight)
    if config.freeze_feature_encoder:
        student.freeze_feature_encoder()
    else:
        scale_gradient(student.hubert.feature_extractor, config.feature_grad_mult)
    collator = Collator(
        student.config.conv_kernel, student.config.conv_stride, config.pad_multiple, config.mask_loss
    )
    reader = TargetReader(data.targets, collator, config.max_samples) if data.targets else None
    loader = _training_batches(config, accelerator, data, collator, reader, state.step)
    model, optimizer, scheduler, loader = accelerator.prepare(
        student, *make_optimizer(config, student), loader
    )
    parts = Parts(accelerator, model, optimizer, scheduler, loss_function)

    # 3. What is written down.
    log = TrainingLog(checkpoints.log, accelerator)
    settings = asdict(config) | {"overwrite": standing.replace}
    snapshots = Snapshots(accelerator, checkpoints, settings, circumstances, partial(save_settings, student))
    if standing.checkpoint is not None:
        snapshots.load(standing.checkpoint, log)
    start_tracker(accelerator, config.report_to, asdict(config), log.run_id, state.step)

    # 4. The steps.
    hooks = Hooks(
        evaluate=_evaluation(config, loss_function, student, data, collator, reader, stop),
        save=partial(_save, snapshots, log, data),
        stop=stop,
    )
    with stop.listening():
        finished = run_loop(parts, loader, log, _loop_settings(config), state, hooks)
    return _run(state, log) if finished else None


def _save(snapshots: Snapshots, log: TrainingLog, data: PretrainingData, state: TrainingState) -> None:
    state.data = data.record()
    snapshots.save(state, log)


def _training_batches(
    config: DistillConfig,
    accelerator: Accelerator,
    data: PretrainingData,
    collator: Collator,
    reader: TargetReader | None,
    start: int,
) -> DataLoader[Any] | SharedBatches:
    cut = cut_of(config, accelerator.num_processes)
    if isinstance(data.train, StreamedSpeech):
        return data.train.batches(accelerator, cut, collator, config, config.max_steps - start)
    return training_batches(
        data.train.clips,
        collator,
        cut=cut,
        num_batches=config.max_steps,
        parts=config.accumulation * accelerator.num_processes,
        max_samples=config.max_samples,
        seed=config.seed,
        num_workers=config.num_workers,
        start=start,
        targets=reader,
    )


def _evaluation(
    config: DistillConfig,
    loss_function: TeacherLoss,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    collator: Collator,
    reader: TargetReader | None,
    stop: StopRequest,
) -> Callable[[], dict[str, Any] | None] | None:
    """The held-out loss as the loop calls it: a signal cuts it short. None without held-out clips."""
    if not data.held_out.clips:
        return None
    batches = HeldOutBatches(data.held_out.clips, collator, config.batch_size, config.max_samples, reader)
    return lambda: held_out_loss(
        loss_function, student, batches, student.device, cut_short=lambda: stop.asked
    )


def _loop_settings(config: DistillConfig) -> LoopSettings:
    return LoopSettings(**{field.name: getattr(config, field.name) for field in fields(LoopSettings)})


def _run(state: TrainingState, log: TrainingLog) -> Run:
    final = {name: value for name, value in log.last.items() if name in ("loss", "l1", "cosine")}
    held_out = {"before": state.before, "after": state.after} if state.before else None
    return Run(final, held_out, state.seconds, state.skipped, state.best_step)
