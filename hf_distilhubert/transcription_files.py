"""What a transcription reads and writes: files, folders, patterns and standard input; one file, or many."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from hf_distilhubert.audio import Source
from hf_distilhubert.errors import UserError
from hf_distilhubert.folders import resolved
from hf_distilhubert.manifests import AUDIO_SUFFIXES
from hf_distilhubert.subtitles import srt, vtt
from hf_distilhubert.transcripts import TABLE_HEADER, Transcript, json_line, table_rows

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class AudioFile:
    """What is to be transcribed; `name` is what its result is called in a folder, without the suffix."""

    source: Source
    name: PurePath


@dataclass(frozen=True)
class Format:
    """A way to write transcripts.

    Attributes:
        suffix: of a file of it.
        render: one transcript.
        header: stands once before all of them.
        alone: whether a file can hold one transcript only.
    """

    suffix: str
    render: Callable[[Transcript], str]
    header: str = ""
    alone: bool = False


FORMATS = {
    "text": Format(".txt", lambda transcript: f"{transcript.text}\n"),
    "json": Format(".json", json_line),
    "srt": Format(".srt", srt, alone=True),
    "vtt": Format(".vtt", vtt, alone=True),
    "tsv": Format(".tsv", table_rows, TABLE_HEADER),
}
NAMED_TEXT = Format(".txt", lambda transcript: f"{transcript.audio}\t{transcript.text}\n")


def find_audio(arguments: Sequence[str]) -> list[AudioFile]:
    """Files as they are given, the audio files below folders, what patterns match, and standard input.

    Files that are named are taken as they are, whether they exist or not: each gets its own complaint.

    Raises:
        UserError: a folder holds no audio, a pattern matches nothing, or standard input is asked for twice.
    """
    if arguments.count(STANDARD_INPUT) > 1:
        raise UserError("standard input can be read once only; give - once")
    return [file for argument in arguments for file in _files_of(argument)]


def _files_of(argument: str) -> list[AudioFile]:
    path = Path(argument)
    if argument == STANDARD_INPUT:
        return [AudioFile(sys.stdin.buffer.read(), PurePath("standard-input"))]
    if _is(Path.is_dir, path):
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
        if not below:
            raise UserError(
                f"{argument} holds no audio; give a folder with {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        return [AudioFile(str(file), file.relative_to(path).with_suffix("")) for file in below]
    if _is(Path.exists, path) or not glob.has_magic(argument):
        return [AudioFile(argument, PurePath(path.stem))]
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
    if not matches:
        raise UserError(f"there is no file like {argument}; give files, folders or another pattern")
    return [AudioFile(match, PurePath(Path(match).stem)) for match in matches]


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """What a path is; one that can be no path is nothing, and is named when it is read."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


class Results:
    """Where transcripts go: standard output, one file for all, or a folder with one for each.

    Args:
        name: of a format, see `FORMATS`.
        output: a new file; or a folder, which is a name without a suffix; None is standard output.
        files: what is transcribed.

    Raises:
        UserError: a file of that name exists or cannot be written, several transcripts cannot be in one file,
            or two would get the same name.
    """

    def __init__(self, name: str, output: str | None, files: Sequence[AudioFile]) -> None:
        form = FORMATS[name]
        folder = output is not None and (resolved(output).is_dir() or not Path(output).suffix)
        if form.alone and len(files) > 1 and not folder:
            raise UserError(
                f"a {name} file holds one transcript; give --output FOLDER for {len(files)} files"
            )
        several = len(files) > 1 and not folder
        self.form = NAMED_TEXT if several and name == "text" else form
        self.targets: list[Path | None] = [None] * len(files)
        if output is not None:
            names = [f"{file.name}{form.suffix}" for file in files]
            self.targets = [Path(output, name) if folder else Path(output) for name in names]
        self._check(files, several)
        self._started: set[Path | None] = set()

    def write(self, number: int, transcript: Transcript) -> str:
        """Write the transcript of file `number`; what is left for standard output."""
        target = self.targets[number]
        text = self.form.render(transcript)
        if target not in self._started:
            text = self.form.header + text
            self._started.add(target)
        if target is None:
            return text
        _append(target, text)
        return ""

    def _check(self, files: Sequence[AudioFile], several: bool) -> None:
        """Find out before any work is done."""
        seen: dict[Path, AudioFile] = {}
        for target, file in zip(self.targets, files, strict=True):
            if target is None or (several and target in seen):
                continue
            if target in seen:
                raise UserError(
                    f"{seen[target].source!s} and {file.source!s} would both be written to {target}; "
                    "transcribe them apart, or give --output FILE"
                )
            if target.exists():
                raise UserError(f"{target} exists already; give the name of a new file or folder")
            seen[target] = file
            place = next(parent for parent in target.absolute().parents if parent.exists())
            if not (place.is_dir() and os.access(place, os.W_OK)):
                raise UserError(
                    f"cannot write {target}: {place} is no folder to write in; give another place"
                )


def _append(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; give another place") from error
