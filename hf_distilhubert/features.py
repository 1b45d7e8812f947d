"""Hidden states of audio files, a file for each: `distilhubert features`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_distilhubert.audio import SAMPLING_RATE, AudioError, audio_info
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.provenance import short_name, write_json
from hf_distilhubert.transcription_files import AudioFile, find_audio

if TYPE_CHECKING:
    from hf_distilhubert.feature_files import FeatureFiles

EXAMPLES = """\
  distilhubert features --model ntu-spml/distilhubert --output features recordings
  distilhubert features --model runs/student --layer 1 --format npy --output features "recordings/*.flac"
  distilhubert features --model runs/student --dtype bfloat16 --processes 4 --output features LibriSpeech"""
FORMATS = ("safetensors", "npy")
DTYPES = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed; the same for all files of a folder.

    Attributes:
        model: folder or Hub repository of a HuBERT model.
        layer: 0 is the input of the first layer; None the model's last hidden state.
        dtype: one of `DTYPES`, see `FastEncoder`.
        format: `safetensors` (a tensor `features`) or `npy`.
    """

    model: str
    layer: int | None = None
    dtype: str = "float32"
    format: str = "safetensors"


@dataclass(frozen=True)
class FeatureResult:
    """Files written, files that were there, frames and hours of the new ones, and complaints."""

    written: int
    found: int
    frames: int
    hours: float
    problems: list[str]


def write_features(
    settings: FeatureSettings,
    audio: Sequence[str],
    output: str | Path,
    *,
    batch_seconds: float = 240.0,
    processes: int = 1,
) -> FeatureResult:
    """Write `(frame, hidden)` float32 for every file, in files named like the audio.

    A folder that was begun with the same model and settings goes on where it stopped: a file that is there
    with as many frames as the sound has is left. Each is whole as soon as it is there. `features.json` says
    what they are.

    Args:
        settings: what is computed.
        audio: files, folders, patterns; see `find_audio`.
        output: the folder.
        batch_seconds: audio that is in memory at once, in each process.
        processes: how many share the work.

    Raises:
        UserError: the folder holds other features, two files would have one name, or the model is no use.
    """
    from tqdm import tqdm

    from hf_distilhubert.feature_files import FeatureFiles

    if processes < 1 or not batch_seconds > 0:
        raise UserError(
            f"{processes} processes, {batch_seconds} seconds at once; give a process and a second"
        )
    files = [(file, Path(output, f"{file.name}.{settings.format}")) for file in find_audio(audio)]
    _check_names(files)
    here = FeatureFiles(settings)
    _claim(Path(output), asdict(settings) | {"model": short_name(settings.model), "sha256": here.sha256})
    batches, found, problems = _batches(here, files, batch_seconds)
    written, frames, seconds = 0, 0, 0.0
    with tqdm(total=sum(length for _, length in batches), unit="s", desc="features", disable=None) as bar:
        for length, results in _run(here, batches, processes):
            bar.update(length)
            problems += [problem for _, problem in results if problem]
            written += sum(not problem for _, problem in results)
            frames += sum(count for count, _ in results)
            seconds += length
    return FeatureResult(written, found, frames, seconds / 3600, problems)


Work = list[tuple[AudioFile, Path]]


def _check_names(files: Work) -> None:
    seen: dict[Path, AudioFile] = {}
    for file, target in files:
        if target in seen:
            raise UserError(
                f"two of the files would be written to {target}; give them apart, to other folders"
            )
        seen[target] = file


def _claim(output: Path, told: dict[str, object]) -> None:
    """Make the folder, or find that it is for these settings."""
    note = output / "features.json"
    try:
        if note.exists():
            found = json.loads(note.read_text(encoding="utf-8"))
            others = [name for name, value in told.items() if found.get(name) != value]
            if others:
                raise UserError(
                    f"{output} holds features with {others[0]} {found.get(others[0])!r}, "
                    f"not {told[others[0]]!r}; choose another folder"
                )
            return
        if output.exists() and any(output.iterdir()):
            raise UserError(f"{output} is there already and holds no features; choose another folder")
        output.mkdir(parents=True, exist_ok=True)
        write_json(note, told)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot use {output}: {one_line(error)}; choose another folder") from error


def _batches(
    here: FeatureFiles, files: Work, batch_seconds: float
) -> tuple[list[tuple[Work, float]], int, list[str]]:
    """Files and their seconds, how many are done, and what is wrong with those without a usable header."""
    batches: list[tuple[Work, float]] = []
    problems: list[str] = []
    batch: Work = []
    total, found = 0.0, 0
    for file, target in files:
        try:
            samples = audio_info(file.source).num_samples
        except AudioError as error:
            problems.append(one_line(error))
            continue
        if here.is_done(target, samples):
            found += 1
            continue
        length = samples / SAMPLING_RATE
        if batch and total + length > batch_seconds:
            batches.append((batch, total))
            batch, total = [], 0.0
        batch.append((file, target))
        total += length
    return [*batches, (batch, total)] if batch else batches, found, problems


def _run(
    here: FeatureFiles, batches: list[tuple[Work, float]], processes: int
) -> Iterator[tuple[float, list[tuple[int, str | None]]]]:
    """Seconds of each batch, and frames or complaint of each of its files."""
    if processes == 1:
        yield from ((length, here(work)) for work, length in batches)
        return
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(here.settings, max(1, (os.cpu_count() or 1) // processes)),
    )
    with pool:
        waiting = {pool.submit(_do, work): length for work, length in batches}
        try:
            for done in as_completed(waiting):
                yield waiting.pop(done), done.result()
        except BrokenProcessPool as error:
            raise UserError("a process ended by itself (memory?); give fewer, or less at once") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_mine: FeatureFiles | None = None


def _start(settings: FeatureSettings, threads: int) -> None:
    """Load the model once in each process."""
    global _mine
    import torch

    from hf_distilhubert.feature_files import FeatureFiles

    torch.set_num_threads(threads)
    _mine = FeatureFiles(settings)


def _do(work: Work) -> list[tuple[int, str | None]]:
    assert _mine is not None  # noqa: S101 - _start ran
    return _mine(work)


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert features") -> FeatureResult:
    """Write features from the command line; a file that cannot be read is named, and the others go on."""
    arguments = _parser(prog).parse_args(argv)
    settings = FeatureSettings(arguments.model, arguments.layer, arguments.dtype, arguments.format)
    result = write_features(
        settings,
        arguments.audio,
        arguments.output,
        batch_seconds=arguments.batch_seconds,
        processes=arguments.processes,
    )
    figures = f"{result.written} files, {result.frames} frames, {result.hours:.2f} hours"
    print(f"{arguments.output}: {figures}" + (f", {result.found} were there" if result.found else ""))
    for problem in result.problems:
        print(f"skipped: {problem}")
    if result.problems:
        raise UserError(f"{len(result.problems)} files could not be read")
    return result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argument_parser(prog, "Write hidden states of audio files, a file for each.", EXAMPLES)
    parser.add_argument("audio", nargs="+", help="WAV, FLAC, Ogg, Opus or MP3 of any rate; folders, patterns")
    parser.add_argument("--model", required=True, help="folder or Hub repository of a HuBERT model")
    parser.add_argument("--output", required=True, help="folder; one that was begun goes on")
    parser.add_argument(
        "--layer", type=int, help="0: input of the first layer, 1: its output, …; default: last hidden state"
    )
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="default: safetensors")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="to compute in; what is written is float32",
    )
    parser.add_argument("--batch_seconds", type=float, default=240.0, help="audio in memory (default: 240)")
    parser.add_argument("--processes", type=int, default=1, help="that share the work (default: 1)")
    return parser
