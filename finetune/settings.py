"""What a fine-tuning run is told; light to import, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_distilhubert.errors import UserError
from hf_distilhubert.text_rules import TextRules, chosen_rules


@dataclass(frozen=True)
class FinetuneConfig:
    """What is trained on what; how, stands in `CTCTrainingArguments`."""

    model: str = field(
        default="ntu-spml/distilhubert",
        metadata={"help": "folder or Hub repository of a HuBERT, wav2vec2 or WavLM model"},
    )
    data: str = field(
        default="hub:openslr/librispeech_asr:clean",
        metadata={"help": "a folder, a manifest, a LibriSpeech tree, or hub:NAME[:CONFIG], with transcripts"},
    )
    train_split: str = field(
        default="train",
        metadata={"help": "split to train on (its parts such as train.100 belong to train), or all"},
    )
    eval_split: str = field(
        default="validation",
        metadata={"help": "split to evaluate on at the end, and as --eval_strategy says; none leaves it out"},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "read --data while learning from it, without downloading it first; needs --max_steps"
        },
    )
    from_scratch: str | None = field(
        default=None,
        metadata={"help": "start from random weights: the JSON of a HubertConfig; --model is not used then"},
    )
    text: str | None = field(
        default=None,
        metadata={
            "help": "normal form of the transcripts: basic (letters, digits, marks, apostrophes of "
            "any language), english (a to z, digits, apostrophe) or none; default: the recogniser's, or basic"
        },
    )
    case: str | None = field(
        default=None,
        metadata={"help": "lower, upper or keep; default: the recogniser's, or lower"},
    )
    min_count: int = field(
        default=1, metadata={"help": "characters seen fewer times than this in training get no token"}
    )
    digraphs: list[str] | None = field(
        default=None,
        metadata={"help": "letters of several characters that get one token each, such as ch dž"},
    )
    graphemes: bool = field(
        default=False, metadata={"help": "give a letter and its combining marks one token together"}
    )
    new_head: bool = field(
        default=False,
        metadata={"help": "give a recogniser a new vocabulary and output layer; the old ones are lost"},
    )
    augment: bool = field(
        default=False, metadata={"help": "change speed, volume, noise and silence of each clip in each epoch"}
    )
    spec_augment: bool = field(
        default=False,
        metadata={"help": "hide stretches of frames and features of each clip from the model in each epoch"},
    )
    mask_time_prob: float = field(
        default=0.1, metadata={"help": "share of the frames that --spec_augment hides, about"}
    )
    mask_time_length: int = field(
        default=10,
        metadata={"help": "frames (20 ms) hidden in one stretch; in short clips a fifth of the clip"},
    )
    mask_feature_prob: float = field(
        default=0.1, metadata={"help": "share of the features that --spec_augment hides, about"}
    )
    freeze_feature_encoder: bool = field(
        default=True,
        metadata={"help": "keep the convolutional front end as it is; never so with --from_scratch"},
    )
    freeze_encoder_steps: int = field(
        default=0, metadata={"help": "steps at the beginning in which the output layer alone learns"}
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "learning rate of each layer as a share of that of the layer above; 1: all alike"},
    )
    weighted_layer_sum: bool = field(
        default=False,
        metadata={
            "help": "feed a learned mixture of all layers to the output layer (HuBERT models); such a "
            "recogniser loads with this package alone"
        },
    )
    pad_multiple: int = field(
        default=3200,
        metadata={"help": "round batches up to a multiple of this many samples; few shapes are fast on CPUs"},
    )
    overwrite: bool = field(
        default=False, metadata={"help": "replace the output folder if it is there already"}
    )

    def __post_init__(self) -> None:
        if self.pad_multiple < 1:
            raise UserError(f"--pad_multiple {self.pad_multiple}; give a number of samples from 1")
        if self.min_count < 1:
            raise UserError(f"--min_count {self.min_count}; give a number of times from 1")
        self._check_training()
        chosen_rules(None, self.text, self.case)
        for digraph in self.digraphs or ():
            if len(digraph) < 2 or any(map(str.isspace, digraph)):
                raise UserError(
                    f"--digraphs {digraph!r}; give letters that are written with two characters or more"
                )

    def _check_training(self) -> None:
        for name in ("mask_time_prob", "mask_feature_prob"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise UserError(f"--{name} {getattr(self, name)}; give a share from 0 to 0.5")
        masks = ("mask_time_prob", "mask_time_length", "mask_feature_prob")
        asked = any(getattr(self, name) != getattr(FinetuneConfig, name) for name in masks)
        if asked and not self.spec_augment:
            raise UserError("--mask_… says what --spec_augment hides; give --spec_augment true with it")
        if self.spec_augment and not (self.mask_time_prob or self.mask_feature_prob):
            raise UserError("--spec_augment with both shares 0 hides nothing; give one above 0")
        if self.mask_time_length < 1:
            raise UserError(f"--mask_time_length {self.mask_time_length}; give a number of frames from 1")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay {self.layer_decay}; give a share above 0, and 1 at most")
        if self.freeze_encoder_steps < 0:
            raise UserError(f"--freeze_encoder_steps {self.freeze_encoder_steps}; give a number from 0")
        if self.freeze_encoder_steps and self.from_scratch:
            raise UserError(
                "--freeze_encoder_steps would teach an output layer on random features; give 0 with "
                "--from_scratch"
            )

    def alphabet(self, rules: TextRules) -> dict[str, Any]:
        """How the characters of normalised texts become tokens; see `finetune.vocabulary.build_processor`."""
        digraphs = [rules(digraph) for digraph in self.digraphs or ()]
        return {"min_count": self.min_count, "digraphs": digraphs, "graphemes": self.graphemes}
