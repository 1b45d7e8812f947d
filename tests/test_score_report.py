"""The page of a score: it needs nothing else, plays every utterance, and runs no stranger's text."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile

import finetune.report as report
from finetune.against import Difference
from finetune.alignments import align, error_counts, most_confused
from finetune.comparison import Score, Utterance
from finetune.groups import Rates, grouped
from finetune.report import write_report
from hf_distilhubert.speech_data import Clip

RATE = 16_000
HOSTILE = "<script>alert(1)</script>"
TEXTS = {  # file name: what was said, what was written
    "one.wav": ("one two", "one two"),
    "quote'and\"double, #100%.wav": (f"five {HOSTILE} nine", "nine <img src=x onerror=alert(1)>"),
    "javascript:alert(1).wav": ("'\"><b> &amp; one", "one"),
    "слово \u202e.wav": ("שלום עולם", "שלום"),
}
TITLE = {"model": f"model {HOSTILE}", "data": "data", "split": '"><script>'}


class Page(HTMLParser):
    """What a browser would make of it: tags with attributes, and text outside of style and script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._within = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._within in ("style", "script") else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("sound")
    generator = np.random.default_rng(0)
    found = []
    for name, (reference, _) in TEXTS.items():
        soundfile.write(folder / name, generator.uniform(-0.1, 0.1, 4_000), RATE)
        found.append(Clip(name, folder / name, 4_000, reference, f"speaker {HOSTILE}", (HOSTILE,)))
    return found


@pytest.fixture(scope="module")
def result(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Score:
    return make_score(tmp_path_factory.mktemp("score"), clips)


def make_score(folder: Path, clips: list[Clip]) -> Score:
    """A score as `compare` makes it, without a model."""
    references, hypotheses = [list(side) for side in zip(*TEXTS.values(), strict=True)]
    words = align(references, hypotheses)
    characters = align(references, hypotheses, characters=True)
    utterances = []
    for clip, steps, letters, text in zip(clips, words, characters, hypotheses, strict=True):
        own, small = error_counts(steps), error_counts(letters)
        kinds = (own.substitutions, own.deletions, own.insertions, small.errors, small.total)
        utterances.append(
            Utterance(
                clip.clip_id,
                str(clip.speaker),
                0.25,
                str(clip.text),
                text,
                own.errors,
                own.total,
                *kinds,
                {"accent": clip.columns[0]},
            )
        )
    whole = Rates.of(utterances)
    values = dict.fromkeys(Score.__dataclass_fields__, 0) | vars(whole)
    values |= {
        "folder": folder,
        "utterances": tuple(utterances),
        "groups": grouped(utterances),
        "word_confusions": most_confused(words, 20),
        "character_confusions": most_confused(characters, 20),
        "unknown_characters": {"<": 2},
        "against": None,
    }
    return Score(**values)


def page(score: Score, clips: list[Clip], embed_audio: int | None = None) -> Page:
    path = score.folder / "report.html"
    write_report(path, score, clips, title=TITLE, embed_audio=embed_audio)
    return Page(path)


def test_what_files_say_is_text_and_never_markup(result: Score, clips: list[Clip]) -> None:
    found = page(result, clips)
    assert len(found.all("script")) == 1
    assert not found.all("img")
    assert not found.all("b") or all("style" in attributes for attributes in found.all("b"))
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert HOSTILE in found.text
    assert "<img" in found.text


def test_the_page_needs_nothing_from_elsewhere(result: Score, clips: list[Clip]) -> None:
    found = page(result, clips)
    text = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert not found.all("link")
    assert [a.get("src") for a in found.all("script")] == [None]
    (policy,) = [a["content"] for a in found.all("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_every_utterance_is_listed_worst_first_with_its_figures(result: Score, clips: list[Clip]) -> None:
    listed = page(result, clips).all("li")
    by_clip = {utterance.clip: utterance for utterance in result.utterances}
    assert sorted(a["data-clip"] for a in listed) == sorted(by_clip)
    assert [int(a["data-errors"]) for a in listed] == sorted(
        (u.errors for u in result.utterances), reverse=True
    )
    for attributes in listed:
        utterance = by_clip[attributes["data-clip"]]
        assert float(attributes["data-wer"]) == utterance.errors / utterance.words
        for text in (utterance.reference, utterance.hypothesis, utterance.speaker, HOSTILE):
            assert text in attributes["data-text"]


def test_alignments_mark_what_was_said_and_what_was_written(result: Score, clips: list[Clip]) -> None:
    found = page(result, clips)
    kinds = [a["class"].split()[1] for a in found.all("span") if (a.get("class") or "").startswith("step ")]
    steps = align([u.reference for u in result.utterances], [u.hypothesis for u in result.utterances])
    assert sorted(kinds) == sorted(step.kind for one in steps for step in one)
    wrong = sum(kind != "equal" for kind in kinds)
    assert len(found.all("del")) == len(found.all("ins")) == wrong == sum(u.errors for u in result.utterances)


def test_players_find_their_clips_from_where_the_page_lies(result: Score, clips: list[Clip]) -> None:
    found = page(result, clips)
    sources = [a["src"] for a in found.all("audio")]
    assert all(a["preload"] == "none" and "controls" in a for a in found.all("audio"))
    assert not any(source.startswith("/") or ":" in source for source in sources)
    played = {(result.folder / unquote(source)).resolve() for source in sources}
    assert played == {clip.audio.resolve() for clip in clips}


def test_embedded_sound_is_that_of_the_worst_and_the_page_names_no_file(
    result: Score, clips: list[Clip]
) -> None:
    found = page(result, clips, embed_audio=2)
    sources = [a["src"] for a in found.all("audio")]
    assert len(sources) == 2
    by_name = {clip.clip_id: clip for clip in clips}
    worst = [by_name[a["data-clip"]] for a in found.all("li")[:2]]
    for source, clip in zip(sources, worst, strict=True):
        kind, encoded = source.split(",", 1)
        assert kind == "data:audio/flac;base64"
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="float32")
        assert rate == RATE
        assert np.abs(sound - clip.read()).max() <= 1 / 2**15
    assert not page(result, clips, embed_audio=0).all("audio")


def test_clips_that_are_no_files_have_no_player(result: Score, clips: list[Clip]) -> None:
    in_memory = [replace(clip, audio=clip.audio.read_bytes()) for clip in clips]
    assert not page(result, in_memory).all("audio")
    assert len(page(result, in_memory, embed_audio=1).all("audio")) == 1


def test_long_lists_are_cut_and_say_so(
    result: Score, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"speaker": {f"s{number}": Rates.of(result.utterances) for number in range(4)}}
    monkeypatch.setattr(report, "MAX_LISTED", 2)
    monkeypatch.setattr(report, "MAX_GROUPS", 3)
    found = page(replace(result, groups=groups), clips)
    assert len(found.all("li")) == 2
    assert "The 2 with most errors of 4" in found.text
    assert "The 3 with the highest WER; results.json has all 4" in found.text


def test_figures_and_the_comparison_are_on_the_page(result: Score, clips: list[Clip]) -> None:
    against = Difference("other", 3, 9, 0.5, 0.25, 0.25, (-0.01, 0.5), 0.0312, "utterances", ("a<b.wav",), ())
    score = replace(result, wer=0.1234, wer_interval=(0.1, 0.2), cer_interval=None, against=against)
    text = page(score, clips).text
    assert "12.3 %" in text
    assert "10.0 to 20.0 %" in text
    assert "not known" in text
    assert "+25.0 points" in text
    assert "(95 %: -1.0 to +50.0)" in text
    assert "p = 0.0312" in text
    assert "a<b.wav" in text
    assert "The vocabulary lacks characters of the references, which count as errors: < (2)." in text
