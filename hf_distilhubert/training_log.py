"""What is seen of a training run: `log.jsonl`, trackers, a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from hf_distilhubert.errors import UserError
from hf_distilhubert.trackers import new_run_id


class TrainingLog:
    """Lines of JSON: means over the steps since the last line, and what was measured on held-out clips.

    Args:
        path: the file; the first process writes it.
        accelerator: whose trackers get the same figures.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.last: dict[str, Any] = {}
        self.run_id = new_run_id()

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Take in the figures of one step."""
        self._count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value

    @property
    def has_figures(self) -> bool:
        """Whether any step was taken since the last line."""
        return self._count > 0

    def write(self, step: int, learning_rate: float) -> None:
        """Write one line: step, means, learning rate."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self.last = {"step": step, **to_plain(means), "learning_rate": learning_rate}
        self._sums, self._count = {}, 0
        self._append(self.last)

    def write_held_out(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write one line: step, and the figures under `held_out`."""
        self._append({"step": step, "held_out": figures})

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the file: the figures of the line that is not yet full."""
        sums = {name: value.item() for name, value in self._sums.items()}
        return {"sums": sums, "count": self._count, "last": self.last, "run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the figures of a checkpoint; single-precision numbers come back bit for bit."""
        device = self.accelerator.device
        self._sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self._count, self.last, self.run_id = state["count"], state["last"], state["run_id"]

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        figures = {name: value for name, value in line.items() if name != "step"}
        self.accelerator.log(flat(figures), step=line["step"])


class ProgressDisplay:
    """How far a run is, how fast it hears, and how long it will take.

    Args:
        accelerator: whose first process shows it.
        step: steps done before.
        max_steps: steps in all.
    """

    def __init__(self, accelerator: Accelerator, step: int, max_steps: int) -> None:
        self.main, self.first, self.max_steps = accelerator.is_main_process, step, max_steps
        hidden = None if self.main else True
        self.bar = tqdm(total=max_steps, initial=step, unit="step", disable=hidden)
        self._heard = torch.zeros((), device=accelerator.device)
        self._seconds = 0.0

    def update(self, seconds_of_audio: Tensor, seconds: float) -> None:
        """One more step is done; the length of its audio stays on its device until a rate is shown."""
        self._heard += seconds_of_audio
        self._seconds += seconds
        self.bar.update()

    def show(self, step: int, loss: float) -> None:
        """Put loss and rate behind the bar, or print a line where there is none."""
        rate = float(self._heard) / self._seconds
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} s of audio/s")
        if self.bar.disable and self.main:
            left = timedelta(seconds=round(self._seconds / (step - self.first) * (self.max_steps - step)))
            print(
                f"step {step} of {self.max_steps}: loss {loss:.4f}, {rate:.0f} s of audio/s, {left} left",
                flush=True,
            )


def to_plain(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors as numbers for JSON; a name `a/b` becomes `{"a": {"b": …}}`."""
    plain: dict[str, Any] = {}
    for name, value in figures.items():
        group, _, key = name.partition("/")
        if key:
            plain.setdefault(group, {})[key] = value.item()
        else:
            plain[name] = value.item()
    return plain


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The way back of `to_plain`, for trackers: `{"a": {"b": …}}` becomes `a/b`."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return found
