"""What a fine-tuning run is told; light to import, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_distilhubert.errors import UserError


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
    keep_case: bool = field(
        default=False, metadata={"help": "keep upper case; otherwise transcripts are put in lower case"}
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
