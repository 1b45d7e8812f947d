"""A recogniser that hears all layers: the head reads a learned mixture of every hidden state.

A stock `HubertForCTC` has no place for the mixture, and would pass over it. So these folders have a
`model_type` of their own, which Transformers refuses unless this module was imported: it then knows them in
`AutoConfig`, `AutoModelForCTC` and `pipeline`. All that this library loads, it loads with this module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCTC, HubertConfig, HubertForCTC
from transformers.modeling_outputs import CausalLMOutput

from hf_distilhubert.errors import UserError

MODEL_TYPE = "hubert-layer-sum"


class HubertLayerSumConfig(HubertConfig):
    """A `HubertConfig` under another name, so that no stock class takes its weights for its own."""

    model_type = MODEL_TYPE


class HubertLayerSumForCTC(HubertForCTC):
    """A `HubertForCTC` whose head reads a softmax-weighted sum of all hidden states.

    As in SUPERB (arXiv 2105.01051): the sum is over the input of the first layer and the output of each, and
    all weigh the same at first. `layer_weights` `(layers + 1,)` holds what the softmax gets.
    """

    config_class = HubertLayerSumConfig

    def __init__(self, config: HubertLayerSumConfig) -> None:
        super().__init__(config)
        # The linear layer as a convolution over single frames: over the shape of its weights even
        # `HubertForCTC.from_pretrained`, which does not look at the type, fails.
        self.lm_head = nn.Conv1d(config.hidden_size, config.vocab_size, 1)
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """Logits `(batch, frame, token)`, and the loss where there are labels; see `HubertForCTC.forward`."""
        asked = kwargs.pop("output_hidden_states", None) or self.config.output_hidden_states
        kwargs |= {"attention_mask": attention_mask, "output_hidden_states": True}
        outputs = self.hubert(input_values, **kwargs)
        # Large models normalise their last layer in last_hidden_state alone.
        states = torch.stack([*outputs.hidden_states[:-1], outputs.last_hidden_state])
        mixture = (states * self.layer_weights.softmax(0)[:, None, None, None]).sum(0)
        logits = self.lm_head(self.dropout(mixture).mT).mT
        loss = None
        if labels is not None:
            samples: Any = torch.ones_like(input_values) if attention_mask is None else attention_mask
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                logit_lengths=self._get_feat_extract_output_lengths(samples.sum(-1)).long(),
                blank_token_id=self.config.pad_token_id,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )
        # Trainer keeps whatever an evaluation returns.
        hidden_states = outputs.hidden_states if asked else None
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=hidden_states)


def with_layer_sum(model: Any) -> HubertLayerSumForCTC:
    """The same recogniser with a mixture of its layers before the head; one that has it already stays.

    Args:
        model: a `HubertForCTC`, whose weights are taken over.

    Raises:
        UserError: it is of another kind.
    """
    if isinstance(model, HubertLayerSumForCTC):
        return model
    if type(model) is not HubertForCTC:
        raise UserError(
            f"a weighted sum of layers is there for HuBERT models, and this is a {model.config.model_type}; "
            "leave out --weighted_layer_sum"
        )
    settings = {name: value for name, value in model.config.to_dict().items() if name != "model_type"}
    summed = HubertLayerSumForCTC(HubertLayerSumConfig(**settings))
    weights = model.state_dict()
    weights["lm_head.weight"] = weights["lm_head.weight"][..., None]
    summed.load_state_dict(weights | {"layer_weights": summed.layer_weights.data})
    return summed.train(model.training)


AutoConfig.register(MODEL_TYPE, HubertLayerSumConfig)
AutoModelForCTC.register(HubertLayerSumConfig, HubertLayerSumForCTC)
