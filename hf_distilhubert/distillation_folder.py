"""The folder of a distilled student: written when it is whole, and read again by a run that is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hf_distilhubert.audio import feature_extractor
from hf_distilhubert.checkpoints import LOG
from hf_distilhubert.curves import draw_distillation, read_log
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.folders import new_folder
from hf_distilhubert.loading import quiet_transformers
from hf_distilhubert.machine import hardware
from hf_distilhubert.provenance import record, short_name
from hf_distilhubert.speech_data import SpeechData, write_skipped
from hf_distilhubert.streamed_data import StreamedSpeech

if TYPE_CHECKING:
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.target_cache import TargetCache
    from hf_distilhubert.teachers import Teacher


@dataclass(frozen=True)
class PretrainingData:
    """Clips to learn from, clips to measure the loss on (possibly none), targets of both (where cached).

    `check` says, for a run that goes on, which of them did not decode.
    """

    train: SpeechData | StreamedSpeech
    held_out: SpeechData
    targets: TargetCache | None = None
    check: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds of the data, in plain values."""
        streamed = {"train": self.train.record()} if isinstance(self.train, StreamedSpeech) else {}
        return dict(self.check) | streamed


@dataclass(frozen=True)
class Run:
    """The figures of a training run.

    Attributes:
        final: loss, L1 and cosine per layer, means over the last logged steps.
        held_out: the same over the held-out clips, `before` and `after`; None without such clips.
        seconds: duration of the training steps.
        skipped_steps: steps that were left out, their loss or gradient not being finite.
        best_step: step of the checkpoint of the lowest held-out loss, where any was measured.
    """

    final: dict[str, Any]
    held_out: dict[str, Any] | None
    seconds: float
    skipped_steps: int
    best_step: int | None


def write_result(
    config: DistillConfig,
    teacher: Teacher,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    run: Run,
    log: Path,
    *,
    replace: bool,
) -> None:
    """Write the folder of a finished run.

    Args:
        config: its settings.
        teacher: what was learned from.
        student: what has learned.
        data: clips that were used.
        run: its figures.
        log: its log, which is copied.
        replace: another result may make room.

    Raises:
        UserError: the folder cannot be written; nothing of it is left.
    """
    with new_folder(config.output_dir, overwrite=replace) as folder:
        try:
            _save(config, folder, teacher, student, data, run)
            shutil.copyfile(log, folder / LOG)
            _draw(folder)
        # On a full disk torch and safetensors raise classes of their own.
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"cannot write {config.output_dir}: {one_line(error, limit=200)}; "
                "make room, and the same command goes on from its last checkpoint"
            ) from error


def _draw(folder: Path) -> None:
    """The curves as `figures/losses.png`, where any step was logged."""
    lines = read_log(folder / LOG)
    if any("loss" in line for line in lines):
        (folder / "figures").mkdir()
        draw_distillation(lines, folder / "figures" / "losses.png")


def _save(
    config: DistillConfig,
    folder: Path,
    teacher: Teacher,
    student: HubertForLayerDistillation,
    data: PretrainingData,
    run: Run,
) -> None:
    """Model, feature extractor, settings and results; plain Transformers classes load the folder."""
    with quiet_transformers():
        student.save_pretrained(folder)
    save_settings(student, folder)
    skipped = [*data.train.skipped, *data.held_out.skipped]
    write_skipped(folder, skipped)
    results = {
        "teacher": short_name(config.teacher),
        "data": short_name(config.data),
        "steps": config.max_steps,
        **_batches(config),
        "audio_hours": round(data.train.hours, 4),
        "seed": config.seed,
        "target_layers": config.target_layers,
        "num_parameters": student.hubert.num_parameters(),
        "teacher_parameters": teacher.model.num_parameters(),
        "skipped": len(skipped),
        **asdict(run),
        "hardware": hardware(student.device),
    }
    record(folder, "distill", config, results, source=config.student or config.teacher)


def _batches(config: DistillConfig) -> dict[str, float]:
    if config.batch_seconds is None:
        return {"batch_size": config.batch_size}
    return {"batch_seconds": config.batch_seconds}


def save_settings(student: HubertForLayerDistillation, folder: Path) -> None:
    """Write what a folder needs beside the weights to be loaded as a student."""
    student.config.save_pretrained(folder)
    # The student hears the waveform as it is, as S3PRL's do.
    feature_extractor(do_normalize=False).save_pretrained(folder)


def read_run(folder: Path) -> Run:
    """The figures of a finished run.

    Raises:
        UserError: the folder does not hold them.
    """
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return Run(**{field.name: results[field.name] for field in fields(Run)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} exists already and holds no results of this command; "
            "choose another folder, or begin anew with --overwrite"
        ) from error
