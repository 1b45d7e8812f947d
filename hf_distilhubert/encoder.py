"""The fastest exact way to run a student: a clip in any batch comes out as it does alone.

encoder = FastEncoder.from_pretrained("runs/student")
output = encoder([waveform, shorter])
output.last_hidden_state  # (batch, frame, hidden), zeros behind the end of a clip
output.frame_lengths      # (batch,)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoConfig, HubertConfig, HubertForCTC, HubertModel
from transformers.utils.generic import ModelOutput

from hf_distilhubert.audio import AudioError, num_frames, too_short
from hf_distilhubert.errors import UserError
from hf_distilhubert.loading import load, load_model
from hf_distilhubert.processes import computes_in_bf16
from hf_distilhubert.routes import choose_route

DTYPES = ("auto", "float32", "bfloat16", "int8")
Samples = Tensor | npt.NDArray[np.float32]


@dataclass
class FastEncoderOutput(ModelOutput):
    """Transformers' names and shapes; what is behind the end of a clip is zero.

    Attributes:
        last_hidden_state: `(batch, frame, hidden)`.
        frame_lengths: `(batch,)`, how many frames each clip has.
        hidden_states: `layers + 1` tensors `(batch, frame, hidden)`, where asked for.
        logits: `(batch, frame, token)` of a CTC model.
    """

    last_hidden_state: Tensor | None = None
    frame_lengths: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    logits: Tensor | None = None


class FastEncoder:
    """A `HubertModel` or `HubertForCTC` for inference only; the model itself stays as it is.

    On a CPU it is computed by matrix products of our own arrangement; on other devices, and where a model has
    parts that these have no form for, by Transformers with padding kept out of the norms. Either way a clip
    gives the same in any batch.

    Args:
        model: the model; students of any size, and teachers.
        dtype: `float32` (within 1e-5 of the model), `bfloat16`, `int8` (on CPUs), or `auto`: bfloat16 where
            the hardware computes with it, else float32.
        device: where to run; None lets Accelerate choose.
        calibration: a few real clips `(time,)`, for int8.

    Raises:
        UserError: another architecture or dtype, or int8 without clips or on another device.
    """

    def __init__(
        self,
        model: HubertModel | HubertForCTC,
        dtype: str = "float32",
        *,
        device: str | torch.device | None = None,
        calibration: Iterable[Samples] | None = None,
    ) -> None:
        if type(model) not in (HubertModel, HubertForCTC):
            raise UserError(f"a {type(model).__name__} has no fast form; give a HubertModel or HubertForCTC")
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is unknown; give one of {', '.join(DTYPES)}")
        if dtype == "auto":
            dtype = "bfloat16" if computes_in_bf16() else "float32"
        self.config, self.dtype = model.config, dtype
        self.device = torch.device(device or PartialState().device)
        clips = None if calibration is None else [self.clip(samples) for samples in calibration]
        self.head, self.route = choose_route(model, dtype, self.device, clips)
        weights = partial(_of_weights, type(model), model.config, model.state_dict())
        self.again: Callable[[], FastEncoder] = partial(weights, dtype, device=device, calibration=clips)

    def __reduce__(self) -> tuple[Callable[[], FastEncoder], tuple[()]]:
        """Made anew elsewhere, from the model as it is then: what oneDNN has packed does not travel."""
        return self.again, ()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: str = "float32",
        *,
        device: str | torch.device | None = None,
        calibration: Iterable[Samples] | None = None,
    ) -> FastEncoder:
        """The model of a folder or a repository on the Hub; see the class.

        Raises:
            UserError: there is no such model, or it is of another architecture.
        """
        config = load(AutoConfig, source)
        if config.model_type != "hubert":
            raise UserError(f"{source} holds a model of type {config.model_type}; give one of type hubert")
        recognises = (config.architectures or [""])[0] == "HubertForCTC"
        model = load_model(HubertForCTC if recognises else HubertModel, source)
        clips = None if calibration is None else list(calibration)
        encoder = cls(model, dtype, device=device, calibration=clips)
        encoder.again = partial(cls.from_pretrained, source, dtype, device=device, calibration=clips)
        return encoder

    def __call__(
        self,
        input_values: Samples | Sequence[Samples],
        attention_mask: Samples | None = None,
        *,
        output_hidden_states: bool = False,
    ) -> FastEncoderOutput:
        """Hidden states of clips as the model takes them (normalised, if its feature extractor does that).

        Args:
            input_values: one clip `(time,)`, several of any lengths, or a batch `(batch, time)`.
            attention_mask: `(batch, time)`, 1 for samples and 0 for padding at the end of a batch.
            output_hidden_states: whether to give those of all layers.

        Raises:
            AudioError: a clip is shorter than one frame.
            UserError: there are no clips, or these are none, or the mask does not belong to them.
        """
        clips = self._clips(input_values, attention_mask)
        states: list[list[Tensor]] = [[] for _ in clips]
        # In a training loop autocast would round what is computed here.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for index, found in self.route(clips):
                states[index] = found if output_hidden_states else found[-1:]
            last = [found[-1] for found in states]
            logits = _padded(map(self.head, last)) if self.head else None
        return FastEncoderOutput(
            last_hidden_state=_padded(last),
            frame_lengths=torch.tensor([len(frames) for frames in last], device=last[0].device),
            hidden_states=tuple(map(_padded, zip(*(found[:-1] for found in states), strict=True))) or None,
            logits=logits,
        )

    def _clips(
        self, input_values: Samples | Sequence[Samples], attention_mask: Samples | None
    ) -> list[Tensor]:
        if isinstance(input_values, (Tensor, np.ndarray)) and input_values.ndim == 1:
            input_values = input_values[None]
        if not len(input_values):
            raise UserError("no clips were given; give at least one")
        clips = [self.clip(samples) for samples in input_values]
        return clips if attention_mask is None else self._unpadded(clips, torch.as_tensor(attention_mask))

    def _unpadded(self, clips: list[Tensor], mask: Tensor) -> list[Tensor]:
        mask = mask[None] if mask.ndim == 1 and len(clips) == 1 else mask
        if any(mask.shape != (len(clips), *clip.shape) for clip in clips) or bool(
            (mask[:, 1:].bool() & ~mask[:, :-1].bool()).any()
        ):
            raise UserError(
                f"an attention mask of shape {tuple(mask.shape)} does not say where {len(clips)} clips of "
                f"{len(clips[0])} samples end; give ones for the samples of each and zeros behind them"
            )
        return [
            self.clip(clip[: int(length)]) for clip, length in zip(clips, mask.bool().sum(-1), strict=True)
        ]

    def clip(self, samples: Samples) -> Tensor:
        """One clip as the encoder computes with it.

        Raises:
            AudioError: it is shorter than one frame.
            UserError: it is no `(time,)` of floating-point numbers.
        """
        whole = torch.as_tensor(np.array(samples) if isinstance(samples, np.ndarray) else samples)
        if whole.ndim != 1 or not whole.is_floating_point():
            raise UserError(
                f"a clip of shape {tuple(whole.shape)} and type {whole.dtype}; give (time,) samples of one "
                "channel as floating-point numbers, as read_audio does"
            )
        if num_frames(len(whole), self.config.conv_kernel, self.config.conv_stride) < 1:
            raise AudioError(too_short(len(whole)))
        return whole.detach().to(self.device, torch.float32).contiguous()


def _of_weights(
    kind: type[HubertModel | HubertForCTC],
    config: HubertConfig,
    weights: dict[str, Any],
    dtype: str,
    **rest: Any,
) -> FastEncoder:
    model = kind(config)
    model.load_state_dict(weights)
    return FastEncoder(model.eval(), dtype, **rest)


def _padded(rows: Iterable[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
