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
    freeze_feature_encoder: bool = field(
        default=True,
        metadata={"help": "keep the convolutional front end as it is; never so with --from_scratch"},
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
        chosen_rules(None, self.text, self.case)
        for digraph in self.digraphs or ():
            if len(digraph) < 2 or any(map(str.isspace, digraph)):
                raise UserError(
                    f"--digraphs {digraph!r}; give letters that are written with two characters or more"
                )

    def alphabet(self, rules: TextRules) -> dict[str, Any]:
        """How the characters of normalised texts become tokens; see `finetune.vocabulary.build_processor`."""
        digraphs = [rules(digraph) for digraph in self.digraphs or ()]
        return {"min_count": self.min_count, "digraphs": digraphs, "graphemes": self.graphemes}
