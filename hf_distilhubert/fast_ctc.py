"""A `HubertForCTC` on a CPU, from sound to log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import HubertForCTC

from hf_distilhubert.encoder import FastEncoder
from hf_distilhubert.long_audio import Statistics, channel_statistics
from hf_distilhubert.routes import FastRoute

if TYPE_CHECKING:
    from hf_distilhubert.audio import Waveform


def fast_recogniser(model: Any) -> FastRecogniser | None:
    """The fast form of a recogniser that has one where it is."""
    if type(model) is not HubertForCTC or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    encoder = FastEncoder(model, device="cpu")
    return FastRecogniser(encoder, encoder.route) if isinstance(encoder.route, FastRoute) else None


class FastRecogniser:
    """Clips, or windows of a recording, as the model takes them, and log-probabilities out.

    Args:
        encoder: with the head of a CTC model.
        route: its own.
    """

    def __init__(self, encoder: FastEncoder, route: FastRoute) -> None:
        self.encoder, self.route = encoder, route

    @torch.inference_mode()
    def clips(self, clips: Sequence[Waveform]) -> list[Tensor]:
        """`(frame, token)` of each `(time,)` clip, which is heard by itself."""
        rows: list[Any] = [None] * len(clips)
        for index, states in self.route([self.encoder.clip(clip) for clip in clips]):
            rows[index] = self._log_probabilities(states)
        return rows

    @torch.inference_mode()
    def windows(self, windows: Sequence[Waveform], whole: Statistics, *, normalised: bool) -> list[Tensor]:
        """`(frame, token)` of windows of a recording: a group norm takes the statistics of the whole.

        Args:
            windows: `(time,)` each.
            whole: the statistics of the recording.
            normalised: whether the windows are what `normalise_as` makes of it.
        """
        weight = self.route.front_end.first.weight
        mean, variance = channel_statistics(weight, whole, normalised=normalised)
        given = torch.from_numpy(mean).float(), torch.from_numpy(variance.clip(0)).float()
        return [
            self._log_probabilities(self.route.clip(self.encoder.clip(window), given)) for window in windows
        ]

    def _log_probabilities(self, states: list[Tensor]) -> Tensor:
        return self.encoder.head(states[-1]).log_softmax(-1)  # type: ignore[misc]
