"""Speech that is read while it is learned from.

One process reads, in an order that depends on the seed and the stream alone; a checkpoint holds where the
stream stood when the pool of its last batch began, so that a run goes on without reading all of it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast, get_data_structure, initialize_tensors, send_to_device
from torch.utils.data import DataLoader

from hf_distilhubert.audio import SAMPLING_RATE, Waveform
from hf_distilhubert.batches import Cut
from hf_distilhubert.clip_lists import LocalStream
from hf_distilhubert.errors import UserError
from hf_distilhubert.hub_data import HubStream
from hf_distilhubert.processes import on_main, start_reader
from hf_distilhubert.speech_data import Clip, Skipped, SpeechData
from hf_distilhubert.streamed_steps import Batch, Place, Step, StreamedSteps, read_row

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

    from hf_distilhubert.settings import DistillConfig

HELD_OUT = 256  # clips of a Hub data set that the held-out loss of a streamed run is measured on


@dataclass
class StreamedSpeech:
    """Speech to learn from, as far as it was read.

    Attributes:
        name: the data argument, and the split.
        fingerprint: what batches depend on, in words.
        revision: of a repository on the Hub.
        stream: where it comes from, in the process that reads.
        place: behind the last step.
        passed_over: clips that could not be used, by name.
        clips: those that are known before they are read: none.
    """

    name: str
    fingerprint: str
    revision: str | None
    stream: LocalStream | HubStream | None = None
    place: Place = field(default_factory=Place)
    passed_over: dict[str, Skipped] = field(default_factory=dict)
    clips: Sequence[Clip] = ()

    def __str__(self) -> str:
        """What there is to say of it before it is read."""
        return self.fingerprint

    @property
    def hours(self) -> float:
        """Duration of the different clips that were heard."""
        return self.place.samples / SAMPLING_RATE / 3600

    @property
    def skipped(self) -> list[Skipped]:
        """The clips that could not be used, each once."""
        return list(self.passed_over.values())

    def batches(
        self,
        accelerator: Accelerator,
        cut: Cut,
        collate: Callable[[Sequence[Waveform]], Batch],
        config: DistillConfig,
        num_steps: int,
    ) -> SharedBatches:
        """The batches of the next steps, from `place` on."""
        if self.stream is None:
            return SharedBatches(accelerator, self, None, 0)
        steps = StreamedSteps(
            self.stream,
            self.name,
            cut,
            config.accumulation,
            collate,
            config.max_samples,
            config.seed,
            max(1, config.num_workers),
            self.place,
            max(1, num_steps),  # where none is left to train, the first one is asked for all the same
        )
        return SharedBatches(accelerator, self, steps, config.num_workers)

    def note(self, place: Place, skipped: Sequence[Skipped]) -> None:
        """Take down what a step has brought."""
        self.place = place
        self.passed_over |= {clip.clip_id: clip for clip in skipped}

    def record(self) -> dict[str, Any]:
        """What a checkpoint needs to go on, in plain values."""
        skipped = [asdict(clip) for clip in self.skipped]
        return {"revision": self.revision, "place": asdict(self.place), "skipped": skipped}


def open_speech(
    accelerator: Accelerator | PartialState,
    data: str,
    split: str,
    seed: int,
    record: Mapping[str, Any] | None = None,
    *,
    need_text: bool = False,
) -> StreamedSpeech:
    """Open a stream in the first process, at its beginning or where a checkpoint was written.

    Raises:
        UserError: see `load_clips`.
    """
    stream: list[LocalStream | HubStream] = []
    record = record or {"revision": None, "place": {}, "skipped": []}

    def describe() -> tuple[str, str | None]:
        if data.startswith("hub:"):
            stream.append(HubStream(data, split, seed, record["revision"], need_text=need_text))
        else:
            stream.append(LocalStream(data, split, seed, need_text=need_text))
        return stream[0].fingerprint, getattr(stream[0], "revision", None)

    fingerprint, revision = on_main(accelerator, describe)
    speech = StreamedSpeech(f"{data} ({split})", fingerprint, revision, stream[0] if stream else None)
    speech.note(Place(**record["place"]), [Skipped(**clip) for clip in record["skipped"]])
    return speech


def first_clips(data: str, split: str, revision: str | None) -> SpeechData:
    """The first usable clips of a split on the Hub, held in memory as they are encoded.

    Raises:
        UserError: no such split, or too few of them can be used.
    """
    found = SpeechData(f"{data} ({split})")
    for row in HubStream(data, split, 0, revision).rows(0, None):
        waveform = read_row(row)
        if isinstance(waveform, Skipped):
            found.skipped.append(waveform)
        else:
            found.clips.append(Clip(row.clip_id, row.audio, len(waveform), row.text))
        if len(found.clips) == HELD_OUT:
            break
    found.check()
    return found


class SharedBatches:
    """Batches that the first process reads and all share: each gets its rows of them, on its device.

    Args:
        accelerator: whose processes they are.
        speech: keeps up with what was handed out.
        steps: what the first process reads.
        num_workers: above 0, it reads ahead in a process of its own.
    """

    def __init__(
        self, accelerator: Accelerator, speech: StreamedSpeech, steps: StreamedSteps | None, num_workers: int
    ) -> None:
        self.accelerator, self.speech, self.steps, self.num_workers = accelerator, speech, steps, num_workers

    def __iter__(self) -> Iterator[Batch]:
        steps = iter(self._loader(self.steps)) if self.steps is not None else iter(())
        # Data of which too little can be used is refused here, before anything else is done.
        first = self._next(steps)
        return chain(first, chain.from_iterable(iter(partial(self._next, steps), [])))

    def _loader(self, steps: StreamedSteps) -> DataLoader[Step]:
        return DataLoader(
            steps,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=min(1, self.num_workers),  # more would each read all of it; they are threads instead
            worker_init_fn=start_reader,
            generator=torch.Generator(),
        )

    def _next(self, steps: Iterator[Step]) -> list[Batch]:
        """The batches of the next step, as far as they are this process's."""
        read: list[Step] = []

        def read_one() -> tuple[Any, Place, Sequence[Skipped]]:
            read.append(next(steps))
            if read[0].problem is not None:
                raise UserError(read[0].problem)
            return get_data_structure(list(read[0].batches)), read[0].place, read[0].skipped

        shapes, place, skipped = on_main(self.accelerator, read_one)
        self.speech.note(place, skipped)
        batches = list(read[0].batches) if read else initialize_tensors(shapes)
        batches = broadcast(send_to_device(batches, self.accelerator.device))
        return [self._share(batch) for batch in batches]

    def _share(self, batch: Batch) -> Batch:
        number, count = self.accelerator.process_index, self.accelerator.num_processes
        return {name: values.chunk(count)[number] for name, values in batch.items()}


def _as_it_is(step: Any) -> Any:
    return step
