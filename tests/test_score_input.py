"""Every broken recording and every broken table meets what its list asks for when it is scored."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from conftest import LARGE, ROOT, save_recogniser

import hf_distilhubert.transcriber as transcriber
from finetune.score import score
from hf_distilhubert.errors import UserError

BROKEN = Path(os.environ.get("SPEECH_DIR", ROOT.parent / "shared" / "speech")) / "broken"
# What becomes of each folder of `metadata_cases`: utterances and clips left out, or what the complaint says.
TABLES: dict[str, tuple[int, int] | str] = {
    "good": (4, 0),
    "missing_file": (4, 1),
    "blank_transcription": "0_george_12.flac: its transcript is empty",
    "missing_column": "no transcripts, which belong in a column transcription or text",
    "other_column_name": (4, 0),
    "duplicate_rows": (4, 1),
    "unlisted_file": (3, 0),
    "bom_crlf": (4, 0),
    "latin1": "not UTF-8",
    "semicolon": "its columns: file_name;transcription",
    "tab_separated": "its columns: file_name transcription",
    "quotes_newlines": (4, 0),
    "odd_characters": (4, 0),
    "text_too_long": (4, 0),
    "numbers_only": (4, 0),
    "null_words": (4, 0),
    "path_escape": "leads out of the data set's folder",
    "header_only": "no rows in it",
    "zero_byte": "no rows in it",
    "one_clip": (1, 0),
    "all_bad_audio": "none of 2 clips can be used",
}


def listed(name: str) -> list[dict[str, str]]:
    """The rows of a list in `broken`; none where the folder is missing."""
    path = BROKEN / name
    return list(csv.DictReader(path.open(encoding="utf-8", newline=""))) if path.is_file() else []


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, transcriber.Transcriber]:
    folder = save_recogniser(tmp_path_factory.mktemp("model"), **LARGE)
    return str(folder), transcriber.Transcriber(folder)


@pytest.fixture
def model(loaded: tuple[str, transcriber.Transcriber], monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny recogniser's folder; it is loaded once for all tests."""
    monkeypatch.setattr(transcriber, "Transcriber", lambda _: loaded[1])
    return loaded[0]


def outcome(model: str, data: Path, folder: Path) -> tuple[int, int] | str:
    """Utterances and clips left out of a score that is whole, or the one line of complaint."""
    try:
        result = score(model, str(data), split="all", output_dir=folder / "score")
    except UserError as error:
        assert not (folder / "score").exists()
        return " ".join(str(error).split())
    assert (result.folder / "skipped.jsonl").is_file() == (result.skipped > 0)
    assert result.wer >= 0
    return len(result.utterances), result.skipped


def test_every_table_is_known(speech_dir: Path) -> None:
    assert {row["case"] for row in listed("metadata_cases/cases.csv")} == set(TABLES)


@pytest.mark.parametrize("case", TABLES)
def test_a_broken_table_is_scored_or_refused_as_its_list_asks(
    tmp_path: Path, speech_dir: Path, model: str, case: str
) -> None:
    found = outcome(model, speech_dir / "broken" / "metadata_cases" / case, tmp_path)
    expected = TABLES[case]
    assert expected in found if isinstance(expected, str) else found == expected


@pytest.mark.parametrize("row", listed("manifest.csv"), ids=lambda row: row["file_name"][6:40])
def test_a_broken_recording_is_scored_or_named_as_its_list_asks(
    tmp_path: Path, model: str, row: dict[str, str]
) -> None:
    audio = BROKEN.resolve() / row["file_name"]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "text"), (audio, row["transcription"])])
    found = outcome(model, tmp_path / "list.csv", tmp_path)
    wanted = row["what_a_careful_program_does"]
    if isinstance(found, str):
        assert str(audio) in found
        assert "report" in wanted or "skip" in wanted or wanted.startswith("must not")
    else:
        assert found == (1, 0)
        # What must be reported is not scored in silence, unless using it is allowed too.
        assert not wanted.startswith("report") or "long" in row["defect"], wanted
