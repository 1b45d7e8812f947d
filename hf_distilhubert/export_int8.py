"""The linear layers of an exported recogniser in 8 bits, and what that costs in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError
from hf_distilhubert.export_runners import Run, transcribe
from hf_distilhubert.speech_data import Clip


def quantise(source: Path, target: Path) -> None:
    """Store the weights of an ONNX file's linear layers in 8 bits and compute with them in 8 bits.

    The convolutions stay in float32: ONNX Runtime computes them twice as slowly in 8 bits. Weights have a
    scale for each output and 7 of the 8 bits, since processors without VNNI overflow with all of them: so
    the file gives the same everywhere. Activations get their scale when they are there.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to run a preparation that the exporter has done
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class ErrorRates:
    """Errors per word and per character, 0.25 = 25 %."""

    wer: float
    cer: float


@dataclass(frozen=True)
class Cost:
    """What the same clips give in both precisions.

    Attributes:
        clips: how many.
        float32: error rates of the file before.
        int8: error rates of the file after.
        different: clips whose texts differ.
    """

    clips: int
    float32: ErrorRates
    int8: ErrorRates
    different: int

    @property
    def points(self) -> dict[str, float]:
        """By how much WER and CER rise, in points of a hundred."""
        rates = asdict(self.float32)
        return {name: 100 * (rate - rates[name]) for name, rate in asdict(self.int8).items()}

    def __str__(self) -> str:
        """In a line."""
        before, after = asdict(self.float32), asdict(self.int8)
        parts = [
            f"{name.upper()} {before[name]:.2%} in float32, {after[name]:.2%} in int8 ({points:+.2f} points)"
            for name, points in self.points.items()
        ]
        return f"{'; '.join(parts)}; {self.different} of {self.clips} texts differ"


def cost(runs: Mapping[str, Run], processor: Any, clips: Sequence[Clip], references: Sequence[str]) -> Cost:
    """Let both files transcribe the same clips, each clip alone.

    Args:
        runs: the files, as `float32` and `int8`.
        processor: of the recogniser.
        clips: what is transcribed.
        references: what is said in each, in the recogniser's normal form.

    Raises:
        UserError: there is nothing to compare with.
        AudioError: a clip cannot be read.
    """
    from tqdm import tqdm

    if not references:
        raise UserError("no clip has a transcript to measure int8 by; give others")
    texts: dict[str, list[str]] = {name: [] for name in runs}
    for clip in tqdm(clips, desc="transcribing twice", unit="clip", disable=None):
        waveform = clip.read()
        for name, run in runs.items():
            texts[name].append(transcribe(run, processor, waveform))
    rates = {name: _error_rates(references, found) for name, found in texts.items()}
    different = sum(a != b for a, b in zip(texts["float32"], texts["int8"], strict=True))
    return Cost(len(clips), rates["float32"], rates["int8"], different)


def _error_rates(references: Sequence[str], texts: Sequence[str]) -> ErrorRates:
    import jiwer

    wer, cer = (measure(list(references), list(texts)) for measure in (jiwer.wer, jiwer.cer))
    return ErrorRates(float(wer), float(cer))
