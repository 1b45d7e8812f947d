"""Distil a speech teacher into a small student: DistilHuBERT's pretraining (arXiv 2110.01900, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import parse_dataclasses
from hf_distilhubert.errors import run_command
from hf_distilhubert.settings import DistillConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_distilhubert.checkpoints import Checkpoints
    from hf_distilhubert.distillation_folder import PretrainingData, Run
    from hf_distilhubert.teachers import Teacher

EXAMPLES = """\
  distilhubert distill --teacher facebook/hubert-base-ls960 --data LibriSpeech --output_dir runs/student
  accelerate launch -m hf_distilhubert.distill --teacher runs/teacher --data speech \\
      --output_dir runs/student --target_layers 2 4 6 --max_steps 500
  distilhubert distill --recipe s3prl --data LibriSpeech --output_dir runs/as-s3prl
  distilhubert distill runs/student/distill.yaml --output_dir runs/again --seed 1"""


@dataclass(frozen=True)
class DistillResult:
    """What came out.

    Attributes:
        folder: where the student lies.
        run: losses per layer, also held-out, and how long it took.
    """

    folder: Path
    run: Run


def distill(config: DistillConfig) -> DistillResult:
    """Distil a student and write its folder (model, `preprocessor_config.json`, log, results).

    Until then its checkpoints lie in `OUTPUT_DIR.checkpoints`, each of them a student too. Called again after
    a stop, it goes on from the newest; called again after the end, it returns what came out.

    Raises:
        UserError: teacher, data or output folder do not fit, or a checkpoint cannot be written.
        SystemExit: after SIGTERM, with status 0; a checkpoint is saved.
        KeyboardInterrupt: after Ctrl-C; a checkpoint is saved.
    """
    from accelerate.utils import set_seed

    from hf_distilhubert import distillation_setup as setup
    from hf_distilhubert.checkpoints import Checkpoints
    from hf_distilhubert.distillation_folder import read_run, write_result
    from hf_distilhubert.distillation_run import pretrain
    from hf_distilhubert.processes import StopRequest

    # 1. What can be refused is refused before anything heavy starts.
    checkpoints = Checkpoints(config.output_dir, config.keep_checkpoints)
    accelerator = setup.make_accelerator(config, checkpoints)
    main_process = accelerator.is_main_process
    standing = setup.standing_of(config, accelerator, checkpoints)
    if standing.finished:
        accelerator.end_training()
        return DistillResult(Path(config.output_dir), read_run(Path(config.output_dir)))
    shape = setup.student_shape_of(config)
    teacher = setup.make_teacher(config, shape)
    targets = setup.open_targets(config, accelerator, teacher)

    # 2. The student starts as the lower part of its teacher, or goes on where it stood.
    set_seed(config.seed)
    student = setup.make_student(config, teacher, shape)
    data = setup.load_data(config, accelerator, standing)
    accelerator.print(_describe(config, teacher, student, data))
    if targets is not None:
        data = setup.with_targets(accelerator, targets, teacher, data)

    # 3. Train; the folder gets its name when it is whole.
    stop = StopRequest()
    with checkpoints.opened(anew=standing.checkpoint is None) if main_process else nullcontext():
        run = pretrain(config, accelerator, teacher, student, data, checkpoints, standing, stop)
        if run is None:
            accelerator.print(_how_to_go_on(checkpoints))
            _end(accelerator)
            raise stop.leave()
        if main_process:
            write_result(config, teacher, student, data, run, checkpoints.log, replace=standing.replace)
            best = checkpoints.finish(run.best_step if run.best_step != config.max_steps else None)
            print(_summary(run, best))
    _end(accelerator)
    return DistillResult(Path(config.output_dir), run)


def _end(accelerator: Accelerator) -> None:
    """Part from the other processes while all are still there: what is left of a group waits for them."""
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _describe(config: DistillConfig, teacher: Teacher, student: Any, data: PretrainingData) -> str:
    return (
        f"teacher {config.teacher}: {teacher.config.num_hidden_layers} layers, "
        f"{teacher.model.num_parameters():,} parameters\n"
        f"student: {student.config.num_hidden_layers} layers, "
        f"{student.hubert.num_parameters():,} parameters, "
        f"{len(config.target_layers)} heads for layers {', '.join(map(str, config.target_layers))}\n"
        f"speech: {data.train}"
    )


def _how_to_go_on(checkpoints: Checkpoints) -> str:
    saved = checkpoints.named()
    if not saved:
        return "stopped before there was anything to save; the same command begins again"
    return f"stopped, and saved {saved[-1]}; the same command (without --overwrite) goes on from there"


def _summary(run: Run, best: Path | None) -> str:
    rest = f"; {run.skipped_steps} steps left out, their loss not being finite" if run.skipped_steps else ""
    rest += f"; the lowest held-out loss was that of {best}" if best else ""
    if run.held_out is None:
        return f"trained for {run.seconds:.0f} s{rest}"
    before, after = run.held_out["before"]["loss"], run.held_out["after"]["loss"]
    return f"held-out loss {before:.4f} before, {after:.4f} after {run.seconds:.0f} s{rest}"


def main(argv: Sequence[str] | None = None, prog: str = "python -m hf_distilhubert.distill") -> DistillResult:
    """Distil from the command line."""
    (config,) = parse_dataclasses(
        [DistillConfig], prog, __doc__.splitlines()[0], EXAMPLES, argv, Path(__file__).parent / "recipes"
    )
    return distill(config)


if __name__ == "__main__":
    run_command(main)
