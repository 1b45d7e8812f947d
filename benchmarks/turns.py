"""How long things take that are compared: all take turns, and the median of each counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Turn = Callable[[], float]


def timed(work: Callable[[], object]) -> Turn:
    """A turn that does the work once; its wall time in seconds."""

    def turn() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return turn


def medians(turns: Mapping[str, Turn], rounds: int) -> dict[str, float]:
    """Median of the seconds that each turn gives, after a round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            seconds = turn()
            if number:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}
