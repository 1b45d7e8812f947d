"""The figures of a card: drawn where there is data, the same each time, readable by everyone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from hf_distilhubert import glyphs
from hf_distilhubert.figure_style import DARK, LIGHT, Theme
from model_card import figures
from model_card.facts import Facts
from model_card.figures import draw_figures


def rates(wer: float) -> dict[str, Any]:
    return {"utterances": 10, "words": 50, "wer": wer, "wer_interval": [wer - 0.05, wer + 0.1]}


def confusion(reference: str, hypothesis: str, count: int = 3) -> dict[str, Any]:
    return {"reference": reference, "hypothesis": hypothesis, "count": count, "said": 7 * count}


SPEAKERS = {"anna": rates(0.2), "berta": rates(1.3)}
LENGTHS = {"under 1 s": rates(0.9), "1 to 2 s": {"words": 3, "wer": 0.0}}
SCORE = {
    "split": "test",
    **rates(0.75),
    "groups": {"speaker": SPEAKERS, "clip length": LENGTHS},
    "character_confusions": {
        "substitutions": [confusion("a", "e", 9), confusion(" ", "o")],
        "deletions": [confusion("t", "", 5)],
        "insertions": [],
    },
}
LOSSES = [{"step": 5, "loss": 2.0, "l1": {"4": 1.5}, "cosine": {"4": 0.5}}, {"step": 9}]
TRAINING = [{"step": 5, "loss": 2.0}, {"step": 9, "eval_loss": 1.0, "eval_wer": 1.2, "eval_cer": 0.4}]
ROWS = [
    {"model": "teacher", "wer": 0.0821, "cer": 0.03, "num_parameters": 2e6},
    {"model": "new", "wer": 1.04},
]


def way(name: str, seconds: float, **more: Any) -> dict[str, Any]:
    times = {work: {"wall": seconds, "cpu": seconds, "turns": 3} for work in ("5 s", "16 mixed")}
    return {"name": name, "times": times, "audio": {"5 s": 5.0, "16 mixed": 90.0}, "deviations": {}} | more


BENCHMARK = {
    "clock": "cpu",
    "machine": {"threads": 1},
    "ratios": {"FastEncoder float32": {}},
    "ways": [
        way("FastEncoder float32", 0.1, file_bytes=94e6, deviations={"5 s": 3e-7, "16 mixed": 4e-7}),
        way("another", 0.25),
    ],
}


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Of a recogniser of which everything is known."""
    measured = {"scores": {"test": SCORE}, "comparison": {"rows": ROWS}, "benchmark": BENCHMARK}
    return Facts(folder=tmp_path, name="model", config={}, log=TRAINING, **measured)


def bare(facts: Facts) -> Facts:
    return Facts(folder=facts.folder, name="model", config={})


def test_every_figure_is_drawn_for_both_pages_and_told_in_words(facts: Facts, tmp_path: Path) -> None:
    found = draw_figures(facts, tmp_path) | draw_figures(replace(bare(facts), log=LOSSES), tmp_path)
    assert list(found) == [
        *("training", "wer_by_length", "wer_by_speaker", "confusions", "speed", "comparison", "losses")
    ]
    drawn = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert drawn == {name for figure in found.values() for name in (figure.light, figure.dark)}
    for figure in found.values():
        for name, theme in ((figure.light, LIGHT), (figure.dark, DARK)):
            with Image.open(tmp_path / name) as picture:
                assert picture.width == 1600
                assert "Software" not in picture.info
                corner = "#{:02X}{:02X}{:02X}".format(*picture.getpixel((0, 0))[:3])
                assert corner == theme.background
    told = {
        "losses": "cosine loss by layer, step 5 to 5: 4 0.500 to 0.500",
        "training": "WER in evaluation 120.0 % at step 9",
        "wer_by_length": "under 1 s 90.0 % [85.0, 100.0]; 1 to 2 s 0.0 %; all 75.0 %",
        "wer_by_speaker": "anna 20.0 % [15.0, 30.0]; berta 130.0 %",
        "confusions": "a → e 9 times, space → o 3 times; left out: t 5 times.",
        "speed": "FastEncoder float32 50.0 (94.0 MB, off by 3.0e-07); another 20.0.",
        "comparison": "teacher: WER 8.3 %, CER 3.0 %, parameters 2.00 M; new: WER 104.0 %, CER not measured",
    }
    assert {name: text in found[name].alt for name, text in told.items()} == dict.fromkeys(told, True)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"log": [{"step": 3}, {"step": 4, "l1": {}, "learning_rate": 0.1}]},
        {"scores": {"test": {"split": "test"}}},
        {
            "scores": {
                "test": {"groups": {"speaker": {"anna": rates(0.2)}, "clip length": {"1 to 2 s": rates(0.2)}}}
            }
        },
        {"scores": {"test": {"character_confusions": {"substitutions": [], "deletions": []}}}},
        {"benchmark": {"clock": "cpu", "machine": {"threads": 1}, "ratios": {}, "ways": []}},
        {"benchmark": {**BENCHMARK, "ways": [*BENCHMARK["ways"], {**way("a third", 1.0), "times": {}}]}},
        {"comparison": {"rows": []}},
    ],
)
def test_where_there_is_nothing_to_compare_nothing_is_drawn(known: dict[str, Any], facts: Facts) -> None:
    assert draw_figures(replace(bare(facts), **known), facts.folder) == {}
    assert not list(facts.folder.iterdir())


def test_the_same_facts_give_the_same_bytes_whatever_a_notebook_has_set(facts: Facts, tmp_path: Path) -> None:
    one = replace(bare(facts), comparison=facts.comparison)
    with mpl.rc_context({"font.size": 30, "axes.linewidth": 9}):
        draw_figures(one, tmp_path)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    draw_figures(one, tmp_path)
    assert {path: path.read_bytes() for path in first} == first


def test_an_error_leaves_the_figures_that_were_there(facts: Facts, tmp_path: Path, monkeypatch: Any) -> None:
    one = replace(bare(facts), log=TRAINING, comparison=facts.comparison)
    draw_figures(one, tmp_path)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "draw_comparison", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_figures(replace(one, log=TRAINING[:1]), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_a_test_split_goes_before_a_larger_one() -> None:
    scores = {"train": {"words": 9_000}, "test-other": {"words": 4}, "dev": {"words": 3}}
    assert figures.drawn_score(scores)["split"] == "test-other"
    assert figures.drawn_score({"train": {"words": 9}, "dev": {"words": 3}})["split"] == "train"


def test_very_many_speakers_are_drawn_in_the_order_of_their_rates(facts: Facts, tmp_path: Path) -> None:
    crowd = {f"speaker{number}": rates((number % 300) / 200) for number in range(7, 307)}
    one = replace(
        bare(facts), scores={"test": {**SCORE, "groups": {"speaker": crowd}, "character_confusions": {}}}
    )
    figure = draw_figures(one, tmp_path)["wer_by_speaker"]
    assert "300 of them; lowest 0.0 %; median 75.0 %; highest 149.5 %; all 75.0 %" in figure.alt
    with Image.open(tmp_path / figure.light) as picture:
        assert picture.height < 1_000


def test_characters_of_every_script_are_drawn_without_boxes(facts: Facts, tmp_path: Path) -> None:
    strange = [
        "中",
        "ก",
        "\N{COMBINING ACUTE ACCENT}",
        "\N{THAI CHARACTER MAI HAN-AKAT}",
        "\n",
        "\u200d",
        "$",
    ]
    pairs = [confusion(character, "$") for character in strange]
    one = replace(
        bare(facts), scores={"test": {**SCORE, "groups": {}, "character_confusions": {"deletions": pairs}}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "left out: 中 → $" in draw_figures(one, tmp_path)["confusions"].alt


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """The fonts that are installed, and what they can draw."""
    installed = {glyphs.FIRST: set("abc\N{COMBINING ACUTE ACCENT}")}
    others = lambda: sorted(installed.keys() - {glyphs.FIRST})  # noqa: E731
    glyphs._family.cache_clear()
    monkeypatch.setattr(glyphs, "_others", others)
    monkeypatch.setattr(glyphs, "_characters", lambda name: {ord(character) for character in installed[name]})
    yield installed
    glyphs._family.cache_clear()


def test_a_font_that_has_a_character_is_found_and_else_its_number_is_drawn(
    fonts: dict[str, set[str]],
) -> None:
    assert glyphs.legible("a中") == "aU+4E2D"
    assert glyphs.legible("\N{COMBINING ACUTE ACCENT}") == "\N{DOTTED CIRCLE}\N{COMBINING ACUTE ACCENT}"
    assert glyphs.families(["a中"]) == [glyphs.FIRST]
    glyphs._family.cache_clear()
    fonts["Song"] = set("中文")
    assert glyphs.legible("a中") == "a中"
    assert glyphs.families(["a中", "文"]) == [glyphs.FIRST, "Song"]


# How the cones of other eyes see linear RGB, Machado et al. (2009), at full severity.
EYES = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    values = XYZ @ rgb / XYZ.sum(axis=1)
    x, y, z = np.where(values > 0.008856, np.cbrt(values), 7.787 * values + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_differ_for_all_eyes_and_stand_out_from_the_page(theme: Theme) -> None:
    for eyes in EYES.values():
        seen = [lab(np.clip(np.array(eyes) @ linear(colour), 0, 1)) for colour in theme.colours]
        assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) >= 35
    page, *lights = (float(XYZ[1] @ linear(colour)) for colour in (theme.background, *theme.colours))
    assert min((max(page, light) + 0.05) / (min(page, light) + 0.05) for light in lights) >= 3.3
