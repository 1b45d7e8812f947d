"""The two ways in which `FastEncoder` computes: products of our own on CPUs, and Transformers elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertForCTC, HubertModel

from hf_distilhubert.audio import SAMPLING_RATE, num_frames
from hf_distilhubert.errors import UserError
from hf_distilhubert.fast_front_end import ChannelStatistics, FastFrontEnd
from hf_distilhubert.fast_transformer import PROJECTION, FastTransformer
from hf_distilhubert.group_norm import mask_group_norm
from hf_distilhubert.int8 import Int8Packing, Observer, Range
from hf_distilhubert.packed import FloatPacking, Packing

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCH_SECONDS = 120.0  # of padded audio at once on an accelerator
States = Iterator[tuple[int, list[Tensor]]]
Head = Callable[[Tensor], Tensor]


def choose_route(
    model: HubertModel | HubertForCTC, dtype: str, device: torch.device, clips: Sequence[Tensor] | None
) -> tuple[Head | None, FastRoute | PlainRoute]:
    """The head of a CTC model, from `(frame, hidden)` to `(frame, token)`, and the way to its hidden states.

    Raises:
        UserError: see `FastEncoder`.
    """
    # A copy: where training goes on, weights that are packed stay as they were, and so must the others.
    own: Any = copy.deepcopy(model).eval().to(device)
    recognises = isinstance(model, HubertForCTC)
    encoder, head = (own.hubert, own.lm_head.float()) if recognises else (own, None)
    fast = device.type == "cpu" and has_fast_form(encoder)
    if dtype != "int8":
        number = TORCH[dtype]
        return head, FastRoute(encoder, FloatPacking(number)) if fast else PlainRoute(encoder, number, device)
    if not fast:
        raise UserError(f"int8 has no form for this model on {device}; give float32 or bfloat16")
    if not hasattr(torch.ops.onednn, "qlinear_prepack"):
        raise UserError("int8 needs oneDNN, which this build of torch lacks; give float32 or bfloat16")
    if not clips or not all(bool(clip.isfinite().all()) for clip in clips):
        raise UserError(
            "int8 takes the ranges of its numbers from real speech; give clips to calibrate with, without NaN"
        )
    return head, FastRoute(encoder, Int8Packing(calibrate(encoder, clips)))


def has_fast_form(model: Any) -> bool:
    """Whether `FastRoute` computes all that the model does."""
    config = model.config
    plain = {nn.Linear, nn.Conv1d, nn.LayerNorm, nn.GroupNorm}
    layers = [
        *(layer.conv for layer in model.feature_extractor.conv_layers),
        *(part for part in model.modules() if isinstance(part, (nn.Linear, nn.LayerNorm, nn.GroupNorm))),
    ]
    return (
        # An adapter that was put around a layer, for one, computes something else.
        all(type(layer) in plain and not layer._forward_hooks for layer in layers)
        and config.feat_extract_activation == config.hidden_act == "gelu"
        and not getattr(config, "conv_pos_batch_norm", False)
        and getattr(config, "adapter_attn_dim", None) is None
    )


class FastRoute:
    """One clip after another, or as many at once as torch has threads, each on its own.

    A clip fills a core, and a batch would only cost its padding and the cache.

    Args:
        encoder: a model that has a fast form.
        packing: the numbers of its linear layers.
    """

    def __init__(self, encoder: HubertModel, packing: Packing) -> None:
        self.transformer = FastTransformer(encoder, packing)
        feeds = None if self.transformer.feature_norm else PROJECTION
        self.front_end = FastFrontEnd(encoder.feature_extractor, packing, feeds)

    def __call__(self, clips: Sequence[Tensor]) -> States:
        """Position and hidden states of `(time,)` clips on the CPU, as they are ready.

        Returns:
            For each clip `layers + 2` tensors `(frame, hidden)`. The last is `last_hidden_state`: the one
            before it, or in large models its normalised form.
        """
        threads = torch.get_num_threads()
        if len(clips) < threads or threads == 1:
            yield from ((index, self.clip(samples)) for index, samples in enumerate(clips))
            return
        longest_first = sorted(range(len(clips)), key=lambda index: -len(clips[index]))
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                waiting = {pool.submit(self.clip, clips[index]): index for index in longest_first}
                try:
                    for done in as_completed(waiting):
                        yield waiting.pop(done), done.result()
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:
            # What a thread sets for itself is what threads to come start with.
            torch.set_num_threads(threads)

    @torch.no_grad()
    def clip(self, samples: Tensor, given: ChannelStatistics | None = None) -> list[Tensor]:
        """Hidden states of `(time,)` samples; see `FastTransformer` and `FastFrontEnd`."""
        return self.transformer(self.front_end(samples, given))


class PlainRoute:
    """Transformers' own model, in batches of similar length on an accelerator, with padding masked.

    Args:
        encoder: the model, which is the route's own from then on.
        dtype: what it computes in.
        device: where.
    """

    def __init__(self, encoder: Any, dtype: torch.dtype, device: torch.device) -> None:
        self.model: Any = encoder.to(device, dtype)
        mask_group_norm(self.model)
        # A CPU is busy with one clip, and what is padded to another's length is lost time.
        self.samples = 0 if device.type == "cpu" else BATCH_SECONDS * SAMPLING_RATE

    def __call__(self, clips: Sequence[Tensor]) -> States:
        """See `FastRoute`; `(time,)` clips on the device."""
        batch: list[int] = []
        for index in sorted(range(len(clips)), key=lambda index: len(clips[index])):
            if batch and (len(batch) + 1) * len(clips[index]) > self.samples:
                yield from self._batch(batch, clips)
                batch = []
            batch.append(index)
        if batch:
            yield from self._batch(batch, clips)

    @torch.no_grad()
    def _batch(self, batch: Sequence[int], clips: Sequence[Tensor]) -> list[tuple[int, list[Tensor]]]:
        values = torch.nn.utils.rnn.pad_sequence([clips[index] for index in batch], batch_first=True)
        lengths = torch.tensor([len(clips[index]) for index in batch], device=values.device)
        mask = (torch.arange(values.shape[1], device=values.device) < lengths[:, None]).long()
        output = self.model(values.to(self.model.dtype), attention_mask=mask, output_hidden_states=True)
        states = [*output.hidden_states, output.last_hidden_state]
        kernels, strides = self.model.config.conv_kernel, self.model.config.conv_stride
        found = []
        for row, index in enumerate(batch):
            frames = num_frames(len(clips[index]), kernels, strides)
            found.append((index, [state[row, :frames].float() for state in states]))
        return found


def calibrate(encoder: HubertModel, clips: Sequence[Tensor]) -> dict[str, Range]:
    """The range of what each linear layer takes, over a few clips `(time,)`."""
    observer = Observer()
    observed = FastRoute(encoder, observer)
    for samples in clips:
        observed.clip(samples)
    return observer.ranges()
