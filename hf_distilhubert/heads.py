"""A student with its prediction heads, saved so that plain Transformers classes load the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, HubertPreTrainedModel
from transformers.utils.generic import ModelOutput

from hf_distilhubert.errors import UserError
from hf_distilhubert.objective import OBJECTIVES, PAPER_OBJECTIVE

DEFAULT_TARGET_LAYERS = (4, 8, 12)


@dataclass
class LayerDistillationOutput(ModelOutput):
    """What a student says about its teacher.

    Attributes:
        predictions: `(batch, heads, frame, size)`, one head per layer of `target_layers`, in that order.
        last_hidden_state: `(batch, frame, hidden)`, the student's own last layer.
        hidden_states: tuple of `(batch, frame, hidden)`: the input of layer 1, then the output of each layer.
    """

    predictions: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class PredictionHeads(nn.Module):
    """Linear, GELU, then one Linear per head (S3PRL: `output_layer`, a Linear followed by a `SplitLinear`).

    Args:
        hidden_size: size of the student's hidden states.
        num_heads: number of teacher layers that are predicted.
        inner_size: size between the two linear maps, per head.
        output_size: size of the teacher's hidden states.
    """

    def __init__(self, hidden_size: int, num_heads: int, inner_size: int, output_size: int) -> None:
        super().__init__()
        self.num_heads, self.inner_size = num_heads, inner_size
        self.inner = nn.Linear(hidden_size, num_heads * inner_size)
        self.output_weight = nn.Parameter(torch.empty(num_heads, inner_size, output_size))
        self.output_bias = nn.Parameter(torch.empty(num_heads, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as S3PRL's `Linear` and `SplitLinear` do: uniform within 1 / sqrt(inputs)."""
        self.inner.reset_parameters()
        bound = self.inner_size**-0.5
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.uniform_(self.output_bias, -bound, bound)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Predict from `(batch, frame, hidden)` the teacher's layers `(batch, heads, frame, size)`."""
        inner = nn.functional.gelu(self.inner(hidden_states))
        inner = inner.unflatten(-1, (self.num_heads, self.inner_size)).transpose(1, 2)
        return inner @ self.output_weight[None] + self.output_bias[None, :, None]


class HubertForLayerDistillation(HubertPreTrainedModel):
    """A `HubertModel` with heads that predict hidden layers of a teacher (DistilHuBERT, arXiv 2110.01900).

    The student lies under the prefix `hubert.`, so `HubertModel.from_pretrained` and
    `HubertForCTC.from_pretrained` load its folder without this package. What the heads look like stands in
    `config.distillation`: `target_layers` (numbers of the teacher's layers), `objective` (its name in
    `objective.py`), `head_inner_size` and `head_output_size`.
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        settings = distillation_settings(config)
        self.target_layers: list[int] = settings["target_layers"]
        self.objective = OBJECTIVES[settings["objective"]]
        self.hubert = HubertModel(config)
        self.prediction_heads = PredictionHeads(
            config.hidden_size,
            1 if self.objective.one_head else len(self.target_layers),
            settings["head_inner_size"],
            settings["head_output_size"],
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PredictionHeads):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def freeze_feature_encoder(self) -> None:
        """Leave the front end as it is: no gradient, nothing kept for one (named as in `HubertForCTC`)."""
        self.hubert.feature_extractor._freeze_parameters()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> LayerDistillationOutput:
        """Predict the teacher's layers from waveforms.

        Args:
            input_values: `(batch, time)`, 16 kHz.
            attention_mask: `(batch, time)`, 1 for samples and 0 for padding.
            output_hidden_states: also return the student's own hidden states.
        """
        every = output_hidden_states or self.objective.every_layer
        student = self.hubert(input_values, attention_mask=attention_mask, output_hidden_states=every)
        # Large models normalise their last layer in last_hidden_state alone.
        layers = [*(student.hidden_states[1:-1] if every else ()), student.last_hidden_state]
        return LayerDistillationOutput(
            predictions=self.objective.predict(layers, self.prediction_heads),
            last_hidden_state=student.last_hidden_state,
            hidden_states=student.hidden_states if output_hidden_states else None,
        )


def distillation_settings(config: HubertConfig) -> dict[str, Any]:
    """Read `config.distillation`; what is absent is the paper's (layers 4, 8, 12, the student's width).

    Raises:
        UserError: an objective that is not there.
    """
    given = getattr(config, "distillation", None) or {}
    objective = given.get("objective", PAPER_OBJECTIVE)
    if objective not in OBJECTIVES:
        raise UserError(f"the objective {objective!r} is unknown; allowed: {', '.join(OBJECTIVES)}")
    return {
        "target_layers": list(given.get("target_layers", DEFAULT_TARGET_LAYERS)),
        "objective": objective,
        "head_inner_size": given.get("head_inner_size", config.hidden_size),
        "head_output_size": given.get("head_output_size", config.hidden_size),
    }


def head_settings(
    target_layers: Sequence[int], inner_size: int, output_size: int, objective: str = PAPER_OBJECTIVE
) -> dict[str, Any]:
    """What `config.distillation` says of the heads; the way back of `distillation_settings`."""
    return {
        "target_layers": list(target_layers),
        "objective": objective,
        "head_inner_size": inner_size,
        "head_output_size": output_size,
    }
