"""The main job from end to end: speech, teacher, student, S3PRL and back, recogniser, transcript, card.

Every step is a command that works on anything else too; the demo prints each before it runs it.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.folders import check_new
from hf_distilhubert.provenance import short_name, write_json
from hf_distilhubert.speech_data import Clip, load_clips

SHIPPED_TEACHER = Path(os.path.relpath(Path(__file__).parent / "teacher"))  # no machine's path in the results
RUNS = Path("runs/demo")
TARGET_LAYERS = ("2", "4", "6")
EXAMPLES = """\
  python -m demo.run
  python -m demo.run --data recordings   # with metadata.csv: file_name,transcription,speaker,split"""


@dataclass(frozen=True)
class Plan:
    """How long each step trains.

    Attributes:
        teacher_steps: steps in which the shipped teacher is adapted to the speech; 0 takes it as it is.
        distill_steps: steps of distillation.
        finetune_steps: steps of CTC fine-tuning, for either student.
    """

    teacher_steps: int
    distill_steps: int
    finetune_steps: int


# The shipped teacher knows number phrases from text-to-speech voices; recordings are new to it.
EMBEDDED = Plan(teacher_steps=0, distill_steps=300, finetune_steps=350)
RECORDINGS = Plan(teacher_steps=2000, distill_steps=1500, finetune_steps=3000)


@dataclass(frozen=True)
class DemoResult:
    """What came out: the card, and a row of figures per model (teacher, distilled, undistilled)."""

    card: Path
    rows: list[dict[str, Any]]


class Demo:
    """The steps, each reading the folders of those before it.

    Args:
        output_dir: a new folder, where all of them write.
        data: a folder of recordings; None lets the demo speak its own.
        plan: how long to train.
    """

    def __init__(self, output_dir: Path, data: Path | None, plan: Plan) -> None:
        self.out, self.plan = output_dir, plan
        self.synthetic = data is None
        self.data = data or output_dir / "synthetic-speech"  # cards warn of data so named
        self.teacher = output_dir / "teacher" if plan.teacher_steps else SHIPPED_TEACHER
        self.student, self.undistilled = output_dir / "student", output_dir / "student-undistilled"
        self.recogniser, self.baseline = output_dir / "recogniser", output_dir / "recogniser-undistilled"
        self._started = time.perf_counter()

    def run(self) -> DemoResult:
        """All seven steps."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.make_speech()
        self.make_teacher()
        self.distil()
        self.convert_both_ways()
        self.finetune()
        rows = self.compare()
        self.transcribe()
        return DemoResult(self.make_card(), rows)

    def make_speech(self) -> None:
        """1. Speech."""
        self._title(1, "Speech")
        if self.synthetic:
            self._command("-m", "demo.speech", self.data)
        for split in ("train", "validation", "test"):
            data = load_clips(self.data, split, need_text=True)
            print(
                f"{split}: {len(data.clips)} clips, {60 * data.hours:.1f} min, {data.num_speakers} speakers"
            )

    def make_teacher(self) -> None:
        """2. A teacher of six layers: the shipped one, adapted to recordings where they are given."""
        self._title(2, "Teacher")
        if self.plan.teacher_steps:
            # Recordings sound unlike the voices that it knows, so its front end learns too.
            self._finetune(SHIPPED_TEACHER, self.teacher, self.plan.teacher_steps, front_end=True)
        else:
            print(f"the shipped one, {SHIPPED_TEACHER} (its README.md says how it was made)")

    def distil(self) -> None:
        """3. A student of two layers, and the same student before it has learned anything."""
        self._title(3, "Distillation")
        for folder, steps in ((self.student, self.plan.distill_steps), (self.undistilled, 0)):
            self._command(
                *("-m", "hf_distilhubert", "distill", "--teacher", self.teacher, "--data", self.data),
                *("--output_dir", folder, "--target_layers", *TARGET_LAYERS, "--max_steps", steps),
                *("--batch_size", 16, "--learning_rate", 1e-3, "--logging_steps", max(1, steps // 10)),
                *("--precision", "fp32"),  # the same figures on every machine; so small a model gains nothing
            )

    def convert_both_ways(self) -> None:
        """4. S3PRL's checkpoint format and back; the two folders must agree bit for bit."""
        self._title(4, "To S3PRL's checkpoint format and back")
        checkpoint, converted = self.out / "student.ckpt", self.out / "student-converted"
        self._command("-m", "conversion.to_s3prl", self.student, checkpoint)
        self._command("-m", "conversion.from_s3prl", checkpoint, converted, "--keep_heads")
        print(f"all {_same_tensors(self.student, converted)} tensors agree bit for bit")

    def finetune(self) -> None:
        """5. CTC fine-tuning of both students, alike."""
        self._title(5, "CTC fine-tuning of the distilled and of the undistilled student")
        for student, folder in ((self.student, self.recogniser), (self.undistilled, self.baseline)):
            self._finetune(student, folder, self.plan.finetune_steps, front_end=False)

    def compare(self) -> list[dict[str, Any]]:
        """Score teacher and both recognisers on voices or takes that no training has heard."""
        rows = []
        models = {"teacher": self.teacher, "distilled": self.recogniser, "undistilled": self.baseline}
        for name, folder in models.items():
            scores = self.out / "teacher-scores" if name == "teacher" else folder / "scores" / "test"
            self._command(
                *("-m", "finetune.score", "--model", folder, "--data", self.data),
                *("--split", "test", "--output_dir", scores),
            )
            result = json.loads((scores / "results.json").read_text())
            keys = ("num_parameters", "wer", "cer", "real_time_factor")
            rows.append({"model": name, **{key: result[key] for key in keys}})
        comparison = {
            "data": short_name(self.data),
            "split": "test",
            "note": "The undistilled student starts as the same layers of the teacher; same steps and seed.",
            "synthetic": self.synthetic,
            "rows": rows,
        }
        write_json(self.recogniser / "comparison.json", comparison)
        print(_table(rows))
        return rows

    def transcribe(self) -> None:
        """6. One held-out clip beside its reference."""
        self._title(6, "Transcription of a held-out clip")
        clip = _held_out_clip(self.data)
        text = self._command(
            "-m", "hf_distilhubert", "transcribe", "--model", self.recogniser, str(clip.audio), capture=True
        ).strip()
        print(f"reference:  {clip.text}\nhypothesis: {text}")
        example = {"clip": clip.clip_id, "reference": clip.text, "hypothesis": text}
        write_json(self.recogniser / "examples.json", [example])

    def make_card(self) -> Path:
        """7. The cards; the student's shows its losses per layer."""
        self._title(7, "Model card")
        for folder in (self.student, self.recogniser):
            self._command("-m", "model_card.render", folder, "--language", "en")
        seconds = time.perf_counter() - self._started
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        print(f"done in {seconds / 60:.1f} min; the largest step took {peak / 2**30:.2f} GiB of memory")
        return self.recogniser / "README.md"

    def _finetune(self, model: Path, folder: Path, steps: int, *, front_end: bool) -> None:
        self._command(
            *("-m", "finetune.train", "--model", model, "--data", self.data, "--output_dir", folder),
            *("--max_steps", steps, "--learning_rate", 1e-3, "--augment", "true"),
            *("--freeze_feature_encoder", not front_end, "--per_device_train_batch_size", 32),
            *("--bf16", "false"),  # as in distillation
            *("--logging_steps", max(1, steps // 10)),
            *("--eval_strategy", "steps", "--eval_steps", max(1, steps // 5)),
        )

    def _command(self, *arguments: object, capture: bool = False) -> str:
        """Run one of the project's commands, printed first; its own last line says what went wrong."""
        words = [str(argument) for argument in arguments]
        print(f"$ {shlex.join(['python', *words])}", flush=True)
        done = subprocess.run(
            [sys.executable, *words], check=False, text=True, stdout=subprocess.PIPE if capture else None
        )
        if done.returncode:
            raise UserError(f"the demo stopped: `{shlex.join(['python', *words])}` failed, see above")
        return done.stdout or ""

    def _title(self, number: int, text: str) -> None:
        seconds = time.perf_counter() - self._started
        print(f"\n== {number}/7 {text} ({seconds:.0f} s) ==", flush=True)


def _same_tensors(first: Path, second: Path) -> int:
    """Number of tensors that two folders share; all of them must be equal.

    Raises:
        UserError: they differ.
    """
    import torch
    from safetensors.torch import load_file

    tensors, others = (load_file(folder / "model.safetensors") for folder in (first, second))
    differing = sorted(tensors.keys() ^ others.keys())
    differing += [
        name for name in tensors.keys() & others.keys() if not torch.equal(tensors[name], others[name])
    ]
    if differing:
        raise UserError(f"{first} and {second} differ in {differing[0]}; this is a bug of the converter")
    return len(tensors)


def _held_out_clip(data: Path) -> Clip:
    """The longest test clip: it says the most."""
    return max(load_clips(data, "test", need_text=True).clips, key=lambda clip: clip.num_samples)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison, worded as in the card."""
    from model_card.wording import factor, percent

    lines = [f"{'model':<14}{'parameters':>12}{'WER':>9}{'CER':>9}{'real-time factor':>18}"]
    for row in rows:
        figures = f"{row['num_parameters']:>12,}{percent(row['wer']):>9}{percent(row['cer']):>9}"
        lines.append(f"{row['model']:<14}{figures}{factor(row['real_time_factor']):>18}")
    return "\n".join(lines)


def _output_dir(given: Path | None, data: Path | None) -> Path:
    """Where to write: a new folder, or the demo's own place, which is cleared for the next time.

    Raises:
        UserError: there is no such data, it lies where the demo would write, or the folder is not new.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"there is no folder {data}; give one with metadata.csv and audio files")
    folder = given or RUNS / ("spoken" if data is None else data.resolve().name)
    if data is not None and data.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{data} lies where the demo would write; give another --output_dir")
    if given is None:
        shutil.rmtree(folder, ignore_errors=True)
    check_new(folder)
    return folder


def main() -> None:
    """Run the demo from the command line; the card's path is the last line."""
    parser = argument_parser("python -m demo.run", "The main job from end to end.", EXAMPLES)
    parser.add_argument("--data", type=Path, help="folder of recordings; left out, the demo speaks its own")
    parser.add_argument("--output_dir", type=Path, help="default: runs/demo/NAME of the data")
    parser.add_argument("--teacher_steps", type=int, help="adapt the shipped teacher for so many steps")
    parser.add_argument("--distill_steps", type=int, help="steps of distillation")
    parser.add_argument("--finetune_steps", type=int, help="steps of CTC fine-tuning")
    arguments = parser.parse_args()
    usual = EMBEDDED if arguments.data is None else RECORDINGS
    chosen = {name: getattr(arguments, name) for name in vars(usual)}
    plan = Plan(**{name: getattr(usual, name) if value is None else value for name, value in chosen.items()})
    output_dir = _output_dir(arguments.output_dir, arguments.data)
    result = Demo(output_dir, arguments.data, plan).run()
    print(result.card)


if __name__ == "__main__":
    run_command(main)
