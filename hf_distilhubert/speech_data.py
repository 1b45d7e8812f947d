"""A folder, a manifest, a LibriSpeech tree or a Hub data set, as a list of clips."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hf_distilhubert.audio import (
    MIN_SAMPLES,
    SAMPLING_RATE,
    AudioError,
    Source,
    Waveform,
    audio_info,
    read_audio,
    too_short,
)
from hf_distilhubert.errors import UserError
from hf_distilhubert.hub_data import HubAudio, hub_rows
from hf_distilhubert.manifests import (
    ALL,
    AUDIO_SUFFIXES,
    TEXT_COLUMNS,
    Row,
    belongs,
    choice_of,
    folder_rows,
    manifest_rows,
)

MAX_SKIPPED_SHARE = 0.05


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        clip_id: its name within the data set.
        audio: where the sound is, or the bytes of its file.
        num_samples: length at 16 kHz, by the file's header.
        text: what is said, if known.
        speaker: who says it, if known.
        columns: values of the columns that were asked for, in that order.
    """

    clip_id: str
    audio: Path | HubAudio | bytes
    num_samples: int
    text: str | None = None
    speaker: str | None = None
    columns: tuple[str, ...] = ()

    def read(self) -> Waveform:
        """Decode: `(time,)`, 16 kHz mono.

        Raises:
            AudioError: the file gives no usable sound.
        """
        return read_audio(source_of(self.audio))


def source_of(audio: Path | HubAudio | bytes) -> Source:
    """The file of a clip: its path or its bytes, which may have to be fetched."""
    return audio.encoded() if isinstance(audio, HubAudio) else audio


@dataclass(frozen=True)
class Skipped:
    """A clip that is left out, and why."""

    clip_id: str
    reason: str


@dataclass
class SpeechData:
    """The usable clips of a data set, and those left out."""

    name: str
    clips: list[Clip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """Duration of the usable clips."""
        return sum(clip.num_samples for clip in self.clips) / SAMPLING_RATE / 3600

    @property
    def num_speakers(self) -> int:
        """Number of different speakers; 0 where none is named."""
        return len({clip.speaker for clip in self.clips if clip.speaker})

    def skip(self, unusable: Sequence[Skipped]) -> None:
        """Leave clips out for a reason found later.

        Raises:
            UserError: nothing is left, or more than `MAX_SKIPPED_SHARE` is left out.
        """
        names = {skipped.clip_id for skipped in unusable}
        self.clips = [clip for clip in self.clips if clip.clip_id not in names]
        self.skipped += unusable
        self.check()

    def check(self) -> None:
        """Stop before any work is done on a data set that is mostly unusable.

        Raises:
            UserError: see `skip`.
        """
        check_share(self.name, len(self.clips), len(self.skipped), self.skipped[:1])

    def __str__(self) -> str:
        """How much of it there is."""
        return f"{len(self.clips):,} clips, {self.hours:.2f} hours, {len(self.skipped)} skipped"


def check_share(name: str, usable: int, unusable: int, examples: Sequence[Skipped]) -> None:
    """Refuse a data set of which too few clips are usable; `examples` are some of those that are not.

    Raises:
        UserError: `usable` is 0, or more than `MAX_SKIPPED_SHARE` cannot be used.
    """
    total = usable + unusable
    example = f" (for example {examples[0].clip_id}: {examples[0].reason})" if examples else ""
    if not usable:
        raise UserError(f"{name}: none of {total} clips can be used{example}")
    # One bad clip may always be left out: in a small set it would be over any share.
    if unusable > max(1, MAX_SKIPPED_SHARE * total):
        raise UserError(
            f"{name}: {unusable} of {total} clips cannot be used, over the allowed "
            f"{MAX_SKIPPED_SHARE:.0%}{example}; mend the data or leave them out of its list"
        )


def load_clips(
    data: str | Path, split: str | None = None, *, need_text: bool = False, columns: Sequence[str] = ()
) -> SpeechData:
    """List the clips of a data set, by headers alone.

    Args:
        data: a folder (with `metadata.csv` or `.jsonl`, a LibriSpeech tree, or any tree of audio files), a
            manifest (`.csv`, `.tsv`, `.jsonl`, `.parquet`), or `hub:NAME[:CONFIG][:SPLIT]`.
        split: take only this split (`train` also takes its parts, such as `train.100` or `train-clean-100`);
            None or `all` takes every clip.
        need_text: leave out clips without a transcript.
        columns: others of its table to be kept with each clip.

    Raises:
        UserError: nothing there, no transcripts, no such split or column, or too many clips that cannot be
            used.
    """
    name = str(data)
    rows: Iterable[Row]
    if name.startswith("hub:"):
        rows = hub_rows(name, split, columns)
    else:
        rows = local_rows(Path(name), split, columns, need_text=need_text)
    found = SpeechData(name if split is None else f"{name} ({split})")
    for row in rows:
        result = _clip(row, need_text=need_text)
        (found.clips if isinstance(result, Clip) else found.skipped).append(result)  # type: ignore[arg-type]
    found.check()
    return found


def verify_audio(data: SpeechData) -> None:
    """Leave out clips that do not decode, so that training never meets one.

    Raises:
        UserError: too many clips fail, see `SpeechData.skip`.
    """
    unusable = undecodable(data.clips)
    if unusable:
        data.skip(unusable)


def undecodable(clips: Sequence[Clip]) -> list[Skipped]:
    """Decode every clip once: headers promise sound that damaged files do not hold.

    Decoding runs at hundreds of times real time.
    """
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    def problem(clip: Clip) -> Skipped | None:
        try:
            clip.read()
        except AudioError as error:
            return Skipped(clip.clip_id, str(error))
        return None

    # libsndfile and soxr work outside Python's lock, so threads are enough.
    with ThreadPoolExecutor() as pool:
        results = tqdm(pool.map(problem, clips), "checking audio", len(clips), unit="clip", disable=None)
        return [skipped for skipped in results if skipped]


def write_skipped(folder: Path, skipped: Iterable[Skipped]) -> None:
    """List what was left out in `skipped.jsonl`, one line a clip with the reason."""
    lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in skipped]
    if lines:
        (folder / "skipped.jsonl").write_text("".join(lines), "utf-8", errors="replace")


def _clip(row: Row, *, need_text: bool) -> Clip | Skipped:
    if row.problem:
        return Skipped(row.clip_id, row.problem)
    if need_text and row.text is None:
        return Skipped(row.clip_id, f"no transcript; it belongs in a column {' or '.join(TEXT_COLUMNS)}")
    if need_text and not str(row.text).strip():
        return Skipped(row.clip_id, "its transcript is empty")
    try:
        info = audio_info(source_of(row.audio))
    except AudioError as error:
        return Skipped(row.clip_id, str(error))
    if info.num_samples < MIN_SAMPLES:
        return Skipped(row.clip_id, too_short(info.num_samples))
    return Clip(row.clip_id, row.audio, info.num_samples, row.text, row.speaker, row.columns)


def local_rows(
    path: Path, split: str | None, columns: Sequence[str] = (), *, need_text: bool = False
) -> list[Row]:
    """The rows of a local data argument; see `load_clips`. No audio file is opened.

    Raises:
        UserError: nothing there, or no such split or column.
    """
    if path.is_dir():
        rows = folder_rows(path, columns, need_text=need_text)
        remedy = f"it holds neither metadata.csv nor audio files ({', '.join(sorted(AUDIO_SUFFIXES))})"
    elif path.is_file():
        rows = manifest_rows(path, columns=columns, need_text=need_text)
        remedy = "the manifest lists none"
    else:
        raise UserError(f"there is no data at {path}; give a folder, a manifest or hub:NAME[:CONFIG][:SPLIT]")
    if not rows:
        raise UserError(f"{path}: no clips: {remedy}")
    if split in (None, ALL):
        return rows
    chosen = [row for row in rows if row.split and belongs(row.split, str(split))]
    splits = sorted({row.split for row in rows if row.split})
    if not chosen and not splits and split == "train":
        return rows  # a bare list of clips is there to be learned from
    if not chosen:
        raise UserError(f"{path}: no clips in split {split!r}; {choice_of(splits)}")
    return chosen
