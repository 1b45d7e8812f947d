"""A step of distillation at the paper's sizes, against S3PRL's: `python -m benchmarks.distillation_step`.

S3PRL's step: a float32 teacher that runs all its layers with its dropout on and keeps every hidden state,
a float32 student, the loss over all frames. All learn from the same batch of noise on the CPU, with random
weights, and take turns; the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.distillation_step
  python -m benchmarks.distillation_step --clips 8 --seconds 10 --threads 2
"""
LAYERS = [4, 8, 12]


def s3prls_step(model: Any, student: Any, optimizer: Any, batch: Any) -> Callable[[], None]:
    """The step as S3PRL takes it."""
    import torch

    from hf_distilhubert.objective import distillation_loss

    inputs = batch["input_values"], batch["attention_mask"]

    def step() -> None:
        with torch.no_grad():
            states = model.train()(*inputs, output_hidden_states=True).hidden_states
        targets = torch.stack([states[layer] for layer in LAYERS], dim=1)
        distillation_loss(student.train()(*inputs).predictions, targets).total.backward()
        _update(student, optimizer)

    return step


def our_step(model: Any, student: Any, optimizer: Any, batch: Any, bf16: bool) -> Callable[[], None]:
    """The step as `distilhubert distill` takes it."""
    import torch

    from hf_distilhubert.group_norm import mask_group_norm
    from hf_distilhubert.pretraining import TeacherLoss
    from hf_distilhubert.teachers import Teacher

    loss_function = TeacherLoss(Teacher(model, LAYERS, do_normalize=False), student.objective)
    mask_group_norm(student)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = loss_function(student.train(), batch)
        loss.backward()
        _update(student, optimizer)

    return step


def _update(student: Any, optimizer: Any) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()


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

    import numpy as np
    import torch
    from transformers import HubertConfig, HubertModel

    from hf_distilhubert.distillation_data import Collator
    from hf_distilhubert.pretraining import make_optimizer
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.students import student_from_teacher

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = HubertConfig(apply_spec_augment=False, layerdrop=0.0)
    noise = np.random.default_rng(0)
    lengths = [int(arguments.seconds * 16_000 * (1 - 0.05 * i)) for i in range(arguments.clips)]
    batch = Collator(config.conv_kernel, config.conv_stride, pad_multiple=1)(
        [noise.uniform(-0.1, 0.1, length).astype(np.float32) for length in lengths]
    )

    def parts() -> tuple[Any, Any, Any]:
        model = HubertModel(config)
        student = student_from_teacher(model, LAYERS)
        return model, student, make_optimizer(DistillConfig(), student)[0]

    steps = {
        "S3PRL's, emulated": s3prls_step(*parts(), batch),
        "ours, fp32": our_step(*parts(), batch, bf16=False),
        "ours, bf16": our_step(*parts(), batch, bf16=True),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    peer, *_ = (statistics.median(values) for values in times.values())
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:20} {median:6.2f} s a step, {peer / median:.2f}x", flush=True)


if __name__ == "__main__":
    run_command(main)
