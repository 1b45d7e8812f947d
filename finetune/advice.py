"""What a run looks like that goes wrong, and what to change: said while it trains, once each."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

PATIENCE = 300  # steps in which a CTC model may write nothing: it learns the blank first
WINDOW = 6  # lines of the log that are compared; their median, so that one spike says nothing
RISE = 1.5  # times the lowest loss of as many lines
WORSE = 3  # evaluations in a row


class Advice(TrainerCallback):
    """Look at what Trainer logs for three troubles: only blanks, a loss that rises, learning by heart."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self._losses: list[float] = []
        self._rates: list[float] = []

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Take in one line of the log."""
        logs = logs or {}
        if "loss" in logs:
            self._losses.append(logs["loss"])
        if "eval_wer" in logs:
            self._rates.append(logs["eval_wer"])
        for name, trouble in (
            ("blanks", self._only_blanks(state.global_step, logs)),
            ("rising", self._rising(args)),
            ("by heart", self._by_heart()),
        ):
            if trouble and name not in self.said:
                self.said.add(name)
                if state.is_world_process_zero:
                    tqdm.write(f"note: {trouble}")

    def _only_blanks(self, step: int, logs: Mapping[str, Any]) -> str | None:
        if step < PATIENCE or logs.get("eval_empty", 0.0) < 1.0:
            return None
        return (
            f"after {step} steps the model writes nothing at all. CTC learns the blank first, but leaves it "
            "within some hundred steps: raise --learning_rate (the loss should fall below 3), train longer, "
            "and look whether texts belong to their clips"
        )

    def _rising(self, args: Any) -> str | None:
        if len(self._losses) < 3 * WINDOW:
            return None
        windows = [median(self._losses[end - WINDOW : end]) for end in range(WINDOW, len(self._losses) + 1)]
        if windows[-1] < RISE * min(windows):
            return None
        return (
            f"the loss rises: {windows[-1]:.3f} now, {min(windows):.3f} at its lowest. Lower --learning_rate "
            f"(it is {args.learning_rate:g}), or give more --warmup_steps"
        )

    def _by_heart(self) -> str | None:
        best = min(self._rates, default=0.0)
        latest = self._rates[-WORSE:]
        falls = len(self._losses) >= 2 * WINDOW and median(self._losses[-WINDOW:]) < median(
            self._losses[-2 * WINDOW : -WINDOW]
        )
        if len(self._rates) <= WORSE or not falls or not all(rate > 1.02 * best for rate in latest):
            return None
        return (
            f"the training loss still falls, and the last {WORSE} evaluations were worse than the best "
            f"({best:.1%}). The model learns the clips by heart: give --augment true, fewer steps, or "
            "--load_best_model_at_end true with --save_strategy like --eval_strategy"
        )
