"""Transcripts as text, JSON, tables and subtitles; files, folders, patterns and standard input."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import LARGE, save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distilhubert import Transcriber, UserError
from hf_distilhubert.subtitles import LINE, LINES, LONGEST, PAUSE, cues, srt, vtt
from hf_distilhubert.transcribe import main
from hf_distilhubert.transcripts import Character, Transcript, Word, join_word


def word(text: str, start: float, end: float) -> Word:
    step = (end - start) / len(text)
    spread = [Character(c, start + i * step, start + (i + 1) * step, 0.5) for i, c in enumerate(text)]
    return join_word(spread)


# ----- subtitles ------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abcé漢", min_size=1, max_size=60), st.floats(0.02, 3), st.floats(0, 2)),
        max_size=30,
    )
)
def test_every_word_is_shown_once_in_cues_that_can_be_read(said):
    words, time = [], 0.0
    for text, length, gap in said:
        words.append(word(text, time + gap, time + gap + length))
        time += gap + length
    found = cues(words)
    assert "".join("".join(cue.lines) for cue in found).replace(" ", "") == "".join(w.text for w in words)
    for cue, following in zip(found, [*found[1:], None], strict=False):
        assert 1 <= len(cue.lines) <= LINES
        assert all(len(line) <= LINE for line in cue.lines)
        assert cue.end - cue.start <= LONGEST + 1e-6
        assert following is None or cue.end <= following.start + 1e-6


def test_a_cue_ends_at_a_pause_and_stays_for_a_second():
    words = [word("one", 0.0, 0.2), word("two", 0.3, 0.5), word("three", 0.5 + PAUSE + 0.01, 1.5)]
    first, second = cues(words)
    assert (first.lines, first.start, first.end) == (("one two",), 0.0, 1.0)
    assert (second.lines, second.end) == (("three",), pytest.approx(2.31))


def test_a_cue_ends_where_two_lines_are_full():
    words = [word("abcdefghij", number / 10, number / 10 + 0.1) for number in range(10)]
    three, rest = ["abcdefghij"] * 3, ["abcdefghij"]
    assert [cue.lines for cue in cues(words)] == [(" ".join(three),) * 2, (" ".join(three), *rest)]


def test_subtitles_are_what_players_read():
    words = (word("a<b", 0.0, 0.5), word("c", 3_661.25, 3_663.5))
    transcript = Transcript("x.wav", "a<b c", 4_000.0, words)
    assert srt(transcript) == (
        "1\n00:00:00,000 --> 00:00:01,000\na<b\n\n2\n01:01:01,250 --> 01:01:03,500\nc\n\n"
    )
    assert vtt(transcript) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na&lt;b\n\n01:01:01.250 --> 01:01:03.500\nc\n\n"
    )


# ----- the command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A recogniser, and three recordings in a tree."""
    folder = tmp_path_factory.mktemp("place")
    save_recogniser(folder / "recogniser", **LARGE)
    generator = np.random.default_rng(0)
    for name, rate in (("clips/b.wav", 8_000), ("clips/deep/a.flac", 44_100), ("clips/deep/c.ogg", 16_000)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, generator.uniform(-0.3, 0.3, (rate, 2)), rate)
    (folder / "clips" / "notes.md").write_text("no audio")
    return folder


@pytest.fixture
def transcribe(place, capsys, monkeypatch):
    """Run the command in the folder; what it prints."""
    monkeypatch.chdir(place)

    def run(*arguments: str) -> str:
        main(["--model", "recogniser", *arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def texts(place) -> dict[str, str]:
    transcriber = Transcriber(place / "recogniser")
    names = ("clips/b.wav", "clips/deep/a.flac", "clips/deep/c.ogg")
    return {name: transcriber.transcribe(place / name).text for name in names}


def test_files_folders_patterns_and_standard_input(place, transcribe, texts, monkeypatch):
    assert transcribe("clips/b.wav") == f"{texts['clips/b.wav']}\n"
    every = "".join(f"{name}\t{text}\n" for name, text in texts.items())
    assert transcribe("clips") == transcribe("clips/**/*.[wfo]*") == transcribe(*texts) == every

    class Stream:
        buffer = io.BytesIO((place / "clips/deep/a.flac").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stream)
    assert transcribe("-") == f"{texts['clips/deep/a.flac']}\n"


def test_json_is_a_line_for_each_file_and_a_table_a_line_for_each_word(transcribe, texts):
    found = [json.loads(line) for line in transcribe("--format", "json", "clips").splitlines()]
    assert {entry["audio"]: entry["text"] for entry in found} == texts
    assert [entry["seconds"] for entry in found] == [1.0] * 3
    header, *rows = transcribe("--format", "tsv", "clips").splitlines()
    assert header.split("\t") == ["audio", "start", "end", "word", "confidence"]
    words = [
        [entry["audio"], word["text"], word["start"], word["end"]]
        for entry in found
        for word in entry["words"]
    ]
    fields = [row.split("\t") for row in rows]
    assert [[audio, text, float(start), float(end)] for audio, start, end, text, _ in fields] == words


def test_a_folder_gets_one_file_for_each_audio(place, transcribe, texts):
    assert transcribe("--format", "srt", "--output", "subtitles", "clips") == ""
    there = {str(path.relative_to(place)) for path in (place / "subtitles").rglob("*.*")}
    assert there == {"subtitles/b.srt", "subtitles/deep/a.srt", "subtitles/deep/c.srt"}
    shown = (place / "subtitles/b.srt").read_text().split("\n\n")
    assert " ".join(line for cue in shown for line in cue.splitlines()[2:]) == texts["clips/b.wav"]
    assert transcribe("--output", "all.txt", "clips") == ""
    assert (place / "all.txt").read_text() == "".join(f"{name}\t{text}\n" for name, text in texts.items())
    with pytest.raises(UserError, match=re.escape("subtitles/b.srt exists already")):
        transcribe("--format", "srt", "--output", "subtitles", "clips/b.wav")


def test_a_given_text_is_aligned(place, transcribe):
    (place / "said.txt").write_text("One, two\nthree!")
    (entry,) = map(
        json.loads, transcribe("--format", "json", "--align", "said.txt", "clips/b.wav").splitlines()
    )
    assert entry["text"] == "One, two three!"
    assert [word["text"] for word in entry["words"]] == ["One,", "two", "three!"]
    assert [len(word["characters"]) for word in entry["words"]] == [3, 3, 5]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--format", "vtt", "clips"), "a vtt file holds one transcript; give --output FOLDER for 3 files"),
        (("--output", "recogniser/config.json", "clips"), "exists already"),
        (("--output", "recogniser/config.json/x.txt", "clips"), "no folder to write in"),
        (("--output", "two", "clips/b.wav", "clips/b.wav"), "would both be written to two/b.txt"),
        (("empty",), "empty holds no audio"),
        (("clips/*.mp3",), "there is no file like"),
        (("-", "-"), "once only"),
        (("--align", "said.txt", "clips"), "for one audio file, not 3"),
        (("--align", "absent.txt", "clips/b.wav"), "cannot read the text absent.txt"),
        (("--batch_size", "0", "clips"), "give a number from 1"),
        (("--format", "doc", "clips"), "invalid choice: 'doc'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_done_is_said_before_any_work(place, transcribe, arguments, complaint):
    (place / "empty").mkdir(exist_ok=True)
    (place / "said.txt").write_text("one")
    before = sorted(place.rglob("*"))
    with pytest.raises(UserError, match=re.escape(complaint)):
        transcribe(*arguments)
    assert sorted(place.rglob("*")) == before
