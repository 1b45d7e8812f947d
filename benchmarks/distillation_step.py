"""A step of distillation at the paper's sizes, against S3PRL's: `python -m benchmarks.distillation_step`.

S3PRL's step: a float32 teacher that runs all its layers with its dropout on and keeps every hidden state,
a float32 student, the loss over all frames. All learn from the same clips of noise on the CPU, with random
weights, and take turns; the median counts. With cached targets there is no teacher in the step; audio and
targets (float16) are read from files and collated in it, which the other steps find done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.turns import medians, timed
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.distillation_step
  python -m benchmarks.distillation_step --clips 8 --seconds 10 --threads 2
"""
LAYERS = [4, 8, 12]

Step = Callable[[], None]


def s3prls_step(model: Any, student: Any, batch: Any) -> Step:
    """The step as S3PRL takes it."""
    import torch

    from hf_distilhubert.objective import distillation_loss

    inputs, optimizer = (batch["input_values"], batch["attention_mask"]), _optimizer(student)

    def step() -> None:
        with torch.no_grad():
            states = model.train()(*inputs, output_hidden_states=True).hidden_states
        targets = torch.stack([states[layer] for layer in LAYERS], dim=1)
        distillation_loss(student.train()(*inputs).predictions, targets).total.backward()
        _update(student, optimizer)

    return step


def our_step(
    teacher: Any, student: Any, read: Callable[[], Any], *, bf16: bool, frozen: bool = False
) -> Step:
    """The step as `distilhubert distill` takes it; `read` gives its batch, perhaps with targets."""
    import torch

    from hf_distilhubert.group_norm import mask_group_norm
    from hf_distilhubert.pretraining import TeacherLoss

    mask_group_norm(student)
    if frozen:
        student.freeze_feature_encoder()
    loss_function, optimizer = TeacherLoss(teacher, student.objective), _optimizer(student)

    def step() -> None:
        batch = read()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = loss_function(student.train(), batch)
        loss.backward()
        _update(student, optimizer)

    return step


def _optimizer(student: Any) -> Any:
    from hf_distilhubert.pretraining import make_optimizer
    from hf_distilhubert.settings import DistillConfig

    return make_optimizer(DistillConfig(), student)[0]


def _update(student: Any, optimizer: Any) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()


def noise(folder: Path, number: int, seconds: float) -> list[Any]:
    """Clips of noise, the first the longest."""
    import numpy as np
    import soundfile

    from hf_distilhubert.speech_data import load_clips

    random = np.random.default_rng(0)
    for place in range(number):
        length = int(seconds * 16_000 * (1 - 0.05 * place))
        soundfile.write(folder / f"{place}.flac", random.uniform(-0.1, 0.1, length), 16_000)
    return load_clips(folder).clips


def filled_cache(folder: Path, teacher: Any, clips: list[Any]) -> Any:
    """The teacher's targets on disk, computed in bf16; its weights are let go."""
    from accelerate import Accelerator

    from hf_distilhubert.target_building import fill
    from hf_distilhubert.target_cache import TargetCache, describe

    header = describe(teacher, mask_group_norm=True, precision="bf16", dtype="float16")
    cache = TargetCache(folder, header)
    fill(Accelerator(cpu=True, mixed_precision="bf16"), teacher, cache, clips)
    teacher.to("meta")
    return cache


def make_steps(clips: list[Any], folder: Path) -> dict[str, Step]:
    """Every step by its name, S3PRL's first; `folder` is for the cache."""
    from transformers import HubertConfig, HubertModel

    from hf_distilhubert.cached_clips import TargetReader
    from hf_distilhubert.distillation_data import Collator
    from hf_distilhubert.students import student_from_teacher
    from hf_distilhubert.teachers import Teacher

    config = HubertConfig(apply_spec_augment=False, layerdrop=0.0)
    collator = Collator(config.conv_kernel, config.conv_stride, pad_multiple=1)
    batch = collator([clip.read() for clip in clips])
    model = HubertModel(config)
    steps = {"S3PRL's, emulated": s3prls_step(model, student_from_teacher(model, LAYERS), batch)}
    teacher = Teacher(HubertModel(config), LAYERS, do_normalize=False)
    for name, bf16 in (("ours, fp32", False), ("ours, bf16", True)):
        student = student_from_teacher(teacher.model, LAYERS)
        steps[name] = our_step(teacher, student, lambda: batch, bf16=bf16)
    cached = Teacher(HubertModel(config), LAYERS, do_normalize=False)
    students = [student_from_teacher(cached.model, LAYERS) for _ in range(2)]
    reader = TargetReader(filled_cache(folder, cached, clips), collator, max_samples=250_000)

    def read() -> Any:
        return reader.collate([reader.excerpt(clip) for clip in clips])

    steps["ours, bf16, cached targets"] = our_step(cached, students[0], read, bf16=True)
    steps["the same, front end frozen"] = our_step(cached, students[1], read, bf16=True, frozen=True)
    return steps


def main() -> None:
    """Read the command line, measure, and print the medians and their ratios."""
    parser = argument_parser("python -m benchmarks.distillation_step", __doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--clips", type=int, default=2, help="clips in a batch")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="length of the longest; the others get shorter"
    )
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with TemporaryDirectory() as sound, TemporaryDirectory() as targets:
        clips = noise(Path(sound), arguments.clips, arguments.seconds)
        steps = make_steps(clips, Path(targets))
        found = medians({name: timed(step) for name, step in steps.items()}, arguments.rounds)
    peer, *_ = found.values()
    for name, median in found.items():
        print(f"{name:28} {median:6.2f} s a step, {peer / median:.2f}x", flush=True)


if __name__ == "__main__":
    run_command(main)
