"""Transcription of clips of mixed lengths against `pipeline("automatic-speech-recognition", batch_size=8)`.

Both transcribe the same clips in turns in one process; the figure is the ratio of their median times. Right
is the text that the pipeline gives of a clip alone: in a batch it decodes the padding too, and a front end
with group norm hears it. Without `--model` it is a recogniser of the paper's sizes with random weights and a
layer norm front end.
"""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.turns import medians, timed
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.transcription --data ../shared/speech/librispeech_mini --clips 24
  python -m benchmarks.transcription --data recordings --split all --model demo/teacher --threads 2"""


def main() -> None:
    """Measure and print both, their ratio, and how many texts are equal."""
    parser = argument_parser("python -m benchmarks.transcription", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--split", default="test", help="which clips (default: test)")
    parser.add_argument("--clips", type=int, help="how many of them, from the first (default: all)")
    parser.add_argument("--model", help="folder of a recogniser; default: random, of the paper's sizes")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()

    import torch
    from transformers import pipeline

    from hf_distilhubert.speech_data import load_clips
    from hf_distilhubert.transcribe import Transcriber

    torch.set_num_threads(arguments.threads)
    waveforms = [clip.read() for clip in load_clips(arguments.data, arguments.split).clips[: arguments.clips]]
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(random_recogniser(Path(folder)))
        transcriber = Transcriber(model, device="cpu")
        recognise: Any = pipeline("automatic-speech-recognition", model=model, device="cpu")

    def stock(batch_size: int = 8) -> list[str]:
        return [found["text"] for found in recognise([w.copy() for w in waveforms], batch_size=batch_size)]

    ways: dict[str, Callable[[], list[str]]] = {
        "pipeline": stock,
        "ours": lambda: transcriber.transcribe_waveforms(waveforms),
    }
    first, second = medians({name: timed(way) for name, way in ways.items()}, arguments.rounds).values()
    audio = sum(map(len, waveforms)) / 16_000
    right = stock(batch_size=1)
    equal = {name: sum(map(str.__eq__, way(), right)) for name, way in ways.items()}
    shortest, longest = min(map(len, waveforms)) / 16_000, max(map(len, waveforms)) / 16_000
    print(
        f"{len(waveforms)} clips of {shortest:.1f} to {longest:.1f} s, {audio:.0f} s of speech, "
        f"{arguments.model or 'random weights, paper sizes, layer norm'}, {arguments.threads} threads, "
        f"median of {arguments.rounds}: pipeline {first:.2f} s, ours {second:.2f} s; "
        f"ratio {first / second:.2f}; texts right: pipeline {equal['pipeline']}, ours {equal['ours']}"
    )


def random_recogniser(folder: Path) -> Path:
    """Two layers and a front end of the paper's sizes, with layer norm, for 29 tokens."""
    import torch
    from transformers import HubertConfig, HubertForCTC

    from hf_distilhubert.ctc import ctc_processor, ctc_settings

    torch.manual_seed(0)
    tokens = ["<pad>", "<unk>", "|", *string.ascii_lowercase]
    processor = ctc_processor({token: number for number, token in enumerate(tokens)}, do_normalize=False)
    processor.save_pretrained(folder)
    shape: dict[str, Any] = {"num_hidden_layers": 2, "feat_extract_norm": "layer", "conv_bias": True}
    HubertForCTC(HubertConfig(**shape | ctc_settings(processor.tokenizer))).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    run_command(main)
