"""Speech to text with a fine-tuned student: `distilhubert transcribe`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.audio import SAMPLING_RATE, AudioError, audio_info
from hf_distilhubert.beam_flags import add_beam_flags, take_decoder
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.transcriber import Transcriber
from hf_distilhubert.transcription_files import FORMATS, AudioFile, Results, find_audio
from hf_distilhubert.transcripts import Character, Transcript, Word

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Character", "Transcriber", "Transcript", "Word", "main"]

EXAMPLES = """\
  distilhubert transcribe --model runs/digits speech.wav
  distilhubert transcribe --model runs/digits --format srt --output subtitles recordings
  distilhubert transcribe --model runs/digits --format json "recordings/*.flac" > transcripts.jsonl
  distilhubert transcribe --model runs/digits speech.wav --language_model runs/words.arpa --hot_words zoe:8
  distilhubert transcribe --model runs/digits --format vtt --align said.txt speech.wav
  cat speech.mp3 | distilhubert transcribe --model runs/digits -
  distilhubert transcribe --model runs/digits --microphone"""


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert transcribe") -> list[Transcript]:
    """Transcribe files from the command line; a file that cannot be read is named, and the others go on.

    What a microphone hears is written down as it is said, and not returned.
    """
    from tqdm import tqdm

    arguments = _parser(prog).parse_args(argv)
    if arguments.microphone:
        _hear(arguments)
        return []
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size {arguments.batch_size}; give a number from 1")
    decoder = take_decoder(vars(arguments))
    files = find_audio(arguments.audio)
    text = _text_to_align(arguments.align, files)
    results = Results(arguments.format, arguments.output, files)
    transcriber = Transcriber(arguments.model, decoder=decoder, chunk_seconds=arguments.chunk_seconds)
    done: list[Transcript] = []
    with tqdm(
        total=_seconds(files),
        desc="transcribing",
        bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]",
        disable=None,
    ) as bar:
        for number, found in enumerate(_transcripts(transcriber, files, text, arguments.batch_size, bar)):
            if isinstance(found, AudioError):
                tqdm.write(f"skipped: {one_line(found)}", file=sys.stderr)
                continue
            done.append(found)
            _print(results.write(number, found))
    if len(done) < len(files):
        raise UserError(f"{len(files) - len(done)} of {len(files)} files could not be transcribed")
    return done


def _hear(arguments: argparse.Namespace) -> None:
    """Write down what is said into the microphone."""
    from hf_distilhubert.microphone import Microphone, write_down

    flags, usual = ("format", "output", "align", "batch_size", "chunk_seconds"), _parser("").get_default
    if others := [f"--{flag}" for flag in flags if getattr(arguments, flag) != usual(flag)]:
        raise UserError(
            f"--microphone writes plain text to standard output; leave out {' and '.join(others)}"
        )
    decoder = take_decoder(vars(arguments))
    microphone = Microphone()
    write_down(Transcriber(arguments.model, decoder=decoder), microphone, _print)


def _print(text: str) -> None:
    from tqdm import tqdm

    try:
        tqdm.write(text, end="")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argument_parser(
        prog, "Transcribe audio files of any length, or find when a text is said.", EXAMPLES
    )
    parser.add_argument("--model", required=True, help="folder or Hub repository of a fine-tuned CTC model")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text; json: a line for each file, with times and confidence of words and characters; srt, vtt: "
        "subtitles; tsv: a line for each word (default: text)",
    )
    parser.add_argument(
        "--output",
        help="a new file, or (a name without a suffix) a folder that gets one file for each audio; "
        "default: standard output",
    )
    parser.add_argument("--align", metavar="TEXTFILE", help="what is said in the one audio: only find when")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="clips at once; results do not depend on it"
    )
    parser.add_argument(
        "--chunk_seconds",
        type=float,
        default=40.0,
        help="longer audio is heard in overlapping windows of this length (default: 40)",
    )
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--microphone",
        action="store_true",
        help="write down what is said, as it is said, until Ctrl-C; needs hf-distilhubert[microphone]",
    )
    sources.add_argument(
        "audio",
        nargs="*",
        default=[],
        help="WAV, FLAC, Ogg, Opus or MP3 of any rate; folders, patterns; - for standard input",
    )
    add_beam_flags(parser)
    return parser


def _text_to_align(path: str | None, files: Sequence[AudioFile]) -> str | None:
    if path is None:
        return None
    if len(files) != 1:
        raise UserError(f"--align is for one audio file, not {len(files)}")
    try:
        return " ".join(Path(path).read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"cannot read the text {path}: {reason}; give a text file in UTF-8") from error


def _transcripts(
    transcriber: Transcriber, files: Sequence[AudioFile], text: str | None, batch_size: int, bar: tqdm[Any]
) -> Iterator[Transcript | AudioError]:
    if text is None:
        yield from transcriber.transcribe_files((file.source for file in files), batch_size, bar.update)
        return
    try:
        yield transcriber.align(files[0].source, text)
    except AudioError as error:
        yield error


def _seconds(files: Sequence[AudioFile]) -> float:
    """Of all that can be read, by the headers."""
    total = 0
    for file in files:
        with suppress(AudioError):
            total += audio_info(file.source).num_samples
    return total / SAMPLING_RATE
