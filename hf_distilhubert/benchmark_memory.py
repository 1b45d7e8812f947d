"""The memory that a clip takes on top of a model that is ready, each way in a fresh process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from hf_distilhubert.audio import MIN_SAMPLES, Waveform
from hf_distilhubert.benchmark_ways import Way

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # proc(5): set the peak of resident memory to what is resident now


def extra_memory(way: Way, threads: int, clip: Waveform, calibration: Sequence[Waveform]) -> int | None:
    """Bytes by which resident memory grows at its peak, in a process of its own; None where Linux's counters
    are missing.

    Args:
        way: how the model is run.
        threads: of torch, and of what is not torch.
        clip: `(time,)`.
        calibration: see `Way.build`.
    """
    if not CLEAR.exists():
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(growth, way, threads, clip, calibration).result()


def growth(way: Way, threads: int, clip: Waveform, calibration: Sequence[Waveform]) -> int:
    """What `extra_memory` gives, measured in this process.

    A clip of one frame comes first: what a library loads when it is first used is not the clip's. What was
    needed before and is free again (int8 has heard other clips) goes back to the system.
    """
    import torch

    torch.set_num_threads(threads)
    run = way.build(threads, calibration)
    run([np.full(MIN_SAMPLES, 0.1, dtype=np.float32)])
    gc.collect()
    _give_back()
    CLEAR.write_text(FORGET_PEAK)
    before = _resident("VmRSS")
    run([clip])
    return _resident("VmHWM") - before


def _give_back() -> None:
    """Have the C library return what is free; only GNU's keeps so much that it has a call for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(name: str) -> int:
    """Bytes."""
    text = STATUS.read_text(encoding="ascii")
    return 1024 * int(re.findall(rf"^{name}:\s+(\d+) kB", text, flags=re.MULTILINE)[0])
