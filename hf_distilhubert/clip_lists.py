"""Long lists of clips in columns, for processes that read audio.

Python counts references inside its objects, so a forked process that merely reads a list of them comes to own
a copy of it, page by page: with several workers and a thousand hours, memory would grow for a whole epoch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow

from hf_distilhubert.hub_data import HubAudio
from hf_distilhubert.manifests import Row
from hf_distilhubert.speech_data import Clip, local_rows


class Strings:
    """Names and paths, also such as are not valid UTF-8."""

    def __init__(self, values: Iterable[str]) -> None:
        self._column = pyarrow.array([os.fsencode(value) for value in values], pyarrow.large_binary())

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._column[index].as_py())

    def digest(self) -> str:
        """SHA-256 of all of them, in hexadecimal digits."""
        digest = hashlib.sha256()
        for value in self._column:
            digest.update(value.as_py() + b"\n")
        return digest.hexdigest()


class PackedClips(Sequence[Clip]):
    """Clips that are made when they are asked for; texts and speakers are left behind."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.lengths = np.array([clip.num_samples for clip in clips], np.int64)
        self._names = Strings(clip.clip_id for clip in clips)
        self._dataset: Any = None
        places: list[str] = []
        for clip in clips:
            if isinstance(clip.audio, HubAudio):
                self._dataset = clip.audio.dataset
                places.append(str(clip.audio.index))
            else:
                places.append(str(clip.audio))
        self._places = Strings(places)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = self._places[index]
        audio = Path(place) if self._dataset is None else HubAudio(self._dataset, int(place))
        return Clip(self._names[index], audio, int(self.lengths[index]))


class LocalStream:
    """Rows of a local data argument, shuffled as a whole in every epoch; no audio file is opened.

    Args:
        data: a folder or a manifest.
        split: see `load_clips`.
        seed: of the order.
        need_text: keep the transcripts.

    Raises:
        UserError: nothing there, no such split, or no transcripts.
    """

    def __init__(self, data: str, split: str | None, seed: int, *, need_text: bool = False) -> None:
        rows = local_rows(Path(data), split, need_text=need_text)
        self._names = Strings(row.clip_id for row in rows)
        self._places = Strings(str(row.audio) for row in rows)
        self._texts = Strings(row.text or "" for row in rows) if need_text else None
        self._problems = {number: row.problem for number, row in enumerate(rows) if row.problem}
        self.seed = seed
        self._read = 0

    @property
    def fingerprint(self) -> str:
        """What batches depend on."""
        return f"{len(self._names)} clips streamed, digest {self._names.digest()[:12]}"

    def rows(self, epoch: int, state: int | None) -> Iterator[Row]:
        """The rows of an epoch, from its beginning or from where `state` was asked for."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self._names))
        self._read = state or 0
        for number in order[self._read :].tolist():
            self._read += 1
            text = None if self._texts is None else self._texts[number]
            yield Row(
                self._names[number], Path(self._places[number]), text, problem=self._problems.get(number)
            )

    def transcripts(self) -> list[str]:
        """What is said in the rows, in the order of the list."""
        return [] if self._texts is None else [self._texts[number] for number in range(len(self._texts))]

    def state(self) -> int:
        """Where the rows stand."""
        return self._read
