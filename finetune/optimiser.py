"""How fast each part of a model learns: slower from layer to layer, and not at all at first."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback


def decay_layers(trainer: Trainer, decay: float) -> None:
    """Give each layer its own share of the learning rate: `decay ** height`, see `heights`.

    The optimiser is the one that Trainer makes, with its choice of what weight decay leaves alone; only its
    groups are split further. So schedule, checkpoints and Accelerate treat it as they treat any other. The
    head's group is the first, whose rate Trainer logs.

    Args:
        trainer: before training.
        decay: 1 for one rate, 0.9 for 10 % less with each layer.
    """
    below = heights(trainer.model)
    optimiser = trainer.create_optimizer()
    parts: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
    groups = [*optimiser.param_groups]
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            parts[below[parameter], number].append(parameter)
    optimiser.param_groups.clear()
    for (height, number), parameters in sorted(parts.items(), key=lambda part: part[0]):
        rate = groups[number]["lr"] * decay**height
        optimiser.add_param_group(groups[number] | {"params": parameters, "lr": rate})


def heights(model: Any) -> dict[Tensor, int]:
    """How far below the head each parameter of a `…ForCTC` lies.

    0 for the head (and a mixture of layers, and an adapter), 1 for the topmost layer, and so on down to
    `num_hidden_layers + 1` for what comes before the first: front end, projection, positions.
    """
    base, config = model.base_model, model.config
    found = dict.fromkeys(model.parameters(), 0)
    found |= dict.fromkeys(base.parameters(), config.num_hidden_layers + 1)
    for index, layer in enumerate(base.encoder.layers):
        found |= dict.fromkeys(layer.parameters(), config.num_hidden_layers - index)
    if config.do_stable_layer_norm:  # the norm behind the last layer; elsewhere it is before the first
        found |= dict.fromkeys(base.encoder.layer_norm.parameters(), 1)
    if getattr(base, "adapter", None) is not None:
        found |= dict.fromkeys(base.adapter.parameters(), 0)
    return found


class FreezeEncoder(TrainerCallback):
    """Let the head alone learn up to a step: the rest gets no gradient, no weight decay and no moments.

    While it holds, the encoder's output leaves the graph, so its backward pass costs nothing. Across
    processes, where each parameter must get a gradient, it gets zeros, which are gone before the optimiser
    looks: loss, norm of the gradients and weights are the same as on one.

    Args:
        encoder: the model below the head (`base_model`).
        steps: optimiser steps, counted from the beginning of the run, also where it is resumed.
    """

    def __init__(self, encoder: Any, steps: int) -> None:
        self.encoder, self.steps = encoder, steps
        self._hook: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Freeze or thaw."""
        if state.global_step >= self.steps:
            self.on_train_end(args, state, control)
        elif self._hook is None:
            self._hook = self.encoder.register_forward_hook(_cut_off)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the zeros away: an optimiser passes over what has no gradient."""
        if self._hook is not None:
            for parameter in self.encoder.parameters():
                parameter.grad = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Thaw."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def _cut_off(encoder: Any, _args: Any, output: Any) -> Any:
    zero: Tensor | float = 0.0
    if torch.distributed.is_initialized():
        zero = sum(0.0 * parameter.sum() for parameter in encoder.parameters() if parameter.requires_grad)
    output.last_hidden_state = output.last_hidden_state.detach() + zero
    if output.hidden_states is not None:
        output.hidden_states = tuple(state.detach() + zero for state in output.hidden_states)
    return output
