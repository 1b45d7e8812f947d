"""`TrainingArguments` whose defaults are right for CTC. Import it late: Trainer's modules take seconds."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.processes import computes_in_bf16

PLAIN = (str, int, float, list)
# Of one machine or one run, or secret.
NOT_RECORDED = {"disable_tqdm", "local_rank", "use_cpu", "do_eval", "hub_token", "resume_from_checkpoint"}


@dataclass
class CTCTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with other defaults; every field is a flag of `finetune.train`."""

    output_dir: str | None = "runs/finetuned"
    num_train_epochs: float = 10.0
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 16
    learning_rate: float = 3e-4
    warmup_steps: float = 0.1  # below 1: a share of all steps
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    logging_steps: float = 50
    logging_first_step: bool = True
    # A loss that is not finite must show, not be replaced by the one before.
    logging_nan_inf_filter: bool = False
    bf16: bool | None = None  # type: ignore[assignment] # None: where the hardware computes with it
    save_strategy: str = "no"
    save_total_limit: int | None = 1
    seed: int = 0
    train_sampling_strategy: str = "group_by_length"
    # The collator reads the sound, so Trainer must not drop what the model's signature lacks.
    remove_unused_columns: bool = False
    # The mask goes to `argmax_tokens`, which cuts padding off; batch by batch, memory stays flat.
    label_names: list[str] | None = field(default_factory=lambda: ["labels", "attention_mask"])
    batch_eval_metrics: bool = True
    # Without LayerDrop and SpecAugment every parameter is used, and looking for others takes time.
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        """Show bars on a terminal only; compute in bfloat16 where the hardware does.

        Raises:
            UserError: Trainer is to push to the Hub or has a token, or a setting needs a missing package.
        """
        if self.push_to_hub:
            raise UserError(
                "--push_to_hub would publish a pickled file of Trainer's beside the model; leave it out, "
                "and push the finished folder: python -m model_card.push FOLDER OWNER/NAME"
            )
        if self.hub_token:
            raise UserError("--hub_token is used for nothing here and would be written down; leave it out")
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        if self.bf16 is None:
            self.bf16 = not (self.fp16 or self.fp16_full_eval) and computes_in_bf16()
        # Without an accelerator Trainer takes bfloat16 only where it is told that this is meant.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        try:
            super().__post_init__()
        except ImportError as error:
            raise UserError(one_line(error, 300)) from error


def changed(arguments: TrainingArguments) -> dict[str, Any]:
    """The settings that are not the usual ones, Trainer's and ours, as plain values for YAML."""
    stock, ours = (
        {setting.name: setting.default for setting in fields(kind)}
        for kind in (TrainingArguments, CTCTrainingArguments)
    )
    return {
        name: value
        for name, value in arguments.to_dict().items()
        if name not in NOT_RECORDED
        and isinstance(value, PLAIN)
        # Many defaults are None until the class replaces them by "no".
        and (value not in (stock[name] or False, []) or stock[name] != ours[name])
    }
