"""How well a recogniser does on a split: `python -m finetune.score`, word and character error rates."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.audio import SAMPLING_RATE, AudioError, Waveform
from hf_distilhubert.beam_flags import add_beam_flags, take_decoder
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from finetune.comparison import Score, Utterance
    from hf_distilhubert.ctc_decoding import Decoder
    from hf_distilhubert.speech_data import Clip, SpeechData
    from hf_distilhubert.text_rules import Normaliser
    from hf_distilhubert.transcriber import Transcriber

# What is read before it is transcribed, so that memory stays flat on any number of clips.
BATCHES_AT_ONCE, SECONDS_AT_ONCE = 8, 2_000.0
EXAMPLES = """\
  python -m finetune.score --model runs/recogniser --data recordings
  python -m finetune.score --model runs/recogniser --data recordings --by gender accent
  python -m finetune.score --model runs/larger --data recordings --against runs/recogniser/scores/test
  python -m finetune.score --model runs/recogniser --data recordings --language_model runs/words.arpa \\
      --output_dir runs/with-words
  python -m finetune.score --model facebook/hubert-large-ls960-ft --data LibriSpeech --split test-clean \\
      --output_dir runs/hubert-large"""


def score(
    model: str,
    data: str,
    *,
    split: str = "test",
    output_dir: str | Path | None = None,
    batch_size: int = 8,
    by: Sequence[str] = (),
    against: str | Path | None = None,
    embed_audio: int | None = None,
    text: str | Normaliser | None = None,
    decoder: Callable[[Any], Decoder] | None = None,
    overwrite: bool = False,
) -> Score:
    """Transcribe a split and compare with its transcripts.

    Writes `results.json`, `utterances.csv` and the page `report.html`.

    Args:
        model: folder or repository of a recogniser.
        data: any data with transcripts.
        split: which clips; `all` takes every one.
        output_dir: the new folder; None is `MODEL/scores/SPLIT`.
        batch_size: clips at once, of similar length; the result does not depend on it.
        by: columns of the data's table to score by, such as `gender`.
        against: an earlier score (its folder, or the `results.json` in it) of another model on the same data.
        embed_audio: put the sound of so many of the worst utterances into the page, which can then be sent;
            None plays the files where they lie.
        text: normalise the transcripts with `basic`, `english`, `none` or a function in place of what the
            model was trained with; needed where that was a function, which no folder can hold.
        decoder: see `beam_decoder`; its score is set against that of greedy decoding, unless `against` names
            another. None decodes greedily.
        overwrite: replace a score that is there already.

    Raises:
        UserError: the model, the data or the earlier score cannot be used, or the output folder exists.
    """
    from finetune.against import RESULTS, UTTERANCES, OtherScore, read_other
    from finetune.comparison import compare
    from finetune.data import normalise_transcripts
    from finetune.report import write_report
    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.provenance import short_name, write_json
    from hf_distilhubert.speech_data import load_clips, write_skipped
    from hf_distilhubert.text_rules import chosen_rules, read_text_rules
    from hf_distilhubert.transcriber import Transcriber

    target = _target(model, split, output_dir)
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}; give a number from 1")
    if embed_audio is not None and embed_audio < 0:
        raise UserError(f"--embed_audio {embed_audio}; give a number from 0")
    check_new(target, overwrite=overwrite, keep=[model, data, against])
    other = None if against is None else read_other(against)
    clips = load_clips(data, split, need_text=True, columns=by)
    transcriber = Transcriber(model)
    rules = chosen_rules(read_text_rules(model, transcriber.processor.tokenizer), text)
    normalise_transcripts(clips, rules)
    texts, seconds = _recognise(transcriber, clips, batch_size)
    if decoder is not None:
        if other is None:
            greedy = {clip.clip_id: (str(clip.text), texts[clip.clip_id]) for clip in clips.clips}
            other = OtherScore("greedy decoding", "greedy decoding", greedy)
        transcriber.decode = decoder(transcriber.processor.tokenizer)
        texts, seconds = _recognise(transcriber, clips, batch_size)
    result = compare(target, transcriber, clips, texts, seconds, by=by, other=other)
    facts = {"text": str(rules), "decoding": "greedy" if decoder is None else "beam search"}
    title = {"model": short_name(model), "data": short_name(data), "split": split}
    with new_folder(target, overwrite=overwrite) as folder:
        write_json(folder / RESULTS, {"stage": "score", **title, **facts, **_figures(result)})
        _write_utterances(folder / UTTERANCES, result.utterances)
        write_report(folder / "report.html", result, clips.clips, title=title, embed_audio=embed_audio)
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
    with tqdm(total=len(order), desc="transcribing", unit="clip", disable=None) as bar:
        for pool in _pools(order, batch_size * BATCHES_AT_ONCE):
            read: dict[str, Waveform] = {}
            for clip in pool:
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
            bar.update(len(pool))
    if unreadable:
        data.skip(unreadable)
    return texts, seconds


def _pools(clips: Sequence[Clip], size: int) -> Iterator[list[Clip]]:
    """At most `size` clips at a time, and `SECONDS_AT_ONCE`, or a single longer one."""
    pool: list[Clip] = []
    seconds = 0.0
    for clip in clips:
        seconds += clip.num_samples / SAMPLING_RATE
        if pool and (len(pool) == size or seconds > SECONDS_AT_ONCE):
            yield pool
            pool, seconds = [], clip.num_samples / SAMPLING_RATE
        pool.append(clip)
    yield pool


def _figures(result: Score) -> dict[str, Any]:
    """What goes into `results.json`; the model card reads it."""
    speakers = {utterance.speaker for utterance in result.utterances} - {""}
    counts = {"utterances": len(result.utterances), "speakers": len(speakers)}
    values = asdict(replace(result, utterances=()))
    return counts | {name: value for name, value in values.items() if name not in ("folder", "utterances")}


def _write_utterances(path: Path, utterances: Sequence[Utterance]) -> None:
    rows = [asdict(utterance) for utterance in utterances]
    columns = [row.pop("columns") for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *(name for name in columns[0] if name not in rows[0])])
        writer.writeheader()
        writer.writerows(own | row for row, own in zip(rows, columns, strict=True))


def main() -> None:
    """Read the command line, score, and print the table."""
    from finetune.summary import print_score

    parser = argument_parser(
        "python -m finetune.score", "Word and character error rates of a recogniser on a split.", EXAMPLES
    )
    parser.add_argument("--model", required=True, help="folder or Hub repository of a recogniser")
    parser.add_argument(
        "--data", required=True, help="a folder, a manifest or hub:NAME[:CONFIG], with transcripts"
    )
    parser.add_argument("--split", default="test", help="which clips, or all (default: test)")
    parser.add_argument("--output_dir", help="new folder for the figures (default: MODEL/scores/SPLIT)")
    parser.add_argument("--batch_size", type=int, default=8, help="clips at once (default: 8)")
    parser.add_argument(
        "--by", nargs="+", default=(), metavar="COLUMN", help="columns of the data's table to score by too"
    )
    parser.add_argument(
        "--against",
        metavar="SCORE",
        help="an earlier score (its folder or results.json) of another model on the same data: "
        "the difference, its 95 %% interval and p-value",
    )
    parser.add_argument(
        "--embed_audio",
        type=int,
        metavar="N",
        help="put the sound of the N worst utterances into the page and refer to no file, so that it can be "
        "sent (default: play the files where they lie)",
    )
    parser.add_argument(
        "--text",
        help="normal form of the transcripts: basic, english or none (default: that of the training)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a score that is there already")
    add_beam_flags(parser)
    arguments = vars(parser.parse_args())
    print_score(score(decoder=take_decoder(arguments), **arguments))


if __name__ == "__main__":
    run_command(main)
