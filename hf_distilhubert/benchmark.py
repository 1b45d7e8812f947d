"""How fast, small and exact a model is, against other ways to run it: `distilhubert benchmark`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError
from hf_distilhubert.shapes import SHAPES

if TYPE_CHECKING:
    from hf_distilhubert.benchmark_timing import Timing

LENGTHS = (1.0, 5.0, 15.0, 30.0)
OUTPUT = Path("runs/benchmark")  # of models that have no folder of their own
EXAMPLES = """\
  distilhubert benchmark --model runs/student --against hf --data recordings
  distilhubert benchmark --model runs/student --against hf --against onnx --against runs/teacher --threads 2
  distilhubert benchmark --shape narrow --against hf --against teacher --seconds 5 30"""


@dataclass(frozen=True)
class Machine:
    """What it was measured on.

    Attributes:
        processor: its name.
        cores: that this process may use.
        threads: that were used.
        torch: its version.
    """

    processor: str
    cores: int
    threads: int
    torch: str


@dataclass(frozen=True)
class WayFigures:
    """One way to run a model.

    Attributes:
        name: of the way.
        same_model: False for another model, whose output is another.
        parameters: of the model.
        multiply_adds_per_second: of audio, by the model's sizes.
        file_bytes: of its weights or its exported file; None where it has no folder here.
        times: by name of the work (`1 s`, `64 mixed`).
        audio: seconds of sound in each piece of work.
        extra_memory: bytes that the longest clip takes on top of the model; None where it cannot be measured.
        deviations: from `HubertModel` in float32 with each clip alone, `||a - b|| / ||b||` over a clip's
            frames, by name of the work; of the mixed batch, the worst of its first clips. None of another
            model.
    """

    name: str
    same_model: bool
    parameters: int
    multiply_adds_per_second: float
    file_bytes: int | None
    times: dict[str, Timing]
    audio: dict[str, float]
    extra_memory: int | None
    deviations: dict[str, float]

    def real_time_factor(self, work: str, clock: str) -> float:
        """Seconds of computing per second of audio, by `wall` or `cpu`."""
        return float(getattr(self.times[work], clock)) / self.audio[work]


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    Attributes:
        model: its name.
        machine: where.
        speech: on what sound.
        rounds: how many turns each way had at each clip; the median counts.
        memory_seconds: length of the clip that `extra_memory` is for.
        ways: the model's own three, then its peers.
        left_out: peers that were not measured, and why.
    """

    model: str
    machine: Machine
    speech: str
    rounds: int
    memory_seconds: float
    ways: list[WayFigures]
    left_out: dict[str, str]

    @property
    def clock(self) -> str:
        """`cpu` for one thread, which other work on the machine does not change, and `wall` for more."""
        return "cpu" if self.machine.threads == 1 else "wall"


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured, and how.

    Attributes:
        model: folder or repository of a HuBERT model or recogniser; None for random weights.
        against: `hf` (Transformers), `onnx`, `openvino`, `s3prl`, `teacher` (twelve layers of the published
            sizes, random), or folders of other models.
        shape: of the model of random weights, as a student of HuBERT Base; see `student_shape`.
        data: real clips, as everywhere; None for noise.
        seconds: lengths of single clips.
        mixed_clips: clips of mixed lengths in a batch, for all ways to run this model but `s3prl`.
        threads: of every way.
        rounds: how often each is measured at least.

    Raises:
        UserError: a size is no size.
    """

    model: str | Path | None = None
    against: Sequence[str] = ()
    shape: str = "paper"
    data: str | Path | None = None
    seconds: Sequence[float] = LENGTHS
    mixed_clips: int = 64
    threads: int = 1
    rounds: int = 9

    def __post_init__(self) -> None:
        wrong = [length for length in self.seconds if not 0.1 <= length <= 3600]
        if wrong or not self.seconds:
            raise UserError(f"clips of {wrong or 'no'} seconds; give lengths from 0.1 to 3600")
        for name in ("mixed_clips", "threads", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give 1 or more")


def benchmark(settings: BenchmarkSettings, output: str | Path | None = None) -> BenchmarkResult:
    """Measure a model as `FastEncoder` and its peers run it, in turns in one process.

    Args:
        settings: what is measured.
        output: folder for `benchmark.json` and `figures/speed.png`; None for the model's own, or `OUTPUT`
            where it has none.

    Raises:
        UserError: no such model or peer, no speech, or a folder that cannot be written.
    """
    from hf_distilhubert.benchmark_report import check_folder, write
    from hf_distilhubert.benchmark_run import run

    if output is None:
        output = settings.model if settings.model and Path(settings.model).is_dir() else OUTPUT
    check_folder(Path(output))
    result = run(settings)
    write(result, Path(output))
    return result


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert benchmark") -> BenchmarkResult:
    """Read the command line, measure, and print the tables."""
    arguments = vars(_parser(prog).parse_args(argv))
    from hf_distilhubert.benchmark_report import tables

    output = arguments.pop("output")
    result = benchmark(BenchmarkSettings(**arguments), output)
    print(tables(result))
    return result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argument_parser(
        prog, "Measure how fast, small and exact a model is, in turns with others.", EXAMPLES
    )
    flag: Callable[..., object] = parser.add_argument
    flag("--model", help="folder or Hub repository (default: random weights of --shape)")
    flag(
        "--against",
        action="append",
        default=[],
        metavar="PEER",
        help="hf (Transformers), onnx, openvino, s3prl, teacher (12 layers, random weights), or the folder "
        "of another model; may be given several times",
    )
    flag("--shape", choices=SHAPES, default="paper", help="of the random model (default: paper)")
    flag("--data", help="folder, manifest or hub:NAME of speech (default: noise)")
    flag(
        "--seconds",
        nargs="+",
        type=float,
        default=list(LENGTHS),
        help="lengths of clips (default: 1 5 15 30)",
    )
    flag("--mixed_clips", type=int, default=64, help="clips of 0.5 to 15 s in the mixed batch (default: 64)")
    flag("--threads", type=int, default=1, help="of every way (default: 1)")
    flag("--rounds", type=int, default=9, help="how often each is measured at least (default: 9)")
    flag("--output", help=f"folder for benchmark.json and the figure (default: the model's, or {OUTPUT})")
    return parser
