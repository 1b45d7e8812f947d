"""How long ways to do the same work take: all take turns, on two clocks, and the medians count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Work = TypeVar("Work")
AGREEMENT = 0.1  # of two clocks; where a ratio differs more, something else had the machine


@dataclass(frozen=True)
class Timing:
    """Seconds that a piece of work takes.

    Attributes:
        wall: by the clock on the wall.
        cpu: of all threads of the process, whatever else the machine does.
        turns: how often it was measured, all its parts together.
    """

    wall: float
    cpu: float
    turns: int


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one way is as another.

    Attributes:
        wall: by the clock on the wall.
        cpu: by CPU time.
    """

    wall: float
    cpu: float

    @property
    def believed(self) -> bool:
        """Whether the clocks agree."""
        return abs(self.wall / self.cpu - 1) <= AGREEMENT


def ratio(peer: Timing, own: Timing) -> Ratio:
    """How many times as fast `own` is as `peer`."""
    return Ratio(peer.wall / own.wall, peer.cpu / own.cpu)


def take_turns(
    ways: Mapping[str, Callable[[Work], object]],
    parts: Sequence[Work],
    rounds: int,
    *,
    warm_up: bool = True,
    done: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Measure the same work done in several ways, part by part, each part by one way after the other.

    A part's time is the median of its rounds, and the work's time the sum of its parts'. Who begins changes
    from round to round.

    Args:
        ways: by name.
        parts: of the work.
        rounds: how often each part is done by each way.
        warm_up: whether there is one more round, before the others, that does not count.
        done: is called after each turn.
    """
    seconds: dict[str, list[list[tuple[float, float]]]] = {name: [[] for _ in parts] for name in ways}
    names = list(ways)
    for number in range(-int(warm_up), rounds):
        first = number % len(names)
        for place, part in enumerate(parts):
            for name in names[first:] + names[:first]:
                taken = _turn(ways[name], part)
                if number >= 0:
                    seconds[name][place].append(taken)
                done()
    return {name: _timing(found) for name, found in seconds.items()}


def _turn(way: Callable[[Work], object], part: Work) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    way(part)
    return time.perf_counter() - wall, time.process_time() - cpu


def _timing(parts: Sequence[Sequence[tuple[float, float]]]) -> Timing:
    wall, cpu = (sum(statistics.median(turn[clock] for turn in turns) for turns in parts) for clock in (0, 1))
    return Timing(wall, cpu, sum(map(len, parts)))
