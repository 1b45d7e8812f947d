"""Lists of clips in files: metadata tables, manifests, LibriSpeech's transcripts, bare trees of audio."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au"})
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMNS = ("file_name", "path", "audio", "audio_filepath", "file")
TEXT_COLUMNS = ("transcription", "text", "sentence", "transcript")
ALL = "all"  # the name of every split together
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")


@dataclass(frozen=True)
class Row:
    """One entry of a list of clips; `problem` says why it cannot be used."""

    clip_id: str
    audio: Any
    text: str | None = None
    speaker: str | None = None
    split: str | None = None
    problem: str | None = None
    columns: tuple[str, ...] = ()  # values of those that were asked for


def folder_rows(folder: Path, columns: Sequence[str] = (), *, need_text: bool = False) -> list[Row]:
    """List a folder: by its metadata table, as a LibriSpeech tree, or as a bare tree of audio files.

    Args:
        folder: the folder.
        columns: of the table, to be kept with each row.
        need_text: refuse a table without transcripts.
    """
    for name in METADATA:
        if (folder / name).is_file():
            return manifest_rows(folder / name, inside=True, columns=columns, need_text=need_text)
    check_columns(folder, (), columns)
    transcripts = sorted(folder.rglob("*.trans.txt"))
    if transcripts:
        return [row for file in transcripts for row in _librispeech_rows(file, folder)]
    files = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return [Row(str(path.relative_to(folder)), path) for path in sorted(files)]


def manifest_rows(
    manifest: Path, *, inside: bool = False, columns: Sequence[str] = (), need_text: bool = False
) -> list[Row]:
    """List a manifest; paths in it are relative to its folder.

    Args:
        manifest: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file with a column of file names and, optionally,
            `transcription`, `speaker` and `split`.
        inside: refuse clips outside the manifest's folder (a data set's own table has no business there).
        columns: others to be kept with each row.
        need_text: refuse a manifest without transcripts.

    Raises:
        UserError: another kind of file, wrong encoding, missing columns, or no rows.
    """
    readers: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        ".csv": lambda path: _table(path, ","),
        ".tsv": lambda path: _table(path, "\t"),
        ".jsonl": _json_lines,
        ".parquet": _parquet,
    }
    if manifest.suffix.lower() not in readers:
        raise UserError(f"{manifest}: a manifest is one of {', '.join(readers)}")
    records = readers[manifest.suffix.lower()](manifest)
    if not records:
        raise UserError(f"{manifest}: no rows in it, so there are no clips")
    there = list(records[0])
    files = first_column(there, FILE_COLUMNS)
    if files is None:
        raise UserError(
            f"{manifest}: no column of file names ({', '.join(FILE_COLUMNS)}); "
            f"its columns: {', '.join(there)}"
        )
    check_columns(manifest, there, columns)
    texts, speakers = first_column(there, TEXT_COLUMNS), first_column(there, SPEAKER_COLUMNS)
    if need_text and texts is None:
        raise UserError(
            f"{manifest}: no transcripts, which belong in a column {' or '.join(TEXT_COLUMNS)}; "
            f"its columns: {', '.join(there)}"
        )
    rows = [
        replace(
            _row(record, manifest.parent, files, texts, speakers, inside),
            columns=tuple(_string(record.get(column)) or "" for column in columns),
        )
        for record in records
    ]
    return list(_without_repeats(rows))


def _row(
    record: dict[str, Any], folder: Path, files: str, texts: str | None, speakers: str | None, inside: bool
) -> Row:
    name = _string(record.get(files)) or ""
    path = folder / name
    problem = None
    if not name:
        problem = "no file name"
    elif inside and not path.resolve().is_relative_to(folder.resolve()):
        problem = "leads out of the data set's folder"
    # A path that leads out of the folder begins with no split.
    folders = () if problem else Path(name).parts[:-1]
    split = record.get("split") or next(iter(folders), None)
    return Row(
        clip_id=name or "(row without a file name)",
        audio=path,
        text=_string(record.get(texts)) if texts else None,
        speaker=_string(record.get(speakers)) if speakers else None,
        split=_string(split),
        problem=problem,
    )


def _without_repeats(rows: Iterable[Row]) -> Iterable[Row]:
    """Keep the first row of a clip; a second one is passed on as a problem."""
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row.clip_id, row)
        if first is row:
            yield row
        else:
            same = first.text == row.text
            reason = "listed twice" + ("" if same else " with different texts; the first one is used")
            yield Row(f"{row.clip_id} (again)", row.audio, problem=reason)


def _table(path: Path, delimiter: str) -> list[dict[str, Any]]:
    lines = io.StringIO(_read_text(path), newline="")
    try:
        # csv takes every value as text: "null" and "007" stay what they are.
        return list(csv.DictReader(lines, delimiter=delimiter, restkey="(surplus)"))
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}); is a quotation mark left open?") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number} is not a JSON object; mend or remove it") from error
    return records


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet
    from pyarrow.lib import ArrowInvalid

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except ArrowInvalid as error:
        raise UserError(f"{path}: not a parquet file") from error


def _librispeech_rows(transcripts: Path, root: Path) -> Iterable[Row]:
    """Lines `SPEAKER-CHAPTER-NUMBER TEXT`; the subset (train-clean-100, …) is the split."""
    for line in _read_text(transcripts).splitlines():
        utterance, _, text = line.partition(" ")
        path = transcripts.with_name(f"{utterance}.flac")
        relative = path.relative_to(root)
        split = relative.parts[-4] if len(relative.parts) >= 4 else None
        yield Row(str(relative), path, text, utterance.split("-")[0], split)


def first_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is among `columns`."""
    return next((name for name in names if name in columns), None)


def check_columns(source: object, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that a data set does not have.

    Raises:
        UserError: one of `wanted` is not among `there`.
    """
    for column in wanted:
        if column not in there:
            raise UserError(f"{source}: no column {column!r}; its columns: {', '.join(there) or 'none'}")


def _string(value: Any) -> str | None:
    # JSON can hold halves of characters, which no file can.
    return None if value is None else str(value).encode(errors="replace").decode()


def belongs(name: str, split: str) -> bool:
    """Whether a split is the one asked for, or a part of it: train.100, train-clean-100."""
    return name == split or name.startswith((f"{split}.", f"{split}-"))


def choice_of(splits: Sequence[str]) -> str:
    """What to say of the splits that there are."""
    return f"its splits: {', '.join(splits) or 'none'}; {ALL!r} takes every clip"
