"""What a distillation run is told; light to import, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_distilhubert.audio import MIN_SAMPLES
from hf_distilhubert.errors import UserError
from hf_distilhubert.shapes import SHAPES

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PAPER_OBJECTIVE = "several-layers"
OBJECTIVE_NAMES = (PAPER_OBJECTIVE, "last-layer", "layer-to-layer", "mean-of-layers")
CACHE_DTYPES = ("float16", "int8")
POSITIVE = (
    *("batch_size", "accumulation", "learning_rate", "max_grad_norm"),
    *("pad_multiple", "logging_steps", "keep_checkpoints"),
)
NOT_NEGATIVE = ("max_steps", "seed", "num_workers", "eval_steps", "save_steps")
NO_TRACKER = "none"
TRACKERS = ("tensorboard", "trackio", "wandb")
CHOICES = {
    "objective": OBJECTIVE_NAMES,
    "shape": SHAPES,
    "precision": PRECISIONS,
    "cache_dtype": CACHE_DTYPES,
}
# These may change when a stopped run goes on; they do not touch the student.
FREE = frozenset(
    (
        *("output_dir", "num_workers", "logging_steps", "eval_steps", "save_steps", "keep_checkpoints"),
        *("report_to", "overwrite", "cache_targets"),
    )
)


def _setting(default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class DistillConfig:
    """What to distil and how; the defaults are the published recipe."""

    teacher: str = _setting("facebook/hubert-base-ls960", "folder or Hub repository of the teacher")
    student: str = _setting(
        "", "go on with this student (heads and all) instead of starting from the teacher"
    )
    data: str = _setting("hub:openslr/librispeech_asr:clean", "folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    streaming: bool = _setting(
        False, "read data while learning from it: no list of lengths, no check of the audio before"
    )
    output_dir: str = _setting(
        "runs/student", "new folder for the student; after a stop the same command goes on"
    )
    train_split: str = _setting("train", "split to learn from; all takes every clip")
    eval_split: str = _setting("validation", "split for the held-out loss; none leaves it out")
    target_layers: list[int] = _setting(
        (4, 8, 12), "numbers of the teacher's layers to predict, one head each"
    )
    objective: str = _setting(PAPER_OBJECTIVE, f"what the heads learn: {', '.join(OBJECTIVE_NAMES)}")
    shape: str = _setting("paper", f"shape of the student: {', '.join(SHAPES)}; the next six change it")
    num_hidden_layers: int | None = _setting(None, "Transformer layers of the student")
    start_layers: list[str] | None = _setting(
        None, "teacher layers that the student's layers start from: first, even, or their numbers"
    )
    hidden_size: int | None = _setting(None, "width of the student")
    intermediate_size: int | None = _setting(None, "width of its feed-forward layers")
    num_attention_heads: int | None = _setting(None, "its attention heads")
    conv_dim: list[int] | None = _setting(None, "channels of the convolutions of its front end")
    initial: str | None = _setting(None, "teacher: start from the teacher's weights; random: from none")
    max_steps: int = _setting(200_000, "optimiser steps; 0 writes the student as it starts")
    batch_size: int = _setting(
        24, "clips per step, over all processes; with batch_seconds, of held-out batches"
    )
    batch_seconds: float | None = _setting(
        None,
        "seconds of padded audio per step, in place of batch_size: as many clips of similar length as fit",
    )
    accumulation: int = _setting(1, "cut a step's clips into this many batches, one after the other")
    learning_rate: float = _setting(2e-4, "the highest, after the warm-up")
    warmup: float = _setting(0.07, "share of the steps in which the learning rate rises; then it falls to 0")
    weight_decay: float = _setting(1e-6, "of AdamW; biases never decay")
    max_grad_norm: float = _setting(5.0, "the gradient is scaled down to this norm")
    cosine_weight: float = _setting(1.0, "weight of the cosine part of the loss (lambda in the paper)")
    feature_grad_mult: float = _setting(0.1, "the front end's gradient is multiplied by this")
    freeze_feature_encoder: bool = _setting(
        False, "leave the front end as it starts: its gradient, most of the work, is not computed"
    )
    max_samples: int = _setting(250_000, "longer clips are cropped at random to this many samples (16 kHz)")
    mask_loss: bool = _setting(True, "leave padded frames out of the loss; S3PRL counts them")
    mask_group_norm: bool = _setting(True, "keep padding out of the front ends' GroupNorm; S3PRL hears it")
    teacher_dropout: bool = _setting(False, "run the teacher with its dropout on, as S3PRL does")
    cache_targets: str = _setting(
        "", "folder for the teacher's layers of whole clips, computed once and shared by runs; empty: none"
    )
    cache_dtype: str = _setting(
        "float16", f"{' or '.join(CACHE_DTYPES)}: how they are stored; int8 takes half the room"
    )
    precision: str = _setting("auto", f"{', '.join(PRECISIONS)}; auto takes bf16 where the hardware has it")
    pad_multiple: int = _setting(3_200, "pad batches to a multiple of this many samples")
    num_workers: int = _setting(
        0, "processes that read audio; of streamed data it is one, with so many threads"
    )
    logging_steps: int = _setting(10, "steps between two lines of log.jsonl")
    eval_steps: int = _setting(0, "steps between two held-out losses; 0 measures before and after only")
    save_steps: int = _setting(1_000, "steps between two checkpoints; 0 saves only when the run is stopped")
    keep_checkpoints: int = _setting(2, "how many of the newest are kept, beside the one of the lowest loss")
    report_to: str = _setting(NO_TRACKER, "none, tensorboard, trackio or wandb, beside log.jsonl")
    seed: int = _setting(0, "of the heads, the order of the clips and their crops")
    overwrite: bool = _setting(False, "begin anew, replacing what is in the output folder")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, before anything is loaded."""
        for name in POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.max_samples < MIN_SAMPLES:
            raise UserError(f"max_samples is {self.max_samples}; a frame needs {MIN_SAMPLES}")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup is {self.warmup}; give a share of the steps between 0 and 1")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}")
        if self.cache_targets and (self.teacher_dropout or not self.mask_loss):
            wrong = "teacher_dropout" if self.teacher_dropout else "mask_loss false"
            raise UserError(
                f"cache_targets does not go with {wrong}: what is stored is what a teacher without dropout "
                "says of speech; leave one of them out"
            )
        if self.report_to not in (NO_TRACKER, *TRACKERS):
            raise UserError(
                f"report_to is {self.report_to!r}; give {NO_TRACKER}, or one of {', '.join(TRACKERS)}"
            )
        if self.batch_seconds is not None and not 0 < self.batch_seconds < float("inf"):
            raise UserError(f"batch_seconds is {self.batch_seconds}; give a number above 0")
        if self.freeze_feature_encoder and self.initial == "random" and not self.student:
            raise UserError("freeze_feature_encoder would keep a random front end; leave out it, or initial")
        if self.streaming and self.cache_targets:
            raise UserError(
                "cache_targets needs the list of clips, which streaming lacks; leave one of them out"
            )
        if self.batch_seconds is None and self.batch_size % self.accumulation:
            raise UserError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulation} batches; give a divisor"
            )
