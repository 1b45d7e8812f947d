"""Objectives and shapes of students on real speech: `python -m benchmarks.real_speech --speech FOLDER`.

One teacher (the demo's, adapted to recorded digits as in `make demo DATA=…`), one unlabelled training set
(the training clips of five sets), the same steps for every student. What the frozen features of teacher and
students hold, before and after, is measured with the same small probes (`benchmarks/probes.py`). Runs and
probes that are done are not repeated, so a command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.audio import SAMPLING_RATE
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.provenance import write_json
from hf_distilhubert.speech_data import load_clips

if TYPE_CHECKING:
    from benchmarks.probe_tasks import Task

EXAMPLES = """\
  OMP_NUM_THREADS=1 python -m benchmarks.real_speech --speech ../shared/speech
  python -m benchmarks.real_speech --speech ../shared/speech --seeds 0 --steps 100 --output_dir runs/quick"""
SHIPPED_TEACHER = "demo/teacher"
TAUGHT = "fsdd_digits"  # it can spell these words, though it has only heard machines say them
SETS = ("librispeech_mini", "ljspeech_mini", TAUGHT, "keywords", "commands_coffee")
SETTINGS = {"batch_size": 8, "max_samples": 64_000, "learning_rate": 1e-3, "save_steps": 0}
TEACHING = {
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "augment": True,
    "freeze_feature_encoder": False,
    "bf16": False,
}


@dataclass(frozen=True)
class Student:
    """A line of the table.

    Attributes:
        objective: what it learns.
        target_layers: of the teacher.
        shape: a named shape.
        learns: whether it learns at all.
    """

    objective: str
    target_layers: tuple[int, ...]
    shape: str = "paper"
    learns: bool = True

    @property
    def name(self) -> str:
        """As the table has it."""
        layers = ", ".join(map(str, self.target_layers))
        return f"{self.shape}: " + (f"{self.objective} {layers}" if self.learns else "undistilled")


def thirds(depth: int) -> tuple[int, ...]:
    """The layers that the paper's objective predicts: 4, 8 and 12 of 12."""
    return tuple(round(depth * third / 3) for third in (1, 2, 3))


def students(several: tuple[int, ...]) -> list[Student]:
    """All students that learn from these layers; one of two layers has room for two hints."""
    shapes = ("paper", "narrow", "deep")
    return [
        *(Student("several-layers", several, shape, learns=False) for shape in shapes),
        Student("several-layers", several),
        Student("last-layer", several[-1:]),
        Student("layer-to-layer", (several[-1] // 2, several[-1])),
        Student("mean-of-layers", several),
        *(Student("several-layers", several, shape) for shape in shapes[1:]),
    ]


def write_manifest(
    path: Path,
    speech: Path,
    limit: int | None = None,
    *,
    sets: Sequence[str] = SETS,
    longest: float = math.inf,
) -> Path:
    """List the training and validation clips of these sets with their texts.

    Args:
        path: the manifest.
        speech: the folder of the sets.
        limit: take so many of each set and split.
        sets: their names.
        longest: leave out longer clips, in seconds.
    """
    rows = [
        (clip.audio, clip.text, split)
        for name in sets
        for split in ("train", "validation")
        for clip in load_clips((speech / name).resolve(), split).clips[:limit]
        if clip.num_samples <= longest * SAMPLING_RATE
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "transcription", "split"), *rows])
    return path


def run(module: str, settings: dict[str, Any]) -> None:
    """One of the project's training commands, in a process of its own.

    Raises:
        UserError: it failed; its own last line says why.
    """
    words = [sys.executable, "-m", module]
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    if subprocess.run(words, check=False).returncode:
        raise UserError(f"`python {' '.join(words[1:])}` failed, see above")


def teach(output_dir: Path, speech: Path, steps: int) -> str:
    """The shipped teacher after so many steps of CTC on the digits; as it is after none."""
    folder = output_dir / f"teacher-{steps}"
    if steps and not folder.is_dir():
        settings = {"model": SHIPPED_TEACHER, "data": speech / TAUGHT, "output_dir": folder}
        run("finetune.train", settings | TEACHING | {"max_steps": steps})
    return str(folder) if steps else SHIPPED_TEACHER


def distil(output_dir: Path, student: Student, teacher: str, data: Path, steps: int, seed: int) -> Path:
    """The folder of a student; its command itself knows whether it is finished."""
    learned = student.objective if student.learns else "undistilled"
    folder = output_dir / f"{student.shape}-{learned}-{seed}"
    settings = {"teacher": teacher, "data": data, "output_dir": folder, "seed": seed}
    settings |= {"objective": student.objective, "target_layers": student.target_layers}
    settings |= {"shape": student.shape, "max_steps": steps if student.learns else 0}
    run("hf_distilhubert.distill", settings | SETTINGS | {"logging_steps": max(1, steps // 4)})
    return folder


def measure(output_dir: Path, folder: str | Path, tasks: Sequence[Task], alone: Iterable[int] = ()) -> Any:
    """What the probes find in a model; kept in the output folder, and read from there the next time.

    Args:
        output_dir: of the command.
        folder: of the model.
        tasks: what is asked.
        alone: numbers of layers that are asked by themselves, too.

    Returns:
        The fields of a `ProbeResult` by layers (`all`, or a number) and task.
    """
    from benchmarks.probes import clip_means, probe

    path = output_dir / "probes" / f"{Path(folder).name}.json"
    if not path.is_file():
        chosen = {"all": slice(None)} | {str(layer): slice(layer, layer + 1) for layer in alone}
        features = {
            name: clip_means(folder, clips) for name, clips in {t.data: t.clips for t in tasks}.items()
        }
        found = {
            layers: {
                task.name: asdict(probe(features[task.data][:, part], task.labels, task.splits))
                for task in tasks
            }
            for layers, part in chosen.items()
        }
        path.parent.mkdir(exist_ok=True)
        write_json(path, found)
    return json.loads(path.read_text(encoding="utf-8"))


def figures_of(folder: Path, seed: int, probed: dict[str, Any]) -> dict[str, Any]:
    """A student's figures for one seed."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    held_out = results["held_out"]
    names = ("num_parameters", "teacher_parameters", "seconds")
    losses = {"before": held_out["before"]["loss"], "after": held_out["after"]["loss"]}
    return {"seed": seed, **{name: results[name] for name in names}, **losses, "probes": probed["all"]}


def main() -> None:
    """Do what is not done yet, and print the table."""
    arguments = _arguments()
    from transformers import AutoConfig

    from benchmarks.probe_tasks import load_tasks
    from benchmarks.real_speech_table import table

    # 1. Speech, and a teacher that knows some of its words.
    out, speech, limit = arguments.output_dir, arguments.speech, arguments.limit
    tasks = load_tasks(speech, limit)
    data = write_manifest(out / "speech.csv", speech, limit)
    teacher = teach(out, speech, arguments.teacher_steps)
    several = thirds(AutoConfig.from_pretrained(teacher).num_hidden_layers)
    known = measure(out, teacher, tasks, alone=several)

    # 2. Students. One that does not learn is the same for every seed: nothing but its heads is random.
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for student in students(several):
            if student.learns or seed == arguments.seeds[0]:
                folder = distil(out, student, teacher, data, arguments.steps, seed)
                figures = figures_of(folder, seed, measure(out, folder, tasks))
                rows.setdefault(student.name, []).append(figures)
                print(table({student.name: [figures]}, tasks).splitlines()[-1], flush=True)

    # 3. All of it as a file and as a table.
    size = figures["teacher_parameters"]
    teachers = {
        "teacher" if layers == "all" else f"teacher, layer {layers} alone": [
            {"num_parameters": size, "probes": found}
        ]
        for layers, found in known.items()
    }
    settings = {name: getattr(arguments, name) for name in ("seeds", "steps", "teacher_steps")}
    names = ("name", "kind", "test_clips", "chance")
    facts = [{name: getattr(task, name) for name in names} for task in tasks]
    write_json(out / "results.json", settings | {"tasks": facts, "rows": teachers | rows})
    print(table(teachers | rows, tasks))


def _arguments() -> argparse.Namespace:
    parser = argument_parser("python -m benchmarks.real_speech", __doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--speech", type=Path, required=True, help=f"folder that holds {', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the distillation")
    parser.add_argument(
        "--steps", type=int, default=400, help="of each distillation, 8 clips of up to 4 s each"
    )
    parser.add_argument(
        "--teacher_steps", type=int, default=800, help="of adapting the demo's teacher to the digits"
    )
    parser.add_argument(
        "--limit", type=int, help="for a trial: so many clips of each set, or for each answer"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/real-speech"), help="what is done there is not repeated"
    )
    arguments = parser.parse_args()
    for name, least in {"steps": 0, "teacher_steps": 0, "limit": 1}.items():
        given = getattr(arguments, name)
        if given is not None and given < least:
            raise UserError(f"{name} is {given}; give {least} or more")
    return arguments


if __name__ == "__main__":
    run_command(main)
