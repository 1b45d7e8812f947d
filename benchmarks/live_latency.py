"""How long after a sound its text is there, where `Transcriber.stream` hears it as from a microphone.

Clips in a row come in blocks of 0.1 s at a sound card's rate, by a clock that stands while nothing computes.
A look begins when a second of new sound has come; it takes the time from the end of its last block to its
text. The oldest sound that is new in a look has waited since the one before, which is the longest wait.
CPU time says what a look would take if nothing else ran on the machine (with one thread).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.transcription import random_recogniser
from hf_distilhubert.audio import SAMPLING_RATE, Waveform, resample
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.microphone import BLOCK
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.transcriber import Transcriber

RATE = 44_100  # of most sound cards
EXAMPLES = """\
  python -m benchmarks.live_latency --data ../shared/speech/librispeech_mini
  python -m benchmarks.live_latency --data ../shared/speech/librispeech_mini --model demo/teacher"""


def main() -> None:
    """Measure and print the time of a look, and the latest that a text comes."""
    parser = argument_parser("python -m benchmarks.live_latency", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--split", default="test", help="which clips (default: test)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech (default: 60)")
    parser.add_argument("--model", help="folder of a recogniser; default: random, of the paper's sizes")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        transcriber = Transcriber(arguments.model or random_recogniser(Path(folder)), device="cpu")
    sound = _sound(arguments.data, arguments.split, arguments.seconds)
    looks, busy, delays = measure(transcriber, sound)
    what = arguments.model or "random weights, paper sizes, layer norm"
    print(f"{len(sound) / RATE:.0f} s of speech, {what}, {arguments.threads} threads, {len(looks)} looks")
    found = {"a look": looks, "its CPU time": busy, "from its oldest new sound to its text": delays}
    for name, seconds in found.items():
        print(f"{name}: {median(seconds):.3f} s (median), at most {max(seconds):.3f} s")


def _sound(data: str, split: str, seconds: float) -> Waveform:
    """Clips in a row, `(time,)` at `RATE`."""
    found: list[Waveform] = []
    for clip in load_clips(data, split).clips:
        found.append(clip.read())
        if sum(map(len, found)) >= seconds * SAMPLING_RATE:
            break
    return resample(np.concatenate(found)[: round(seconds * SAMPLING_RATE)], SAMPLING_RATE, RATE)


def measure(transcriber: Transcriber, sound: Waveform) -> tuple[list[float], list[float], list[float]]:
    """Seconds that each look takes, its CPU time, and seconds from its oldest new sound to its text."""
    # The first clip of a model is slow, and the command hears it before it listens.
    transcriber.transcribe_waveforms([np.zeros(SAMPLING_RATE, np.float32)])
    clock, taken = 0.0, 0.0  # seconds of the speech
    since, worked = time.perf_counter(), 0.0  # when the clock was set

    def blocks() -> Iterator[Waveform]:
        """All blocks that have come by now, at least one, as `Microphone.blocks` gives them."""
        nonlocal clock, taken, since, worked
        while round(taken * RATE) < len(sound):
            start, now = round(taken * RATE), clock + time.perf_counter() - since
            clock = max(now, taken + BLOCK)
            taken = BLOCK * int(clock / BLOCK + 1e-6)
            since, worked = time.perf_counter(), time.process_time()
            yield sound[start : round(taken * RATE)]

    looks, busy, delays, heard = [], [], [], 0.0
    for _ in transcriber.stream(blocks(), RATE):
        looks.append(time.perf_counter() - since)
        busy.append(time.process_time() - worked)
        delays.append(clock + looks[-1] - heard)
        heard = taken
    return looks, busy, delays


if __name__ == "__main__":
    run_command(main)
