"""Batches of similar length against a plain shuffle (torch's RandomSampler): training steps on real clips.

Both run in turns in one process, over the same clips, with the same student and teacher; the figure is speech
per second of computing, as a ratio to the plain shuffle's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.length_batches --data recordings
  python -m benchmarks.length_batches --data recordings --threads 2 --rounds 9"""


def main() -> None:
    """Measure and print both, and their ratio."""
    parser = argument_parser("python -m benchmarks.length_batches", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--teacher", default="demo/teacher", help="folder or Hub repository of the teacher")
    parser.add_argument("--batch_size", type=int, default=8, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()

    import torch

    from hf_distilhubert.batches import ByCount, LengthBatches
    from hf_distilhubert.distillation_data import Collator
    from hf_distilhubert.pretraining import TeacherLoss
    from hf_distilhubert.speech_data import load_clips
    from hf_distilhubert.students import student_from_teacher
    from hf_distilhubert.teachers import load_teacher

    torch.set_num_threads(arguments.threads)
    waveforms = [clip.read() for clip in load_clips(arguments.data, "train").clips]
    lengths = [len(waveform) for waveform in waveforms]
    teacher = load_teacher(arguments.teacher, [2, 4, 6], 2)
    student = student_from_teacher(teacher.model, [2, 4, 6])
    loss_function = TeacherLoss(teacher, student.objective)
    collator = Collator(student.config.conv_kernel, student.config.conv_stride, pad_multiple=3_200)

    def speech_per_second(batches: Iterable[Sequence[int]]) -> float:
        seconds, samples = 0.0, 0
        for clips in batches:
            batch = collator([waveforms[clip] for clip in clips])
            started = time.perf_counter()
            loss_function(student, batch)[0].backward()
            seconds += time.perf_counter() - started
            samples += int(batch["attention_mask"].sum())
        return samples / 16_000 / seconds

    size, count = arguments.batch_size, -(-len(waveforms) // arguments.batch_size)
    plain: list[float] = []
    ours: list[float] = []
    for number in range(arguments.rounds):
        order = torch.randperm(len(waveforms), generator=torch.Generator().manual_seed(number)).tolist()
        plain.append(speech_per_second(order[start : start + size] for start in range(0, len(order), size)))
        sampler = LengthBatches(lengths, ByCount(size), count, seed=number)
        ours.append(speech_per_second([clip for clip, _ in batch] for batch in sampler))
        print(
            f"round {number + 1}: plain shuffle {plain[-1]:.1f}, similar length {ours[-1]:.1f} s/s",
            flush=True,
        )
    first, second = statistics.median(plain), statistics.median(ours)
    print(
        f"median of {arguments.rounds}, batches of {size}, {arguments.threads} threads: plain shuffle "
        f"{first:.1f}, similar length {second:.1f} seconds of speech a second; ratio {second / first:.2f}"
    )


if __name__ == "__main__":
    run_command(main)
