"""How far an exported file is from the model that it was made of, clip by clip and in a padded batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_distilhubert.audio import MIN_SAMPLES, SAMPLING_RATE, Waveform, normalise, pad
from hf_distilhubert.errors import UserError
from hf_distilhubert.export_runners import Array, Run

# A single frame, a second, and a length that is a multiple of nothing.
LENGTHS = (MIN_SAMPLES, SAMPLING_RATE, 84_801)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Deviation:
    """The largest difference in valid frames, as a share of the largest value that PyTorch gives.

    Attributes:
        alone: for each number of samples, of a clip alone from PyTorch's.
        batch: of the same clips in one padded batch from PyTorch's clips alone.
    """

    alone: dict[int, float]
    batch: float

    @property
    def worst(self) -> float:
        """The largest of them; NaN where there is one."""
        return float(np.max([*self.alone.values(), self.batch]))


def deviation(run: Run, module: Any, *, do_normalize: bool) -> Deviation:
    """Compare a file with PyTorch.

    Args:
        run: the file.
        module: the `export_graph.FramesAndLengths` that it was made of.
        do_normalize: whether the model expects waveforms of zero mean and unit variance.

    Raises:
        UserError: it gives another number of frames.
    """
    clips = [normalise(clip) if do_normalize else clip for clip in test_clips()]
    expected = [_frames(module, clip) for clip in clips]
    alone = {}
    for clip, frames in zip(clips, expected, strict=True):
        found, lengths = run(*pad([clip]))
        alone[len(clip)] = _difference(found[0], int(lengths[0]), frames)
    found, lengths = run(*pad(clips))
    rows = zip(found, lengths, expected, strict=True)
    return Deviation(alone, float(np.max([_difference(row, int(n), frames) for row, n, frames in rows])))


def check(run: Run, module: Any, path: Path, *, do_normalize: bool) -> Deviation:
    """`deviation`, which must not be over `TOLERANCE`.

    Raises:
        UserError: it is, or there is another number of frames.
    """
    found = deviation(run, module, do_normalize=do_normalize)
    if not found.worst <= TOLERANCE:
        raise UserError(
            f"{path.name} is off by {found.worst:.1e} from PyTorch, over the allowed {TOLERANCE:.0e}, and "
            "was not kept; try the tested versions of torch and of the runtime (constraints.txt)"
        )
    return found


def test_clips() -> list[Waveform]:
    """Noise with an offset, which changes from clip to clip as its loudness does."""
    generator = np.random.default_rng(0)
    clips = [(0.3 / (i + 1)) * (generator.standard_normal(n) + 0.2 * i) for i, n in enumerate(LENGTHS)]
    return [clip.astype(np.float32) for clip in clips]


@torch.no_grad()
def _frames(module: Any, clip: Waveform) -> Array:
    values, mask = (torch.from_numpy(array) for array in pad([clip]))
    frames, _ = module(values, mask)
    return np.asarray(frames[0])


def _difference(found: Array, length: int, expected: Array) -> float:
    if length != len(expected):
        raise UserError(f"the exported file makes {length} frames where PyTorch makes {len(expected)}")
    return float(np.abs(found[:length] - expected).max() / np.abs(expected).max())
