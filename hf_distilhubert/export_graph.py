"""What is exported: frames, and how many of them count, as one ONNX graph with both sizes of a batch open."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hf_distilhubert.audio import SAMPLING_RATE
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.group_norm import mask_group_norm

INPUTS, LENGTHS = ("input_values", "attention_mask"), "frame_lengths"
OPSET = 18
# One file must hold it, because a browser fetches one; protobuf ends at 2 GiB.
LARGEST = 2**31 - 2**24


class FramesAndLengths(nn.Module):
    """A model as the graph has it: two inputs, two outputs, padding out of everything that is valid.

    Args:
        model: a Transformers model of the HuBERT or wav2vec2 kind, with a CTC head or none. Its first
            GroupNorm is masked from now on (see `group_norm.mask_group_norm`) and its weight norm is worked
            out, also outside the graph.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        mask_group_norm(model)
        # Of the two ways to attend the plainer graph, at the same speed; and WavLM has no other.
        model.set_attn_implementation("eager")
        for part in list(model.modules()):
            if parametrize.is_parametrized(part, "weight"):
                parametrize.remove_parametrizations(part, "weight")
        self.model = model.eval().requires_grad_(False)

    @property
    def output(self) -> str:
        """`logits` or `last_hidden_state`."""
        return "logits" if hasattr(self.model, "lm_head") else "last_hidden_state"

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Frames `(batch, frame, feature)` of right-padded waveforms, and how many of each clip are its own.

        Args:
            input_values: `(batch, time)`, 16 kHz, normalised if the model's feature extractor says so.
            attention_mask: `(batch, time)`, 1 for samples and 0 for padding.
        """
        frames = getattr(self.model(input_values, attention_mask=attention_mask), self.output)
        return frames, self.model._get_feat_extract_output_lengths(attention_mask.sum(-1))


def write_onnx(module: FramesAndLengths, path: Path, metadata: Mapping[str, str]) -> None:
    """Trace the model and write its graph with its weights into one file.

    Args:
        module: what is traced.
        path: the new file.
        metadata: what the file says of itself, in its `metadata_props`.

    Raises:
        UserError: it cannot be traced, or is too large for one file.
    """
    size = sum(parameter.numel() * 4 for parameter in module.parameters())
    if size > LARGEST:
        raise UserError(
            f"{size / 1e9:.1f} GB of weights do not fit into an ONNX file of 2 GB; give a student"
        )
    mask = torch.ones(2, SAMPLING_RATE, dtype=torch.long)
    mask[1, SAMPLING_RATE // 2 :] = 0
    both_open = {0: "batch", 1: "time"}
    try:
        with _quiet_exporter(), torch.no_grad():
            program: Any = torch.onnx.export(
                module,
                (0.1 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * mask, mask),
                dynamo=True,
                input_names=INPUTS,
                output_names=(module.output, LENGTHS),
                dynamic_shapes=(both_open, both_open),
                opset_version=OPSET,
                verbose=False,
            )
    # Whatever the tracer trips over, it raises of classes of its own.
    except Exception as error:
        kind = type(module.model).__name__
        raise UserError(f"a {kind} cannot be exported: {one_line(error, 300)}") from error
    _leave_out_traces(program.model)
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _leave_out_traces(graph_model: Any) -> None:
    """The exporter writes the lines of code behind each node, with the paths of this machine."""
    for part in (graph_model.graph, *graph_model.functions.values()):
        for node in part:
            node.metadata_props.clear()
            for output in node.outputs:
                output.metadata_props.clear()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of packages and shapes that are no business of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
