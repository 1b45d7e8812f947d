"""Clips of a data set on the Hub, whole or as they arrive, read without Datasets' own decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.manifests import (
    ALL,
    SPEAKER_COLUMNS,
    TEXT_COLUMNS,
    Row,
    belongs,
    check_columns,
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


def hub_rows(name: str, split: str | None, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of `hub:NAME[:CONFIG][:SPLIT]`; see `load_clips` for `split` and `columns`.

    Raises:
        UserError: no such data set, configuration, split or column, no connection, or no column `audio`.
    """
    from datasets import get_dataset_split_names, load_dataset

    repository, config, wanted = _parts_of(name, split)
    with _loading(name):
        parts = _chosen(name, get_dataset_split_names(repository, config), wanted)
        dataset = _undecoded(name, load_dataset(repository, config, split="+".join(parts)))
    texts = first_column(dataset.column_names, TEXT_COLUMNS)
    speakers = first_column(dataset.column_names, SPEAKER_COLUMNS)
    check_columns(name, dataset.column_names, columns)
    table = dataset.select_columns([column for column in {texts, speakers, *columns} if column])
    for index in range(len(dataset)):
        values = table[index] if table.column_names else {}
        speaker = values.get(speakers)
        yield Row(
            clip_id=f"{wanted}/{index}",
            audio=HubAudio(dataset, index),
            text=values.get(texts),
            speaker=None if speaker is None else str(speaker),
            columns=tuple(_shown(dataset.features[column], values[column]) for column in columns),
        )


def _shown(feature: Any, value: Any) -> str:
    """A value as text; a class by its name."""
    if value is None:
        return ""
    return str(feature.int2str(value) if hasattr(feature, "int2str") else value)


class HubStream:
    """Rows of `hub:NAME[:CONFIG][:SPLIT]` as they arrive; the order of its files is shuffled in every epoch.

    Args:
        name: see above.
        split: see `load_clips`.
        seed: of the order.
        revision: of the repository; the newest one if it is not given.
        need_text: refuse a data set without transcripts.

    Raises:
        UserError: see `hub_rows`.
    """

    def __init__(
        self,
        name: str,
        split: str | None,
        seed: int,
        revision: str | None = None,
        *,
        need_text: bool = False,
    ) -> None:
        from datasets import load_dataset
        from huggingface_hub import HfApi

        repository, config, self.wanted = _parts_of(name, split)
        with _loading(name):
            self.revision = revision or HfApi().dataset_info(repository).sha
            splits = load_dataset(repository, config, revision=self.revision, streaming=True)
            chosen = _chosen(name, list(splits), self.wanted)
            self._splits = {part: _undecoded(name, splits[part]) for part in chosen}
        columns = self._splits[chosen[0]].column_names
        self._text = first_column(columns, TEXT_COLUMNS)
        if need_text and self._text is None:
            raise UserError(
                f"{name}: no transcripts, which belong in a column {' or '.join(TEXT_COLUMNS)}; "
                f"its columns: {', '.join(columns)}"
            )
        self._files = [(part, file) for part in chosen for file in range(splits[part].num_shards)]
        self.name, self.seed = name, seed
        self._turn, self._row = 0, 0
        self._reading: Any = None

    @property
    def fingerprint(self) -> str:
        """What batches depend on: the same in the same revision."""
        return f"{self.name} ({self.wanted}) streamed, {len(self._files)} files, revision {self.revision}"

    def rows(self, epoch: int, state: Sequence[Any] | None) -> Iterator[Row]:
        """The rows of an epoch, from its beginning or from where `state` was asked for.

        Raises:
            UserError: the connection fails for good.
        """
        first, self._row, position = state or (0, 0, None)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self._files)).tolist()
        for self._turn in range(first, len(order)):
            part, file = self._files[order[self._turn]]
            # A new object each time: one that was read would go on where it stands.
            self._reading = self._splits[part].shard(self._splits[part].num_shards, file)
            if position is not None:
                self._reading.load_state_dict(position)
            with _loading(self.name):
                for values in self._reading:
                    self._row += 1
                    text = values[self._text] if self._text else None
                    yield _streamed_row(f"{part}/{file}/{self._row - 1}", values["audio"], text)
            self._row, position = 0, None

    def transcripts(self) -> list[str] | None:
        """What is said in all rows, read without their sound; None where the files do not allow that.

        Of Parquet files one column can be read alone.
        """
        from datasets import load_dataset

        repository, config, _ = _parts_of(self.name, self.wanted)
        with _loading(self.name):
            try:
                splits = load_dataset(
                    repository, config, revision=self.revision, streaming=True, columns=[self._text]
                )
            except (TypeError, ValueError):  # files of another kind have no such setting
                return None
            return [row[self._text] or "" for part in self._splits for row in splits[part]]

    def state(self) -> list[Any]:
        """Where the rows stand, as plain values."""
        return [self._turn, self._row, self._reading.state_dict()]


def _streamed_row(clip_id: str, audio: dict[str, Any] | None, text: str | None) -> Row:
    """A row with the bytes of its file, which may also lie beside the table or within an archive."""
    from datasets.utils.file_utils import xopen

    if audio is None:
        return Row(clip_id, None, problem="no audio")
    if audio["bytes"]:
        return Row(clip_id, audio["bytes"], text)
    try:
        with xopen(audio["path"], "rb") as file:
            return Row(clip_id, file.read(), text)
    except FileNotFoundError:
        return Row(clip_id, None, problem=f"{audio['path']}: there is no such file")


def _parts_of(name: str, split: str | None) -> tuple[str, str | None, str]:
    """Repository, configuration and split of `hub:NAME[:CONFIG][:SPLIT]`."""
    repository, config, own_split = [*name.split(":")[1:], "", ""][:3]
    if own_split and split not in (None, own_split):
        raise UserError(
            f"{name} names the split {own_split!r}, but {split!r} is asked for; leave it out of the name"
        )
    return repository, config or None, own_split or split or ALL


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in one line what fails on the way to a data set."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load the data set {name}: {one_line(error, limit=300)}") from error


def _chosen(name: str, splits: Sequence[str], wanted: str) -> list[str]:
    parts = [part for part in splits if wanted == ALL or belongs(part, wanted)]
    if not parts:
        raise UserError(f"{name}: no split {wanted!r}; {choice_of(splits)}")
    return parts


def _undecoded(name: str, dataset: Any) -> Any:
    """A data set whose sound comes as bytes: Datasets' own decoder needs torchcodec, soundfile does not.

    Raises:
        UserError: it has no column `audio`.
    """
    from datasets import Audio

    if "audio" not in (dataset.column_names or ()):
        columns = ", ".join(dataset.column_names or ("unknown",))
        raise UserError(f"{name}: no column 'audio'; its columns: {columns}")
    return dataset.cast_column("audio", Audio(decode=False))
