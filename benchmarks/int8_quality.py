"""What int8 costs a recogniser in words: `FastEncoder` in float32 and in int8 transcribe the same clips.

The ranges of int8 are taken from training clips, as a user would take them; the words are those of the test
split, decoded greedily. Beside the error rates stands how far the logits are off, and in how many frames
another token wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.export_runners import Array, Run

EXAMPLES = """\
  python -m benchmarks.int8_quality --model runs/digits --data ../shared/speech/fsdd_digits
  python -m benchmarks.int8_quality --model runs/recogniser --data recordings --split validation"""


def main() -> None:
    """Measure and print."""
    parser = argument_parser("python -m benchmarks.int8_quality", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--model", required=True, help="folder or Hub repository of a recogniser")
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME with transcripts")
    parser.add_argument("--split", default="test", help="which clips are transcribed (default: test)")
    parser.add_argument("--calibration_split", default="train", help="which clips give the ranges")
    parser.add_argument("--calibration_clips", type=int, default=16, help="how many of them (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    arguments = parser.parse_args()

    from hf_distilhubert.encoder import FastEncoder
    from hf_distilhubert.export_int8 import cost
    from hf_distilhubert.export_model import load_exportable, speech_with_texts

    exportable = load_exportable(arguments.model)
    clips, references = speech_with_texts(exportable, arguments.data, arguments.split, None)
    calibration, _ = speech_with_texts(exportable, arguments.data, arguments.calibration_split, None)
    chosen = np.random.default_rng(arguments.seed).permutation(len(calibration))[
        : arguments.calibration_clips
    ]
    heard = [_as_taken(exportable.processor, calibration[index].read()) for index in chosen]
    runs = {
        dtype: _runner(FastEncoder.from_pretrained(arguments.model, dtype, device="cpu", calibration=heard))
        for dtype in ("float32", "int8")
    }
    found = cost(runs, exportable.processor, clips, references)
    waveforms = [_as_taken(exportable.processor, clip.read()) for clip in clips]
    off, other = _difference(runs, waveforms)
    words = sum(len(text.split()) for text in references)
    print(f"{arguments.model}, {found.clips} clips, {words} words, ranges from {len(heard)} others: {found}")
    print(f"logits off by {off:.1e}, another token in {other:.2%} of the frames")


def _as_taken(processor: Any, waveform: Array) -> Array:
    values = processor(waveform, sampling_rate=16_000, return_tensors="np")["input_values"]
    return np.asarray(values[0], dtype=np.float32)


def _runner(encoder: Any) -> Run:
    """The encoder's logits, as exported files give theirs."""

    def run(input_values: Array, _mask: Array) -> tuple[Array, Array]:
        output = encoder(input_values)
        return output.logits.numpy(), output.frame_lengths.numpy()

    return run


def _difference(runs: dict[str, Run], waveforms: Sequence[Array]) -> tuple[float, float]:
    """Of all logits, `||a - b|| / ||b||`, and the share of frames in which another token is the likeliest."""
    pairs = [tuple(run(w[None], w[None])[0][0] for run in runs.values()) for w in waveforms]
    exact, rounded = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    off = float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))
    return off, float((rounded.argmax(-1) != exact.argmax(-1)).mean())


if __name__ == "__main__":
    run_command(main)
