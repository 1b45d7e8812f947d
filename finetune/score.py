"""How well a recogniser does on a split: `python -m finetune.score`, word and character error rates."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.audio import AudioError, Waveform
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from finetune.comparison import Score, Utterance
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.transcribe import Transcriber

BATCHES_AT_ONCE = 8  # what is read before it is transcribed: memory stays flat on any number of clips
EXAMPLES = """\
  python -m finetune.score --model runs/recogniser --data recordings
  python -m finetune.score --model runs/recogniser --data recordings --split validation --batch_size 1
  python -m finetune.score --model facebook/hubert-large-ls960-ft --data LibriSpeech --split test-clean \\
      --output_dir runs/hubert-large"""


def score(
    model: str,
    data: str,
    *,
    split: str = "test",
    output_dir: str | Path | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
) -> Score:
    """Transcribe a split greedily, compare with its transcripts, write `results.json` and `utterances.csv`.

    Args:
        model: folder or repository of a recogniser.
        data: any data with transcripts.
        split: which clips; `all` takes every one.
        output_dir: the new folder; None is `MODEL/scores/SPLIT`.
        batch_size: clips at once, of similar length. The result does not depend on it: where padding would
            change a clip (front ends with group norm), it is taken as 1.
        overwrite: replace a score that is there already.

    Raises:
        UserError: the model or the data cannot be used, or the output folder exists.
    """
    from finetune.comparison import compare
    from finetune.data import normalise_transcripts
    from hf_distilhubert.ctc import keeps_case
    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.provenance import short_name, write_json
    from hf_distilhubert.speech_data import load_clips, write_skipped
    from hf_distilhubert.transcribe import Transcriber

    target = _target(model, split, output_dir)
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}; give a number from 1")
    check_new(target, overwrite=overwrite)
    clips = load_clips(data, split, need_text=True)
    transcriber = Transcriber(model)
    normalise_transcripts(clips, keep_case=keeps_case(model, transcriber.processor.tokenizer))
    texts, seconds = _recognise(transcriber, clips, batch_size)
    result = compare(target, transcriber, clips, texts, seconds)
    with new_folder(target, overwrite=overwrite) as folder:
        write_json(folder / "results.json", _figures(result, short_name(model), short_name(data), split))
        _write_utterances(folder / "utterances.csv", result.utterances)
        write_skipped(folder, clips.skipped)
    return result


def _target(model: str, split: str, output_dir: str | Path | None) -> Path:
    if output_dir is not None:
        return Path(output_dir)
    if not Path(model).is_dir():
        raise UserError(f"there is no folder {model}; for a model on the Hub give --output_dir too")
    return Path(model, "scores", split)


def _recognise(transcriber: Transcriber, data: SpeechData, batch_size: int) -> tuple[dict[str, str], float]:
    """Texts by clip, and the seconds that a warm model took; clips that cannot be read leave `data`."""
    from tqdm import tqdm

    from hf_distilhubert.speech_data import Skipped

    texts: dict[str, str] = {}
    unreadable: list[Skipped] = []
    seconds = 0.0
    # Long clips first: if memory does not suffice, that shows at once.
    order = sorted(data.clips, key=lambda clip: clip.num_samples, reverse=True)
    size = batch_size * BATCHES_AT_ONCE
    with tqdm(total=len(order), desc="transcribing", unit="clip", disable=None) as bar:
        for start in range(0, len(order), size):
            read: dict[str, Waveform] = {}
            for clip in order[start : start + size]:
                try:
                    read[clip.clip_id] = clip.read()
                except AudioError as error:
                    unreadable.append(Skipped(clip.clip_id, str(error)))
            if not texts:
                # The first batch of a model is slow; its time says nothing of the model's speed.
                transcriber.transcribe_waveforms(list(read.values())[:batch_size], batch_size=batch_size)
            began = time.perf_counter()
            found = transcriber.transcribe_waveforms(list(read.values()), batch_size=batch_size)
            seconds += time.perf_counter() - began
            texts |= zip(read, found, strict=True)
            bar.update(len(order[start : start + size]))
    if unreadable:
        data.skip(unreadable)
    return texts, seconds


def _figures(result: Score, model: str | None, data: str | None, split: str) -> dict[str, Any]:
    """What goes into `results.json`; the model card reads it."""
    counts = {"utterances": len(result.utterances), "speakers": len(result.per_speaker)}
    values = {name: value for name, value in vars(result).items() if name not in ("folder", "utterances")}
    return {"stage": "score", "model": model, "data": data, "split": split} | counts | values


def _write_utterances(path: Path, utterances: Sequence[Utterance]) -> None:
    rows = [asdict(utterance) for utterance in utterances]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Read the command line, score, and print the table."""
    parser = argument_parser(
        "python -m finetune.score", "Word and character error rates of a recogniser on a split.", EXAMPLES
    )
    parser.add_argument("--model", required=True, help="folder or Hub repository of a recogniser")
    parser.add_argument(
        "--data", required=True, help="a folder, a manifest or hub:NAME[:CONFIG], with transcripts"
    )
    parser.add_argument("--split", default="test", help="which clips, or all (default: test)")
    parser.add_argument("--output_dir", help="new folder for the figures (default: MODEL/scores/SPLIT)")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="clips at once (default: 8); 1 is taken for front ends with group norm, which hear the padding",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a score that is there already")
    result = score(**vars(parser.parse_args()))
    _print(result)


def _print(result: Score) -> None:
    for speaker, figures in result.per_speaker.items():
        print(
            f"{speaker}: WER {figures['wer']:.1%}, CER {figures['cer']:.1%}, "
            f"{figures['utterances']:.0f} utterances"
        )
    if result.unknown_characters:
        counts = ", ".join(f"{char!r} {count} times" for char, count in result.unknown_characters.items())
        print(f"the vocabulary lacks characters of the references, which count as errors: {counts}")
    if result.skipped:
        print(f"{result.skipped} clips left out, see {result.folder / 'skipped.jsonl'}")
    print(
        f"{result.folder}: WER {result.wer:.1%}, CER {result.cer:.1%} on {len(result.utterances)} utterances "
        f"({result.words} words: {result.substitutions} substituted, {result.deletions} deleted, "
        f"{result.insertions} inserted); real-time factor {result.real_time_factor:.3f} "
        f"on {f'{result.threads} threads' if result.device == 'cpu' else result.device}"
    )


if __name__ == "__main__":
    run_command(main)
