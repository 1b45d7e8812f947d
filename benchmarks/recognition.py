"""Recognisers of real speech, small and made offline: `python -m benchmarks.recognition --speech FOLDER`.

The demo's teacher learns three sets of recordings with CTC, and a student of two layers is distilled from it
on the sound of four. That student, and the same student undistilled, are fine-tuned alike, on all sets and
then on each, and scored on its test split (`benchmarks/recognition_scores.py`). What is done is not repeated,
so a command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real_speech import SHIPPED_TEACHER, TAUGHT, run, write_manifest
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.provenance import write_json

EXAMPLES = """\
  OMP_NUM_THREADS=1 python -m benchmarks.recognition --speech ../shared/speech
  python -m benchmarks.recognition --speech ../shared/speech --sets fsdd_digits keywords"""


@dataclass(frozen=True)
class Stage:
    """What the teacher learns before it teaches.

    Attributes:
        sets: on which clips.
        settings: how, as `finetune.train` takes it.
        longest: only those of so many seconds.
        front_end: whether its convolutions learn too.
    """

    sets: tuple[str, ...]
    settings: dict[str, Any]
    longest: float = math.inf
    front_end: bool = True


SHORT = ("commands_coffee", TAUGHT, "keywords")
ALL = (*SHORT, "librispeech_mini")
# In so few steps `--augment true` brings little: on the digits' validation clips the teacher's WER is 29.4 %
# after the first stage below, and was 26.7 % after 800 steps with it (`benchmarks.real_speech`).
LEARNING = {"learning_rate": 1e-3, "logging_steps": 50}
LONGEST = 9.0  # seconds: short clips are spelled first, and every letter is in those of all sets
# Stages of the teacher, each from the one before. Recordings are new to it, so its front end learns too,
# first with words that it can spell.
TEACHING = (
    Stage((TAUGHT,), {"max_steps": 150, "per_device_train_batch_size": 32}),
    Stage(SHORT, {"num_train_epochs": 5, "per_device_train_batch_size": 8, "new_head": True}),
    Stage(SHORT, {"num_train_epochs": 6, "per_device_train_batch_size": 8}),
    Stage(ALL, {"num_train_epochs": 6, "per_device_train_batch_size": 4}, LONGEST, front_end=False),
)
# Students learn to spell on all sets together: on the long clips of `commands_coffee` alone, a new head wrote
# next to nothing after 300 steps.
SPELLING = {"num_train_epochs": 12, "per_device_train_batch_size": 4}
# Then passes over a set alone, and clips in a step: many steps rather than large ones, on one core.
PASSES = {"commands_coffee": (12, 4), TAUGHT: (3, 16), "keywords": (4, 8), "librispeech_mini": (4, 4)}
# The last layer alone was the best objective for words in `benchmarks.real_speech`.
DISTILLING = {
    "objective": "last-layer",
    "target_layers": 6,
    "batch_seconds": 60,
    "freeze_feature_encoder": True,  # it stays the teacher's, in fine-tuning too
    "learning_rate": 1e-3,
    "logging_steps": 50,
    "save_steps": 0,
}
STEPS = {"undistilled": 0, "distilled": 300}  # of distillation: three and a half passes


class Steps:
    """What is done, and how long each of it took: in this command and in those before it.

    Args:
        output_dir: where every result lies.
    """

    def __init__(self, output_dir: Path) -> None:
        self.folder, self._file = output_dir, output_dir / "seconds.json"

    def once(self, result: Path, work: Callable[[], object]) -> Path:
        """Do the work unless its result is there already."""
        if not result.exists():
            started = time.perf_counter()
            work()
            name = str(result.relative_to(self.folder))
            write_json(self._file, self.seconds() | {name: time.perf_counter() - started})
        return result

    def seconds(self) -> dict[str, float]:
        """By result."""
        return json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}


def finetune(steps: Steps, model: str | Path, data: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """A recogniser: so many steps or passes of CTC."""
    given = {"model": model, "data": data, "output_dir": folder, **LEARNING, **settings}
    return steps.once(folder, lambda: run("finetune.train", given))


def teach(steps: Steps, speech: Path, seed: int) -> Path:
    """The teacher after its last stage."""
    teacher = Path(SHIPPED_TEACHER)
    for number, stage in enumerate(TEACHING, start=1):
        folder = steps.folder / f"teacher-{number}"
        data = write_manifest(folder.with_suffix(".csv"), speech, sets=stage.sets, longest=stage.longest)
        settings = stage.settings | {"freeze_feature_encoder": not stage.front_end, "seed": seed}
        teacher = finetune(steps, teacher, data, folder, settings)
    return teacher


def distil(steps: Steps, teacher: Path, data: Path, kind: str, seed: int) -> Path:
    """A student, or the same one before it has learned anything."""
    folder = steps.folder / kind
    given = {"teacher": teacher, "data": data, "output_dir": folder, "seed": seed, "max_steps": STEPS[kind]}
    given |= DISTILLING | {"cache_targets": steps.folder / "targets"}
    return steps.once(folder, lambda: run("hf_distilhubert.distill", given))


def main() -> None:
    """Do what is not done yet, and print the tables."""
    arguments = _arguments()
    from benchmarks.recognition_scores import figures_of, score_set, tables

    out, speech, seed = arguments.output_dir, arguments.speech, arguments.seed
    steps = Steps(out)

    # 1. A teacher, and two students that learn to spell; one of them has learned from the teacher before.
    teacher = teach(steps, speech, seed)
    sound = write_manifest(out / "sound.csv", speech, sets=ALL)
    students = {kind: distil(steps, teacher, sound, kind, seed) for kind in STEPS}
    short = write_manifest(out / "short.csv", speech, sets=ALL, longest=LONGEST)
    spellers = {
        kind: finetune(steps, student, short, out / f"{kind}-spelling", SPELLING | {"seed": seed})
        for kind, student in students.items()
    }

    # 2. Both on each set, fine-tuned and scored alike.
    figures = {}
    for name in arguments.sets:
        passes, batch_size = PASSES[name]
        settings = {"num_train_epochs": passes, "per_device_train_batch_size": batch_size, "seed": seed}
        models = {
            kind: finetune(steps, speller, speech / name, out / f"{name}-{kind}", settings)
            for kind, speller in spellers.items()
        }
        score_set(steps, name, speech / name, models)
        figures[name] = figures_of(out, name, models)
        print(tables({name: figures[name]}), flush=True)

    # 3. All of it as a file and as tables.
    minutes = sum(steps.seconds().values()) / 60
    write_json(out / "results.json", {"seed": seed, "minutes": minutes, "sets": figures})
    print(f"{tables(figures)}\n\nseed {seed}; {minutes:.0f} minutes in all")


def _arguments() -> argparse.Namespace:
    parser = argument_parser("python -m benchmarks.recognition", __doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--speech", type=Path, required=True, help=f"folder that holds {', '.join(ALL)}")
    parser.add_argument("--sets", nargs="+", choices=ALL, default=ALL, help="that recognisers are made for")
    parser.add_argument("--seed", type=int, default=0, help="of all training")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/recognition"), help="what is done there is not repeated"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
