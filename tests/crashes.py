"""Distillation runs that end in the middle of a step, in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hf_distilhubert import training


class Crash(Exception):  # noqa: N818 - it is no error of ours
    """Stands in for what ends a program in the middle of a step."""


@contextmanager
def at_step(number: int, act: Callable[[], object]) -> Iterator[None]:
    """Call something at the beginning of a step (counted from 0)."""
    seed_step = training._seed_step

    def acting(seed: int, step: int, process: int) -> None:
        if step == number:
            act()
        seed_step(seed, step, process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_seed_step", acting)
        yield


def crash(*_: object) -> None:
    raise Crash
