"""Every kind of data argument gives the same clips; what cannot be used is named, counted and listed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from hf_distilhubert import DistillConfig, distillation_setup, training
from hf_distilhubert.distill import distill
from hf_distilhubert.errors import UserError
from hf_distilhubert.speech_data import load_clips, verify_audio, write_skipped


def write_clip(path: Path, samples: int = 4_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(samples).uniform(-0.1, 0.1, samples), 16_000)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, str]]:
    """Three clips in `tmp_path` and what a manifest says of them."""
    for number in range(3):
        write_clip(tmp_path / f"{number}.flac", 4_000 + number)
    return [
        {"file_name": f"{number}.flac", "transcription": text, "speaker": "a", "split": "train"}
        for number, text in enumerate(("null", "007", "one"))
    ]


def write_csv(path: Path, records: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)
    return path


def test_manifests_of_every_kind_list_the_same_clips(tmp_path, records):
    manifests = [
        write_csv(tmp_path / "list.csv", records),
        write_csv(tmp_path / "list.tsv", records, "\t"),
        tmp_path / "list.jsonl",
        tmp_path / "list.parquet",
    ]
    manifests[2].write_text("\n".join(json.dumps(record) for record in records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), manifests[3])
    listed = [load_clips(manifest, "train", need_text=True).clips for manifest in manifests]
    assert [clip.text for clip in listed[0]] == ["null", "007", "one"]  # text stays text
    assert [clip.num_samples for clip in listed[0]] == [4_000, 4_001, 4_002]
    assert all(clips == listed[0] for clips in listed)


def test_a_librispeech_tree_is_read_by_its_transcripts(tmp_path):
    chapter = tmp_path / "dev-clean" / "84" / "121123"
    for number in range(2):
        write_clip(chapter / f"84-121123-000{number}.flac")
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO\n84-121123-0001 DO YOU HEAR\n")
    data = load_clips(tmp_path, "dev-clean", need_text=True)
    assert [(clip.text, clip.speaker) for clip in data.clips] == [("GO", "84"), ("DO YOU HEAR", "84")]


def test_train_is_also_its_parts_and_every_clip_of_a_bare_tree(tmp_path):
    for subset in ("train-clean-100", "train-other-500", "dev-clean"):
        chapter = tmp_path / "LibriSpeech" / subset / "1" / "2"
        write_clip(chapter / "1-2-0000.flac")
        (chapter / "1-2.trans.txt").write_text("1-2-0000 GO\n")
    names = [clip.clip_id for clip in load_clips(tmp_path / "LibriSpeech", "train").clips]
    assert [name.split("/")[0] for name in names] == ["train-clean-100", "train-other-500"]
    assert len(load_clips(tmp_path / "LibriSpeech", "all").clips) == 3
    write_clip(tmp_path / "bare" / "one.wav")
    assert len(load_clips(tmp_path / "bare", "train").clips) == 1
    with pytest.raises(UserError, match="its splits: none; 'all' takes every clip"):
        load_clips(tmp_path / "bare", "validation")


def test_a_bare_tree_of_audio_files_needs_no_table(tmp_path):
    write_clip(tmp_path / "b" / "two.wav")
    write_clip(tmp_path / "a" / "ONE.FLAC")
    (tmp_path / "a" / "notes.txt").write_text("not a clip")
    assert [clip.clip_id for clip in load_clips(tmp_path).clips] == ["a/ONE.FLAC", "b/two.wav"]


def test_clips_of_real_speech_are_as_long_as_their_headers_say(speech_dir):
    folders = sorted(path.parent for path in speech_dir.glob("*/metadata.csv"))
    assert folders
    for folder in folders:
        data = load_clips(folder, "test", need_text=True)
        assert not data.skipped
        assert [len(clip.read()) for clip in data.clips[:5]] == [clip.num_samples for clip in data.clips[:5]]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("zero_byte", "no rows"),
        ("header_only", "no rows"),
        ("missing_column", "no transcript"),
        ("semicolon", "its columns: file_name;transcription"),
        ("tab_separated", "its columns"),
        ("latin1", "not UTF-8"),
        ("path_escape", "leads out"),
        ("all_bad_audio", "none of"),
        ("blank_transcription", "its transcript is empty"),
    ],
)
def test_a_broken_table_is_refused_in_one_line(speech_dir, case, said):
    with pytest.raises(UserError, match=said) as caught:
        load_clips(speech_dir / "broken" / "metadata_cases" / case, need_text=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["good", "bom_crlf", "quotes_newlines", "numbers_only", "null_words"])
def test_odd_but_good_tables_load_whole(speech_dir, case):
    data = load_clips(speech_dir / "broken" / "metadata_cases" / case, need_text=True)
    assert (len(data.clips), data.skipped) == (4, [])


def test_a_clip_that_does_not_decode_is_left_out_and_listed(tmp_path, speech_dir):
    for number in range(30):
        write_clip(tmp_path / "data" / f"{number}.flac")
    broken = speech_dir / "broken" / "audio" / "truncated_40pct.flac"
    (tmp_path / "data" / "cut.flac").write_bytes(broken.read_bytes())
    data = load_clips(tmp_path / "data")
    assert len(data.clips) == 31  # its header is whole
    verify_audio(data)
    assert len(data.clips) == 30
    write_skipped(tmp_path, data.skipped)
    (listed,) = (json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert listed["clip_id"] == "cut.flac"
    assert "cannot be decoded" in listed["reason"]


def test_audio_is_checked_once_and_not_again_by_a_run_that_goes_on(
    tiny_teacher, spoken, tmp_path, monkeypatch
):
    cut = spoken / "train" / "3.flac"
    cut.write_bytes(cut.read_bytes()[:-2_000])
    checked = []
    check = distillation_setup.undecodable
    monkeypatch.setattr(
        distillation_setup, "undecodable", lambda clips: checked.append(len(clips)) or check(clips)
    )
    settings = {"teacher": str(tiny_teacher), "data": str(spoken), "output_dir": str(tmp_path / "student")}
    settings |= {"target_layers": [2, 4], "max_steps": 3, "batch_size": 4, "save_steps": 1}
    step = training._step
    monkeypatch.setattr(
        training, "_step", lambda *given: step(*given) if given[-1].step < 2 else pytest.fail("crashed")
    )
    with pytest.raises(pytest.fail.Exception, match="crashed"):
        distill(DistillConfig(**settings))
    monkeypatch.setattr(training, "_step", step)
    result = distill(DistillConfig(**settings))
    assert checked == [12, 4]
    (listed,) = (json.loads(line) for line in (result.folder / "skipped.jsonl").read_text().splitlines())
    assert listed["clip_id"] == "train/3.flac"


def test_too_many_bad_clips_stop_the_run(tmp_path):
    for number in range(8):
        write_clip(tmp_path / f"{number}.flac", samples=399 if number < 2 else 4_000)
    with pytest.raises(UserError, match="2 of 8 clips cannot be used"):
        load_clips(tmp_path)


@pytest.mark.parametrize(
    ("argument", "split", "said"),
    [
        ("absent", None, "there is no data"),
        ("list.txt", None, "a manifest is one of"),
        ("empty", None, "no clips"),
        ("list.csv", "dev", "its splits: train"),
        ("hub:nobody/nothing", None, "cannot load the data set"),
    ],
)
def test_data_that_is_not_there_is_said_in_one_line(tmp_path, records, argument, split, said):
    write_csv(tmp_path / "list.csv", records)
    (tmp_path / "list.txt").write_text("")
    (tmp_path / "empty").mkdir()
    name = argument if argument.startswith("hub:") else str(tmp_path / argument)
    with pytest.raises(UserError, match=said) as caught:
        load_clips(name, split)
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_gives_its_clips(monkeypatch, tmp_path, records):
    import datasets

    rows = [{"audio": {"bytes": (tmp_path / r["file_name"]).read_bytes(), "path": None}} | r for r in records]
    dataset = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "file_name"} for row in rows])
    asked = []
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train.100", "train.360", "test"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: asked.append(split) or dataset)
    data = load_clips("hub:someone/speech:clean", "train", need_text=True)
    assert asked == ["train.100+train.360"]
    with pytest.raises(UserError, match="names the split 'test'"):
        load_clips("hub:someone/speech:clean:test", "validation")
    with pytest.raises(UserError, match="its splits: train.100, train.360, test"):
        load_clips("hub:someone/speech:clean", "dev")
    assert [clip.text for clip in data.clips] == ["null", "007", "one"]
    assert [len(clip.read()) for clip in data.clips] == [4_000, 4_001, 4_002]
