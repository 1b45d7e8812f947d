"""A running training, to disk and back: Accelerate's state, and what Accelerate knows nothing of."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from hf_distilhubert.checkpoints import LOG, Checkpoints, step_of
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.processes import first_problem
from hf_distilhubert.training_log import TrainingLog
from hf_distilhubert.training_state import TrainingState

STATE = "state.json"
PARTS = ("settings", "circumstances", "processes", "state", "log")


@dataclass(frozen=True)
class Snapshots:
    """Writes and reads the checkpoints of one run.

    Attributes:
        accelerator: through which model, optimiser, scheduler and batches have gone.
        checkpoints: where they go.
        settings: of the run.
        circumstances: what else must be the same for an exact resume, e.g. the precision.
        describe: writes what makes a checkpoint a model folder into it (its config).
    """

    accelerator: Accelerator
    checkpoints: Checkpoints
    settings: Mapping[str, Any]
    circumstances: Mapping[str, Any]
    describe: Callable[[Path], None]

    def __post_init__(self) -> None:
        """Have weights saved and loaded as those of the model itself, however many processes share it."""
        self.accelerator.register_save_state_pre_hook(self._plain_weights)
        self.accelerator.register_load_state_pre_hook(self._plain_models)

    def save(self, state: TrainingState, log: TrainingLog) -> None:
        """Write the checkpoint of a step; every process calls this.

        Raises:
            UserError: it could not be written; the ones before it are whole.
        """
        partial, main = self.checkpoints.partial(state.step), self.accelerator.is_main_process
        problem = None
        try:
            partial.mkdir(exist_ok=True)
            self.accelerator.save_state(str(partial))
            if main:
                self._write_rest(partial, state, log)
        # On a full disk torch and safetensors raise classes of their own.
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = one_line(error, limit=200)
        problem = first_problem(self.accelerator, problem)
        if main and problem is None:
            try:
                self.checkpoints.commit(state.step, state.best_step)
            except OSError as error:
                problem = one_line(error, limit=200)
        problem = first_problem(self.accelerator, problem)
        if problem is not None:
            complaint = self._complaint(state.step, problem)
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            raise UserError(complaint)

    def load(self, checkpoint: Path, log: TrainingLog) -> None:
        """Bring what Accelerate prepared, and the log, to where they were when a checkpoint was written.

        Nothing in it is run: it is safetensors, JSON, and pickles that may hold tensors and plain values.

        Raises:
            UserError: it does not fit.
        """
        with reading(checkpoint):
            self.accelerator.load_state(str(checkpoint), load_kwargs={"weights_only": True})
            found = read_state(checkpoint)
            log.restore(found["log"])
            if self.accelerator.is_main_process:
                shutil.copyfile(checkpoint / LOG, self.checkpoints.log)
        before, now = found["processes"], self.accelerator.num_processes
        if before != now:
            self.accelerator.print(
                f"{before} processes before, {now} now: the same batches, rounded otherwise"
            )

    def _write_rest(self, folder: Path, state: TrainingState, log: TrainingLog) -> None:
        self.describe(folder)
        shutil.copyfile(self.checkpoints.log, folder / LOG)
        found = {
            "settings": dict(self.settings),
            "circumstances": dict(self.circumstances),
            "processes": self.accelerator.num_processes,
            "state": asdict(state),
            "log": log.state(),
        }
        (folder / STATE).write_text(json.dumps(found, indent=2), encoding="utf-8")

    def _complaint(self, step: int, problem: str) -> str:
        folder, older = self.checkpoints.folder, self.checkpoints.named()
        # torch does not always say that a full disk is the reason.
        free = shutil.disk_usage(folder).free / 2**20
        place = f"in {folder} ({free:.0f} MiB free there)"
        go_on = (
            f"the same command goes on from step {step_of(older[-1])}" if older else "none was saved before"
        )
        return f"cannot write the checkpoint of step {step} {place}: {problem}; {go_on}"

    def _plain_weights(self, models: list[nn.Module], weights: list[Any], _: str) -> None:
        """Weights under the model's own names, whatever wraps it (FSDP and DeepSpeed save their own)."""
        if weights:
            weights[:] = [self.accelerator.unwrap_model(model).state_dict() for model in models]

    def _plain_models(self, models: list[nn.Module], _: str) -> None:
        models[:] = [self.accelerator.unwrap_model(model) for model in models]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds beside tensors: `settings`, `circumstances`, `processes`, `state`, `log`.

    Raises:
        UserError: it is not one of ours.
    """
    with reading(checkpoint):
        found = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return {name: found[name] for name in PARTS}


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Say in one line that a checkpoint, though whole, cannot be used."""
    try:
        yield
    except (
        *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError),
        *(pickle.UnpicklingError, SafetensorError),
    ) as error:
        raise UserError(
            f"cannot go on from {checkpoint}: {one_line(error, limit=200)}; begin anew with --overwrite"
        ) from error
