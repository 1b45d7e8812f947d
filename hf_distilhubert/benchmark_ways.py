"""The ways to run a model that are compared; each is built in the process that measures it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, HubertModel

from hf_distilhubert.audio import Waveform, num_frames, pad
from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.errors import UserError
from hf_distilhubert.export_runners import Run as Graph
from hf_distilhubert.export_runners import onnx_runner, openvino_runner
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.processes import computes_in_bf16
from hf_distilhubert.students import TEACHERS

BATCH = 8  # clips that Transformers pads to one length
# From clips `(time,)` to the last hidden state `(frame, hidden)` of each.
Run = Callable[[Sequence[Waveform]], list[Tensor]]
FAST = {f"FastEncoder {dtype}": dtype for dtype in ("float32", "bfloat16", "int8")}
NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "s3prl": ("s3prl",),
}


@dataclass(frozen=True)
class Way:
    """A way to run a model.

    Attributes:
        name: for people.
        kind: a key of `BUILDERS`.
        source: folder or repository of the model, or the exported file.
        dtype: of a `FastEncoder`.
        same_model: whether it runs the benchmark's own weights, so that its output should be the same.
        batches: whether it takes the mixed batch.
    """

    name: str
    kind: str
    source: str
    dtype: str = "float32"
    same_model: bool = True
    batches: bool = False

    @property
    def optional(self) -> bool:
        """Whether the others are measured where this one does not run."""
        return self.dtype == "int8" or self.kind == "s3prl"

    def build(self, threads: int, calibration: Sequence[Waveform]) -> Run:
        """What runs it, on so many threads (torch has been told already).

        Args:
            threads: for what is not torch.
            calibration: clips, for int8.
        """
        return BUILDERS[self.kind](self, threads, calibration)


def ways_for(model: str, against: Sequence[str], teacher: str) -> tuple[list[Way], dict[str, str]]:
    """The ways that were asked for, and why others are left out, by name.

    Args:
        model: folder or repository of the model.
        against: `hf`, `onnx`, `openvino`, `s3prl`, `teacher`, or folders.
        teacher: the folder that `teacher` stands for.

    Raises:
        UserError: there is no such peer, or its model is of another kind.
    """
    ways = [Way(name, "fast", model, dtype, batches=True) for name, dtype in FAST.items()]
    left_out = {}
    for peer in dict.fromkeys(against):
        missing = [package for package in NEEDS.get(peer, ()) if find_spec(package) is None]
        if missing:
            left_out[peer] = f"{' and '.join(missing)} not installed"
        elif peer == "s3prl":
            ways.append(Way(peer, peer, model, same_model=False))
        elif peer in NEEDS or peer == "hf":
            ways.append(Way(peer, peer, model, batches=True))
        else:
            source = teacher if peer == "teacher" else peer
            _check_peer(source)
            ways.append(Way(_unlike(ways, Path(source).name), "hf", source, same_model=False))
    return ways, left_out


def _unlike(ways: Sequence[Way], name: str) -> str:
    """A name that no other way has: folders of one name may lie in different places."""
    taken = {way.name for way in ways}
    return next(
        found for number in count(1) if (found := f"{name} {number}" if number > 1 else name) not in taken
    )


def _check_peer(source: str) -> None:
    names = ", ".join(("hf", *NEEDS, "teacher"))
    if not Path(source).is_dir() and "/" not in source:
        raise UserError(f"there is no peer {source!r}; give one of {names}, or the folder of a model")
    kind = load(AutoConfig, source).model_type
    if kind not in TEACHERS:
        raise UserError(
            f"{source} is of type {kind!r}, which is no peer; give a model of {', '.join(TEACHERS)}"
        )


def export_for(ways: Sequence[Way], folder: Path) -> list[Way]:
    """The same ways, with the exported file of the model in place of its folder where one is needed."""
    exported = [way for way in ways if way.kind in ("onnx", "openvino")]
    if not exported:
        return list(ways)
    from hf_distilhubert.export_graph import FramesAndLengths, write_onnx

    file = folder / "model.onnx"
    write_onnx(FramesAndLengths(load_model(HubertModel, exported[0].source)), file, {})
    return [replace(way, source=str(file)) if way in exported else way for way in ways]


def _fast(way: Way, _threads: int, calibration: Sequence[Waveform]) -> Run:
    clips = calibration if way.dtype == "int8" else None
    encoder = FastEncoder.from_pretrained(way.source, way.dtype, device="cpu", calibration=clips)

    def run(clips: Sequence[Waveform]) -> list[Tensor]:
        output: Any = encoder(clips)
        rows = zip(output.last_hidden_state, output.frame_lengths.tolist(), strict=True)
        return [row[:length] for row, length in rows]

    return run


def _transformers(way: Way, _threads: int, _calibration: Sequence[Waveform]) -> Run:
    """As people run it: a clip alone, or padded batches with a mask, in the order in which clips come."""
    model: Any = load_model(AutoModel, way.source, attn_implementation="sdpa")
    kernels, strides = model.config.conv_kernel, model.config.conv_stride

    @torch.inference_mode()
    def batch(clips: Sequence[Waveform]) -> list[Tensor]:
        values, mask = map(torch.from_numpy, pad(clips))
        states = model(values, attention_mask=mask if len(clips) > 1 else None).last_hidden_state
        frames = [num_frames(len(clip), kernels, strides) for clip in clips]
        return [row[:length] for row, length in zip(states, frames, strict=True)]

    return _in_batches(batch)


def _onnx(way: Way, threads: int, _calibration: Sequence[Waveform]) -> Run:
    return _exported(onnx_runner(Path(way.source), threads))


def _openvino(way: Way, threads: int, _calibration: Sequence[Waveform]) -> Run:
    precision = "bf16" if computes_in_bf16() else "f32"
    return _exported(openvino_runner(Path(way.source), threads, precision=precision))


def _s3prl(way: Way, _threads: int, _calibration: Sequence[Waveform]) -> Run:
    from hf_distilhubert.benchmark_s3prl import s3prl_run

    return s3prl_run(load(AutoConfig, way.source))


def _exported(graph: Graph) -> Run:
    def batch(clips: Sequence[Waveform]) -> list[Tensor]:
        frames, lengths = graph(*pad(clips))
        return [torch.tensor(row[:length]) for row, length in zip(frames, lengths, strict=True)]

    return _in_batches(batch)


def _in_batches(batch: Run) -> Run:
    """Clips as they come, `BATCH` of them padded to one length."""
    return lambda clips: [row for at in range(0, len(clips), BATCH) for row in batch(clips[at : at + BATCH])]


BUILDERS: dict[str, Callable[[Way, int, Sequence[Waveform]], Run]] = {
    "fast": _fast,
    "hf": _transformers,
    "onnx": _onnx,
    "openvino": _openvino,
    "s3prl": _s3prl,
}
