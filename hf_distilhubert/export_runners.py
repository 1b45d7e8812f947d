"""An exported file as a function, by ONNX Runtime or OpenVINO: arrays in, arrays out, no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_distilhubert.audio import SAMPLING_RATE, Waveform
from hf_distilhubert.errors import UserError

Array = npt.NDArray[Any]
# From input_values and attention_mask, (batch, time) both, to frames (batch, frame, feature) and how many of
# each clip are its own, (batch,).
Run = Callable[[Array, Array], tuple[Array, Array]]


def need_packages(extra: str, *packages: str) -> None:
    """Refuse to begin where an optional package is missing.

    Args:
        extra: of this project, which holds them.
        *packages: by the names that they are imported under.

    Raises:
        UserError: one is missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"this export needs {' and '.join(missing)}, not installed here; "
            f"pip install 'hf-distilhubert[{extra}]'"
        )


def onnx_runner(path: Path, threads: int = 0) -> Run:
    """An ONNX file on the CPU, on so many threads; 0 leaves that to ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about its own optimiser
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(input_values: Array, attention_mask: Array) -> tuple[Array, Array]:
        frames, lengths = session.run(
            None, {"input_values": input_values, "attention_mask": attention_mask.astype(np.int64)}
        )
        return frames, lengths

    return run


def openvino_runner(path: Path, threads: int = 0, *, precision: str = "f32") -> Run:
    """A model on the CPU by OpenVINO.

    Args:
        path: of an OpenVINO model or an ONNX file.
        threads: how many; 0 leaves that to OpenVINO.
        precision: `f32` or `bf16`; left alone, it rounds where the hardware has bfloat16.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.compile_model(str(path), "CPU", settings)

    def run(input_values: Array, attention_mask: Array) -> tuple[Array, Array]:
        found = compiled([input_values, attention_mask.astype(np.int64)])
        return found[0], found[1]

    return run


def transcribe(run: Run, processor: Any, waveform: Waveform) -> str:
    """The text of one `(time,)` waveform at 16 kHz, decoded greedily."""
    inputs = processor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="np", return_attention_mask=True)
    logits, _ = run(inputs["input_values"], inputs["attention_mask"])
    return str(processor.decode(logits[0].argmax(-1)))
