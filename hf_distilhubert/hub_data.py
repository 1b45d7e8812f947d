"""Clips of a data set on the Hub, read without Datasets' own decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.manifests import (
    ALL,
    SPEAKER_COLUMNS,
    TEXT_COLUMNS,
    Row,
    belongs,
    choice_of,
    first_column,
)


@dataclass(frozen=True)
class HubAudio:
    """Sound in a row of a Hub data set, fetched when it is read."""

    dataset: Any
    index: int

    def encoded(self) -> bytes | str:
        """The bytes of the file, or its path."""
        audio = self.dataset[self.index]["audio"]
        return audio["bytes"] or str(audio["path"])


def hub_rows(name: str, split: str | None) -> Iterator[Row]:
    """Rows of `hub:NAME[:CONFIG][:SPLIT]`; see `load_clips` for `split`.

    Raises:
        UserError: no such data set, configuration or split, no connection, or no column `audio`.
    """
    from datasets import Audio, get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    repository, config, own_split = [*name.split(":")[1:], "", ""][:3]
    if own_split and split not in (None, own_split):
        raise UserError(
            f"{name} names the split {own_split!r}, but {split!r} is asked for; leave it out of the name"
        )
    wanted = own_split or split or ALL
    try:
        splits = get_dataset_split_names(repository, config or None)
        parts = [part for part in splits if wanted == ALL or belongs(part, wanted)]
        if not parts:
            raise UserError(f"{name}: no split {wanted!r}; {choice_of(splits)}")
        dataset = load_dataset(repository, config or None, split="+".join(parts))
    except (DatasetNotFoundError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load the data set {name}: {one_line(error, limit=300)}") from error
    if "audio" not in dataset.column_names:
        raise UserError(f"{name}: no column 'audio'; its columns: {', '.join(dataset.column_names)}")
    # datasets' own decoder needs torchcodec; soundfile reads the bytes just as well.
    dataset = dataset.cast_column("audio", Audio(decode=False))
    texts = first_column(dataset.column_names, TEXT_COLUMNS)
    speakers = first_column(dataset.column_names, SPEAKER_COLUMNS)
    columns = dataset.select_columns([column for column in (texts, speakers) if column])
    for index in range(len(dataset)):
        values = columns[index] if columns.column_names else {}
        speaker = values.get(speakers)
        yield Row(
            clip_id=f"{wanted}/{index}",
            audio=HubAudio(dataset, index),
            text=values.get(texts),
            speaker=None if speaker is None else str(speaker),
        )
