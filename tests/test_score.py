"""Scores: jiwer's figures, the same in any batch, by group, and nothing lost unsaid."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from conftest import LARGE, NUMBERS, save_recogniser

from finetune.score import main, score
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.transcriber import Transcriber

RATE = 16_000


@pytest.fixture(scope="module", params=[{}, LARGE], ids=["group-norm", "layer-norm"])
def recogniser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_recogniser(tmp_path_factory.mktemp("model"), **request.param)


def test_score_in_uneven_batches_equals_one_clip_at_a_time(
    tmp_path: Path, recogniser: Path, numbers: Path
) -> None:
    together = score(str(recogniser), str(numbers), output_dir=tmp_path / "together", batch_size=5)
    alone = score(str(recogniser), str(numbers), output_dir=tmp_path / "alone", batch_size=1)
    assert [u.hypothesis for u in together.utterances] == [u.hypothesis for u in alone.utterances]
    assert all(utterance.hypothesis for utterance in together.utterances)
    assert (together.wer, together.cer) == (alone.wer, alone.cer)
    transcriber = Transcriber(recogniser)
    for utterance in together.utterances:
        assert utterance.hypothesis == transcriber.transcribe(numbers / utterance.clip).text


def test_files_tell_what_was_found(tmp_path: Path, layer_norm: Path, numbers: Path) -> None:
    own = layer_norm / "results.json"
    own.write_text("{}")
    result = score(str(layer_norm), str(numbers))
    assert result.folder == layer_norm / "scores" / "test"
    assert own.read_text() == "{}"
    figures = json.loads((result.folder / "results.json").read_text())
    assert {name: figures[name] for name in ("stage", "model", "data", "split")} == {
        "stage": "score",
        "model": layer_norm.name,
        "data": numbers.name,
        "split": "test",
    }
    with (result.folder / "utterances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    own_columns = ["clip", "speaker", "seconds", "reference", "hypothesis", "errors", "words"]
    kinds = ["substitutions", "deletions", "insertions"]
    assert list(rows[0]) == [*own_columns, *kinds, "character_errors", "characters"]
    assert [row["reference"] for row in rows] == [text.lower() for text in NUMBERS]
    references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
    assert figures["wer"] == result.wer == jiwer.wer(references, hypotheses)
    assert figures["cer"] == result.cer == jiwer.cer(references, hypotheses)
    assert figures["utterances"] == len(NUMBERS)
    assert figures["words"] == sum(int(row["words"]) for row in rows)
    assert sum(figures[kind] for kind in kinds) == sum(int(row["errors"]) for row in rows)
    assert all(figures[kind] == sum(int(row[kind]) for row in rows) for kind in kinds)
    characters = sum(figures[f"character_{kind}"] for kind in kinds)
    assert characters == sum(int(row["character_errors"]) for row in rows)
    assert figures["characters"] == sum(len(reference) for reference in references)
    assert figures["wer_interval"][0] <= figures["wer"] <= figures["wer_interval"][1]
    assert figures["cer_interval"][0] <= figures["cer"] <= figures["cer_interval"][1]
    assert figures["resampled"] == "utterances"
    assert figures["audio_seconds"] == pytest.approx(sum(float(row["seconds"]) for row in rows))
    assert figures["real_time_factor"] == pytest.approx(figures["seconds"] / figures["audio_seconds"])
    assert (figures["device"], figures["threads"]) == ("cpu", torch.get_num_threads())
    assert figures["skipped"] == 0


def test_the_first_batch_is_recognised_once_more_before_the_clock_starts(
    tmp_path: Path, layer_norm: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def transcribe(self: Transcriber, waveforms: list[Any], batch_size: int = 8) -> list[str]:
        time.sleep(0 if heard else 0.5)  # as a cold model would
        heard.append(len(waveforms))
        return ["one"] * len(waveforms)

    monkeypatch.setattr(Transcriber, "transcribe_waveforms", transcribe)
    result = score(str(layer_norm), str(numbers), output_dir=tmp_path / "score", batch_size=2)
    assert heard == [2, len(NUMBERS)]
    assert result.seconds < 0.5
    assert len(result.utterances) == len(NUMBERS)


def test_clips_are_read_a_few_seconds_at_a_time(
    tmp_path: Path, layer_norm: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[list[int]] = []

    def transcribe(self: Transcriber, waveforms: list[Any], batch_size: int = 8) -> list[str]:
        pools.append([len(waveform) for waveform in waveforms])
        return ["one"] * len(waveforms)

    monkeypatch.setattr(Transcriber, "transcribe_waveforms", transcribe)
    monkeypatch.setattr("finetune.score.SECONDS_AT_ONCE", 25_000 / RATE)
    result = score(str(layer_norm), str(numbers), output_dir=tmp_path / "score")
    assert pools[1:] == [[30_200], [25_500], [20_800], [16_100], [11_400, 6_700, 2_000]]
    assert len(result.utterances) == len(NUMBERS)


def test_speakers_lengths_and_columns_are_scored_one_by_one(
    tmp_path: Path, layer_norm: Path, numbers: Path
) -> None:
    result = score(str(layer_norm), str(numbers), output_dir=tmp_path / "score", by=["accent"])
    assert list(result.groups) == ["speaker", "clip length", "accent"]
    assert list(result.groups["speaker"]) == ["(not given)", "speaker0", "speaker1"]
    assert list(result.groups["clip length"]) == ["under 1 s", "1 to 2 s"]
    assert list(result.groups["accent"]) == ["(not given)", "north", "south"]
    members = {
        "speaker": lambda u, name: (u.speaker or "(not given)") == name,
        "clip length": lambda u, name: (u.seconds < 1) == (name == "under 1 s"),
        "accent": lambda u, name: (u.columns["accent"] or "(not given)") == name,
    }
    for column, groups in result.groups.items():
        assert sum(rates.utterances for rates in groups.values()) == len(NUMBERS)
        for name, rates in groups.items():
            own = [u for u in result.utterances if members[column](u, name)]
            references, hypotheses = [u.reference for u in own], [u.hypothesis for u in own]
            assert (rates.utterances, rates.words) == (len(own), sum(u.words for u in own))
            assert rates.wer == pytest.approx(jiwer.wer(references, hypotheses))
            assert rates.cer == pytest.approx(jiwer.cer(references, hypotheses))
    figures = json.loads((result.folder / "results.json").read_text())
    assert figures["speakers"] == 2
    assert figures["groups"]["accent"]["north"]["wer"] == result.groups["accent"]["north"].wer
    with (result.folder / "utterances.csv").open(newline="") as file:
        assert {row["accent"] for row in csv.DictReader(file)} == {"", "north", "south"}


def test_a_set_without_speakers_has_no_group_of_nobody(
    tmp_path: Path, layer_norm: Path, numbers: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"file_name,transcription\n{numbers / '0.wav'},one\n{numbers / '1.wav'},two\n")
    result = score(str(layer_norm), str(manifest), split="all", output_dir=tmp_path / "score")
    assert list(result.groups) == ["clip length"]


def test_characters_that_cannot_be_written_are_counted_not_hidden(
    tmp_path: Path, layer_norm: Path, numbers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(layer_norm), "--data", str(numbers), "--output_dir", str(tmp_path / "score")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["score", *flags])
        main()
    figures = json.loads((tmp_path / "score" / "results.json").read_text())
    assert figures["unknown_characters"] == {"l": 1}  # of "eleven"
    assert "'l' 1 times" in capsys.readouterr().out
    with (tmp_path / "score" / "utterances.csv").open(newline="") as file:
        assert [row["reference"] for row in csv.DictReader(file)] == [text.lower() for text in NUMBERS]


def test_unreadable_clips_are_left_out_counted_and_listed(
    tmp_path: Path, layer_norm: Path, numbers: Path
) -> None:
    broken = tmp_path / "broken.flac"
    soundfile.write(broken, np.random.default_rng(1).uniform(-0.1, 0.1, RATE), RATE)
    broken.write_bytes(broken.read_bytes()[:4_000])  # the header promises more
    manifest = tmp_path / "manifest.csv"
    rows = "".join(f"{numbers / f'{index}.wav'},{text},test\n" for index, text in enumerate(NUMBERS))
    manifest.write_text(f"file_name,transcription,split\n{rows}{broken},one,test\n")
    result = score(str(layer_norm), str(manifest), output_dir=tmp_path / "score")
    assert (result.skipped, len(result.utterances)) == (1, len(NUMBERS))
    (line,) = (result.folder / "skipped.jsonl").read_text().splitlines()
    assert "broken.flac" in json.loads(line)["clip_id"]


# ----- mistakes -------------------------------------------------------------------------------------------


def test_earlier_score_is_replaced_on_request_only(tmp_path: Path, layer_norm: Path, numbers: Path) -> None:
    target = tmp_path / "score"
    score(str(layer_norm), str(numbers), output_dir=target)
    with pytest.raises(UserError, match="--overwrite"):
        score(str(layer_norm), str(numbers), output_dir=target)
    score(str(layer_norm), str(numbers), output_dir=target, overwrite=True)


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
        (["--embed_audio", "-1"], "--embed_audio -1"),
        (
            ["--by", "accent", "shoe size"],
            "no column 'shoe size'; its columns: file_name, transcription, speaker",
        ),
        (["--against", "nowhere"], "--against nowhere: no results.json"),
    ],
)
def test_wrong_flags_are_one_line(
    layer_norm: Path, numbers: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    good = ["--model", str(layer_norm), "--data", str(numbers), "--overwrite"]
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
