"""Where a run stands in its output folder: finished, stopped on the way, or not begun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_distilhubert.checkpoints import Checkpoints
from hf_distilhubert.errors import UserError
from hf_distilhubert.folders import check_new, resolved
from hf_distilhubert.snapshots import read_state, reading
from hf_distilhubert.training_state import TrainingState


@dataclass(frozen=True)
class Standing:
    """Where a run stands when its command is given.

    Attributes:
        finished: its result is there.
        checkpoint: what it goes on from, None to begin.
        replace: the finished folder may take the place of another result.
    """

    finished: bool = False
    checkpoint: Path | None = None
    replace: bool = False


def find_standing(
    output_dir: Path,
    stage: str,
    settings: Mapping[str, Any],
    checkpoints: Checkpoints,
    *,
    inputs: Collection[str],
    free: Collection[str],
    say: Callable[[str], None],
) -> Standing:
    """See what an output folder and its checkpoints hold.

    Args:
        output_dir: where the result will lie, or lies.
        stage: what is done, e.g. `distill`: the result holds its settings in `STAGE.yaml`.
        settings: those of this run; with `overwrite` it begins anew.
        checkpoints: those of a stopped run, if any.
        inputs: what the run reads, which beginning anew must not throw away.
        free: settings that may differ from those of the run that was stopped.
        say: takes a line about what was found.

    Raises:
        UserError: the folder is that of a run with other settings, or of something else, or holds an input.
    """
    if settings["overwrite"]:
        check_new(output_dir, overwrite=True, keep=inputs)
        lost = [source for source in inputs if resolved(source).is_relative_to(checkpoints.folder.resolve())]
        if lost:
            raise UserError(f"{lost[0]} lies where --overwrite clears; copy it elsewhere first")
        return Standing(replace=True)
    checkpoint = checkpoints.newest_whole(say)
    result = _settings_of_result(output_dir, stage)
    if checkpoint is not None:
        begun = read_state(checkpoint)["settings"]
        refuse_others(checkpoints.folder, begun, settings, free)
        # A run that was to overwrite this result may have been stopped on the way.
        if result is None or begun["overwrite"]:
            check_new(output_dir, overwrite=begun["overwrite"])
            return Standing(checkpoint=checkpoint, replace=begun["overwrite"])
    if result is not None:
        refuse_others(output_dir, result, settings, free)
        checkpoints.finish()  # there may be some left if it was killed at the very end
        return Standing(finished=True)
    check_new(output_dir)
    return Standing()


def _settings_of_result(output_dir: Path, stage: str) -> dict[str, Any] | None:
    try:
        settings = yaml.safe_load((output_dir / f"{stage}.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return settings if isinstance(settings, dict) and (output_dir / "results.json").is_file() else None


def refuse_others(
    folder: Path, begun: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()
) -> None:
    """Refuse to go on with something else.

    Args:
        folder: what is there, for the complaint.
        begun: what it was begun with.
        now: what is given now.
        free: names that may differ.

    Raises:
        UserError: something else differs.
    """
    names = [name for name in now if name not in free and begun.get(name) != now[name]]
    if names:
        differ = ", ".join(f"{name} ({begun.get(name)}, now {now[name]})" for name in names)
        raise UserError(
            f"{folder} is there already, from a run with another {differ}; give the same to go on, "
            "choose another folder, or begin anew with --overwrite"
        )


def taken_up(checkpoint: Path | None) -> Mapping[str, Any]:
    """What is known of the data from before, see `PretrainingData.record`; nothing where a run begins."""
    return (checkpoint and read_state(checkpoint)["state"].get("data")) or {}


def resumed_state(checkpoint: Path | None, circumstances: Mapping[str, Any]) -> TrainingState:
    """How far a run is that goes on from a checkpoint, or begins.

    Raises:
        UserError: it was begun with other circumstances, see `Snapshots`.
    """
    if checkpoint is None:
        return TrainingState()
    found = read_state(checkpoint)
    refuse_others(checkpoint.parent, found["circumstances"], circumstances)
    with reading(checkpoint):
        return TrainingState(**found["state"])
