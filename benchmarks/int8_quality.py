"""What fewer bits cost a recogniser in words: `FastEncoder` in float32, bfloat16 and int8 on the same clips.

The ranges of int8 are taken from training clips, as a user would take them, in several choices, since one
says little; the words are those of other splits, decoded greedily. Beside the error rates stands in how many
clips the text is another one, how far the logits are off, and in how many frames another token wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.export_runners import Array, Run

EXAMPLES = """\
  python -m benchmarks.int8_quality --model runs/digits --data ../shared/speech/fsdd_digits
  python -m benchmarks.int8_quality --model runs/recogniser --data recordings --splits validation test"""


def main() -> None:
    """Measure and print."""
    parser = argument_parser("python -m benchmarks.int8_quality", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--model", required=True, help="folder or Hub repository of a recogniser")
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME with transcripts")
    parser.add_argument("--splits", nargs="+", default=["test"], help="what is transcribed (default: test)")
    parser.add_argument("--calibration_split", default="train", help="which clips give the ranges")
    parser.add_argument("--calibration_clips", type=int, default=16, help="how many of them (default: 16)")
    parser.add_argument("--choices", type=int, default=4, help="how many choices of them (default: 4)")
    for line in measure(**vars(parser.parse_args())):
        print(line, flush=True)


def measure(
    model: str, data: str, splits: Sequence[str], calibration_split: str, calibration_clips: int, choices: int
) -> Iterator[str]:
    """What was heard, and a line for bfloat16 and each choice of clips for int8; see `main`."""
    from hf_distilhubert.encoder import FastEncoder
    from hf_distilhubert.export_int8 import cost
    from hf_distilhubert.export_model import load_exportable, speech_with_texts

    exportable = load_exportable(model)
    parts = [speech_with_texts(exportable, data, split, None) for split in splits]
    clips, references = [c for part in parts for c in part[0]], [text for part in parts for text in part[1]]
    waveforms = [_as_taken(exportable.processor, clip.read()) for clip in clips]
    others, _ = speech_with_texts(exportable, data, calibration_split, None)
    yield f"{model}, {len(clips)} clips, {sum(len(text.split()) for text in references)} words"

    right = _runner(FastEncoder.from_pretrained(model, device="cpu"))
    for seed in range(-1, choices):
        dtype = "int8" if seed >= 0 else "bfloat16"
        order = np.random.default_rng(max(seed, 0)).permutation(len(others))[:calibration_clips]
        heard = [_as_taken(exportable.processor, others[index].read()) for index in order]
        run = _runner(FastEncoder.from_pretrained(model, dtype, device="cpu", calibration=heard))
        found = cost({"float32": right, "int8": run}, exportable.processor, clips, references)
        off, other = _difference(right, run, waveforms)
        yield (
            f"{dtype}: WER {found.float32.wer:.2%} in float32, {found.int8.wer:.2%} in it "
            f"({found.points['wer']:+.2f} points); {found.different} of {found.clips} texts differ; "
            f"logits off by {off:.1e}, another token in {other:.2%} of the frames"
        )


def _as_taken(processor: Any, waveform: Array) -> Array:
    values = processor(waveform, sampling_rate=16_000, return_tensors="np")["input_values"]
    return np.asarray(values[0], dtype=np.float32)


def _runner(encoder: Any) -> Run:
    """The encoder's logits, as exported files give theirs."""

    def run(input_values: Array, _mask: Array) -> tuple[Array, Array]:
        output = encoder(input_values)
        return output.logits.numpy(), output.frame_lengths.numpy()

    return run


def _difference(right: Run, brief: Run, waveforms: Sequence[Array]) -> tuple[float, float]:
    """Of all logits, `||a - b|| / ||b||`, and the share of frames in which another token is the likeliest."""
    pairs = [tuple(run(clip[None], clip[None])[0][0] for run in (right, brief)) for clip in waveforms]
    exact, rounded = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    off = float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))
    return off, float((rounded.argmax(-1) != exact.argmax(-1)).mean())


if __name__ == "__main__":
    run_command(main)
