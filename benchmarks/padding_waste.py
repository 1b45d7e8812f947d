"""How much of a batch is padding: random batches, batches of similar length, a budget of seconds.

The lengths are those of a data set, and as many as LibriSpeech's 960 hours have (281,241 clips), drawn from
them with replacement. No audio is decoded, nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hf_distilhubert.audio import SAMPLING_RATE
from hf_distilhubert.batches import ByBudget, ByCount, Cut
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.streamed_steps import POOL

EXAMPLES = """\
  python -m benchmarks.padding_waste --data ../shared/speech/librispeech_mini
  python -m benchmarks.padding_waste --data recordings --max_samples 80000 --batch_size 8"""
LIBRISPEECH_CLIPS = 281_241

Lengths = npt.NDArray[np.int64]


def main() -> None:
    """Print the share of padding of every way to cut batches."""
    parser = argument_parser("python -m benchmarks.padding_waste", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--split", default="train", help="split of it")
    parser.add_argument("--batch_size", type=int, default=24, help="clips in a batch")
    parser.add_argument("--max_samples", type=int, default=250_000, help="longer clips are cropped to this")
    parser.add_argument("--pad_multiple", type=int, default=3_200, help="batches are padded to a multiple")
    arguments = parser.parse_args()
    clips = load_clips(arguments.data, arguments.split).clips
    lengths = np.array([clip.num_samples for clip in clips])
    drawn = np.random.default_rng(0).choice(lengths, LIBRISPEECH_CLIPS)
    count, longest, multiple = arguments.batch_size, arguments.max_samples, arguments.pad_multiple
    # The budget takes as much audio per step as the same number of average clips.
    budget = int(count * np.minimum(lengths, longest).mean())
    ways: list[tuple[str, Cut | None, int | None]] = [
        (f"random, {count} clips", None, None),
        (f"similar length, {count} clips", ByCount(count), None),
        (f"budget of {budget / SAMPLING_RATE:.0f} s", ByBudget(budget, longest, multiple), None),
        (f"streamed, {count} clips", ByCount(count), POOL // count * count),
        (f"streamed, budget of {budget / SAMPLING_RATE:.0f} s", ByBudget(budget, longest, multiple), POOL),
    ]
    print(f"{'share of padding':<30}{len(lengths):>10,} clips{len(drawn):>10,} drawn")
    for name, cut, pool in ways:
        shares = [
            padding(np.minimum(some, longest), epoch(some, cut, count, pool), multiple)
            for some in (lengths, drawn)
        ]
        print(f"{name:<30}{shares[0]:>15.1%} {shares[1]:>15.1%}", flush=True)


def epoch(lengths: Lengths, cut: Cut | None, count: int, pool: int | None) -> Iterable[Lengths]:
    """The batches of one epoch, of a list or (`pool`) of a stream; at random without `cut`."""
    generator = np.random.default_rng(0)
    order = generator.permutation(len(lengths))
    if cut is None:
        return np.split(order, range(count, len(order), count))
    starts = [*range(0, len(order), pool or len(order)), len(order)]
    return (
        order[start:end][batch]
        for start, end in pairwise(starts)
        for batch in cut(lengths[order[start:end]], generator)
    )


def padding(lengths: Lengths, batches: Iterable[Lengths], multiple: int) -> float:
    """The share of samples that are padding, and of clips that fill up the last batch."""
    padded = sum(len(batch) * -(-int(lengths[batch].max()) // multiple) * multiple for batch in batches)
    return 1 - int(lengths.sum()) / padded


if __name__ == "__main__":
    run_command(main)
