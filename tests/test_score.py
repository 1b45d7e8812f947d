"""Scores: jiwer's figures, the same in any batch, and nothing lost without a word."""

from __future__ import annotations

import csv
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from conftest import LARGE, save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.metrics import CER, WER, ErrorCounts, count_errors
from finetune.score import main, score
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.transcribe import Transcriber

RATE = 16_000
TEXTS = ["one two", "seven", "Three oh", "two two", "eleven", "one", "seven oh one"]
WORDS = st.lists(st.sampled_from(["one", "two", "three", "oh"]), max_size=4).map(" ".join)


@pytest.fixture(scope="module", params=[{}, LARGE], ids=["group-norm", "layer-norm"])
def recogniser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_recogniser(tmp_path_factory.mktemp("model"), **request.param)


@pytest.fixture(scope="module")
def layer_norm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_recogniser(tmp_path_factory.mktemp("model"), **LARGE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of very uneven lengths; the last clip has no speaker."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    lines = ["file_name,transcription,speaker,split"]
    for index, text in enumerate(TEXTS):
        samples = int(generator.integers(2_000, 30_000))
        soundfile.write(folder / f"{index}.wav", 0.1 * generator.standard_normal(samples), RATE)
        speaker = f"speaker{index % 2}" if index + 1 < len(TEXTS) else ""
        lines.append(f'{index}.wav,"{text}.",{speaker},test')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


# ----- metrics --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_rates_equal_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [list(side) for side in zip(*pairs, strict=True)]
    counts = count_errors(references, predictions)
    if counts.total:
        assert counts.rate == jiwer.wer(references, predictions)
        characters = count_errors(references, predictions, characters=True)
        assert characters.rate == jiwer.cer(references, predictions)
    singles = [count_errors([r], [p]) for r, p in pairs]
    assert counts.errors == sum(single.errors for single in singles)
    assert counts.total == sum(single.total for single in singles) == sum(len(r.split()) for r in references)


def test_kinds_of_errors_are_told_apart() -> None:
    assert count_errors(["a b c", "d"], ["a x", "d e"]) == ErrorCounts(1, 1, 1, 4)
    assert count_errors(["ab"], ["b"], characters=True) == ErrorCounts(0, 1, 0, 2)


def test_where_nothing_was_said_silence_is_right_and_words_are_wrong() -> None:
    assert count_errors([""], [""]).rate == 0
    assert count_errors([""], ["a b"]) == ErrorCounts(0, 0, 2, 0)
    assert count_errors([""], ["a b"]).rate == 1
    assert count_errors(["a", ""], ["a", "b"]).rate == 1
    assert count_errors([], []).rate == 0


def test_metrics_are_evaluate_metrics_that_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    metric = WER()
    for _ in range(2):  # compute starts again
        metric.add_batch(predictions=["a x"], references=["a b"])
        metric.add_batch(predictions=["d e"], references=["d"])
        expected = {"wer": 2 / 3, "substitutions": 1, "deletions": 0, "insertions": 1, "total": 3}
        assert metric.compute() == expected
    assert CER().compute(predictions=["ax"], references=["ab"])["cer"] == 0.5


# ----- scores ---------------------------------------------------------------------------------------------


def test_score_in_uneven_batches_equals_one_clip_at_a_time(
    tmp_path: Path, recogniser: Path, data: Path
) -> None:
    together = score(str(recogniser), str(data), output_dir=tmp_path / "together", batch_size=5)
    alone = score(str(recogniser), str(data), output_dir=tmp_path / "alone", batch_size=1)
    assert [u.hypothesis for u in together.utterances] == [u.hypothesis for u in alone.utterances]
    assert all(utterance.hypothesis for utterance in together.utterances)
    assert (together.wer, together.cer) == (alone.wer, alone.cer)
    transcriber = Transcriber(recogniser)
    for utterance in together.utterances:
        assert utterance.hypothesis == transcriber.transcribe(data / utterance.clip).text


def test_files_tell_what_was_found(tmp_path: Path, layer_norm: Path, data: Path) -> None:
    own = layer_norm / "results.json"
    own.write_text("{}")
    result = score(str(layer_norm), str(data))
    assert result.folder == layer_norm / "scores" / "test"
    assert own.read_text() == "{}"
    figures = json.loads((result.folder / "results.json").read_text())
    assert {name: figures[name] for name in ("stage", "model", "data", "split")} == {
        "stage": "score",
        "model": layer_norm.name,
        "data": data.name,
        "split": "test",
    }
    with (result.folder / "utterances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["clip", "speaker", "seconds", "reference", "hypothesis", "errors", "words"]
    assert [row["reference"] for row in rows] == [text.lower() for text in TEXTS]
    references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
    assert figures["wer"] == result.wer == jiwer.wer(references, hypotheses)
    assert figures["cer"] == result.cer == jiwer.cer(references, hypotheses)
    assert figures["utterances"] == len(TEXTS)
    assert figures["words"] == sum(int(row["words"]) for row in rows)
    errors = figures["substitutions"] + figures["deletions"] + figures["insertions"]
    assert errors == sum(int(row["errors"]) for row in rows)
    assert figures["audio_seconds"] == pytest.approx(sum(float(row["seconds"]) for row in rows))
    assert figures["real_time_factor"] == pytest.approx(figures["seconds"] / figures["audio_seconds"])
    assert (figures["device"], figures["threads"]) == ("cpu", torch.get_num_threads())
    assert figures["skipped"] == 0


def test_the_first_batch_is_recognised_once_more_before_the_clock_starts(
    tmp_path: Path, layer_norm: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def transcribe(self: Transcriber, waveforms: list[Any], batch_size: int = 8) -> list[str]:
        time.sleep(0 if heard else 0.5)  # as a cold model would
        heard.append(len(waveforms))
        return ["one"] * len(waveforms)

    monkeypatch.setattr(Transcriber, "transcribe_waveforms", transcribe)
    result = score(str(layer_norm), str(data), output_dir=tmp_path / "score", batch_size=2)
    assert heard == [2, len(TEXTS)]
    assert result.seconds < 0.5
    assert len(result.utterances) == len(TEXTS)


def test_speakers_are_scored_one_by_one(tmp_path: Path, layer_norm: Path, data: Path) -> None:
    result = score(str(layer_norm), str(data), output_dir=tmp_path / "score")
    assert set(result.per_speaker) == {"speaker0", "speaker1"}
    for speaker, figures in result.per_speaker.items():
        own = [u for u in result.utterances if u.speaker == speaker]
        assert figures["utterances"] == len(own) == 3
        assert figures["wer"] == sum(u.errors for u in own) / sum(u.words for u in own)


def test_characters_that_cannot_be_written_are_counted_not_hidden(
    tmp_path: Path, layer_norm: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(layer_norm), "--data", str(data), "--output_dir", str(tmp_path / "score")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["score", *flags])
        main()
    figures = json.loads((tmp_path / "score" / "results.json").read_text())
    assert figures["unknown_characters"] == {"l": 1}  # of "eleven"
    assert "'l' 1 times" in capsys.readouterr().out
    with (tmp_path / "score" / "utterances.csv").open(newline="") as file:
        assert [row["reference"] for row in csv.DictReader(file)] == [text.lower() for text in TEXTS]


def test_unreadable_clips_are_left_out_counted_and_listed(
    tmp_path: Path, layer_norm: Path, data: Path
) -> None:
    broken = tmp_path / "broken.flac"
    soundfile.write(broken, np.random.default_rng(1).uniform(-0.1, 0.1, RATE), RATE)
    broken.write_bytes(broken.read_bytes()[:4_000])  # the header promises more
    manifest = tmp_path / "manifest.csv"
    rows = "".join(f"{data / f'{index}.wav'},{text},test\n" for index, text in enumerate(TEXTS))
    manifest.write_text(f"file_name,transcription,split\n{rows}{broken},one,test\n")
    result = score(str(layer_norm), str(manifest), output_dir=tmp_path / "score")
    assert (result.skipped, len(result.utterances)) == (1, len(TEXTS))
    (line,) = (result.folder / "skipped.jsonl").read_text().splitlines()
    assert "broken.flac" in json.loads(line)["clip_id"]


def test_earlier_score_is_replaced_on_request_only(tmp_path: Path, layer_norm: Path, data: Path) -> None:
    target = tmp_path / "score"
    score(str(layer_norm), str(data), output_dir=target)
    with pytest.raises(UserError, match="--overwrite"):
        score(str(layer_norm), str(data), output_dir=target)
    score(str(layer_norm), str(data), output_dir=target, overwrite=True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nonsense"], "--nonsense"),
        (["--model", "./nowhere"], "there is no folder"),
        (["--model", "nobody/nothing"], "--output_dir"),
        (["--model", "nobody/nothing", "--output_dir", "nowhere"], "nobody/nothing"),
        (["--data", "./nowhere"], "there is no data"),
        (["--split", "night"], "'night'"),
        (["--batch_size", "0"], "--batch_size 0"),
    ],
)
def test_wrong_flags_are_one_line(
    layer_norm: Path, data: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    good = ["--model", str(layer_norm), "--data", str(data), "--overwrite"]
    before = sorted(layer_norm.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["score", *good, *flags])
        with pytest.raises(SystemExit) as stopped:
            run_command(main)
    assert stopped.value.code == 2
    assert sorted(layer_norm.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
