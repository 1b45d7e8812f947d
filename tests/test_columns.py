"""Any column of a data set's table comes with its clips when it is asked for, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hf_distilhubert.errors import UserError
from hf_distilhubert.speech_data import load_clips


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        {"file_name": "0.wav", "text": "one", "gender": "F", "age": 30, "speaker": "a"},
        {"file_name": "1.wav", "text": "two", "gender": "F\ud800", "speaker": "\udfff"},
        {"file_name": "2.wav", "text": "two", "gender": None, "age": None},
    ]
    for row in rows:
        soundfile.write(tmp_path / row["file_name"], np.full(4_000, 0.1), 16_000)
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "list.jsonl"


def test_columns_come_as_text_in_the_order_asked_for(manifest: Path) -> None:
    found = load_clips(manifest, columns=["age", "gender"]).clips
    # Half a character cannot be written anywhere.
    assert [clip.columns for clip in found] == [("30", "F"), ("", "F?"), ("", "")]
    assert [clip.speaker for clip in found] == ["a", "?", None]
    assert [clip.columns for clip in load_clips(manifest).clips] == [()] * 3


def test_a_column_that_is_not_there_is_named_with_those_that_are(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'accent'; its columns: file_name, text, gender, age"):
        load_clips(manifest, columns=["gender", "accent"])
    manifest.unlink()
    with pytest.raises(UserError, match=r"no column 'accent'; its columns: none"):
        load_clips(tmp_path, columns=["accent"])


def test_a_table_without_transcripts_is_named_with_its_columns(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"text"', '"words"'))
    with pytest.raises(UserError, match="no transcripts, .* its columns: file_name, words, gender, age"):
        load_clips(manifest, need_text=True)
    assert len(load_clips(manifest).clips) == 3


def test_classes_of_a_hub_data_set_come_by_name(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    sound = {"bytes": (manifest.parent / "0.wav").read_bytes(), "path": None}
    dataset = datasets.Dataset.from_list(
        [{"audio": sound, "text": "one", "gender": 1, "age": 30}, {"audio": sound, "text": "two"}]
    ).cast_column("gender", datasets.ClassLabel(names=["male", "female"]))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["test"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: dataset)
    data = load_clips("hub:someone/speech", "test", columns=["gender", "age", "text"])
    assert [clip.columns for clip in data.clips] == [("female", "30", "one"), ("", "", "two")]
    assert [clip.text for clip in data.clips] == ["one", "two"]
    with pytest.raises(UserError, match="no column 'accent'; its columns: audio, text, gender, age"):
        load_clips("hub:someone/speech", "test", columns=["accent"])
