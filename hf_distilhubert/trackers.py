"""Accelerate's trackers: TensorBoard, trackio, wandb; a run that goes on stays one run there."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.settings import NO_TRACKER

PROJECT = "hf-distilhubert"


def check_tracker(name: str) -> None:
    """Refuse a tracker whose package is not there.

    Raises:
        UserError: it has to be installed first.
    """
    if name != NO_TRACKER and importlib.util.find_spec(name) is None:
        raise UserError(f"--report_to {name} needs the package {name}: pip install {name}")


def new_run_id() -> str:
    """What tells a run from others in a tracker; its checkpoints keep it."""
    return uuid.uuid4().hex[:8]


def start_tracker(
    accelerator: Accelerator, name: str, settings: Mapping[str, Any], run_id: str, step: int
) -> None:
    """Begin to pass on figures, or go on after `step`.

    Args:
        accelerator: passes them on.
        name: of the tracker, or `none`.
        settings: of the run; shown beside the figures.
        run_id: from `new_run_id`, the same when the run goes on.
        step: how many steps are done.

    Raises:
        UserError: the tracker refuses, for example without a login.
    """
    if name == NO_TRACKER:
        return
    label = f"{Path(str(settings['output_dir'])).name}-{run_id}"
    resume = "allow" if step else "never"
    options: dict[str, dict[str, Any]] = {
        # TensorBoard forgets what was shown beyond the checkpoint.
        "tensorboard": {"purge_step": step + 1} if step else {},
        "trackio": {"name": label, "resume": resume},
        "wandb": {"name": label, "id": run_id, "resume": resume, "dir": accelerator.project_dir},
    }
    plain = (int, float, str, bool)
    config = {key: value if isinstance(value, plain) else str(value) for key, value in settings.items()}
    try:
        # Settings are written once.
        accelerator.init_trackers(PROJECT, None if step else config, {name: options[name]})
    except Exception as error:  # each tracker has classes of its own
        raise UserError(f"--report_to {name} failed: {one_line(error, limit=200)}") from error
