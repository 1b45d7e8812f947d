"""What the processes of one run agree on: what the first one found out, a write that failed, a stop."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from hf_distilhubert.errors import UserError

Found = TypeVar("Found")


def on_main(accelerator: Accelerator | PartialState, find_out: Callable[[], Found]) -> Found:
    """Ask in the first process alone and tell all; they raise its `UserError` together."""
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = find_out()
        except UserError as error:
            answer[1] = str(error)
    found, complaint = broadcast_object_list(answer)
    if complaint is not None:
        raise UserError(complaint)
    return found


def first_problem(accelerator: Accelerator, problem: str | None) -> str | None:
    """What went wrong in any of the processes, the same in all; None where nothing did."""
    return next(filter(None, gather_object([problem])), None)


class StopRequest:
    """SIGTERM and Ctrl-C, taken down instead of obeyed at once; a second Ctrl-C is obeyed at once."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals down while the block runs (in a program's main thread: Python allows no other)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, self._take_down)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether this process has got a signal."""
        return self.number > 0

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether any process has got a signal, which all then have; the answer is the same in all."""
        if accelerator.num_processes > 1:
            own = torch.tensor([self.number], device=accelerator.device)
            self.number = int(accelerator.gather(own).max())
        return self.asked

    def leave(self) -> BaseException:
        """What ends the program: status 0 after SIGTERM, as pre-empted jobs want, or Ctrl-C as always."""
        return SystemExit(0) if self.number == signal.SIGTERM else KeyboardInterrupt()

    def _take_down(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def start_reader(_worker: int) -> None:
    """Start a process that reads audio: a stop is the trainer's business, which ends it when it is done."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Looking for garbage among what the trainer has made would copy all of it into this process.
    gc.freeze()


@atexit.register
def _end_readers() -> None:
    """End the processes that read audio, should an error have left any: Python's own signal they ignore."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def choose_precision(name: str) -> str | None:
    """Accelerate's word for a precision; `auto` leaves it to `accelerate launch`, or takes a fast safe one.

    bfloat16 is taken where the hardware computes with it; float16 never by itself, since teachers with large
    norms overflow in it (S3PRL issue 378).
    """
    if name != "auto":
        return "no" if name == "fp32" else name
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return None
    return "bf16" if computes_in_bf16() else "no"


def computes_in_bf16() -> bool:
    """Whether the hardware has instructions for bfloat16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
