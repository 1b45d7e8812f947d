"""Files that are not what they should be: one clear line, or a card without what they do not say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cards import FINETUNE, make_bare, make_recogniser, make_student, named_figures, write
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_distilhubert.errors import UserError
from model_card.render import render

ODD = [
    None,
    True,
    0,
    -1,
    7,
    1.5,
    -0.0,
    1e308,
    10**40,
    "",
    "x",
    "\ud800|`<b>",
    [],
    [0],
    ["a"],
    [[]],
    {},
    {"a": 1},
]
ODD += [{"wer": "a lot"}, [None], float("nan"), float("inf"), {"": {"": {"": 1}}}]


@pytest.fixture(autouse=True)
def _pictures_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_card.figures.draw_figures", named_figures)


def outcome(folder: Path) -> tuple[str, str]:
    """The card, or what is wrong in one line."""
    try:
        return render(folder).text, ""
    except UserError as error:
        return "", str(error)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return make_bare(tmp_path / "bare")


@pytest.mark.parametrize(
    "mistake", ["no folder", "no config", "broken results", "broken log", "results of another kind"]
)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake: str, bare: Path) -> None:
    if mistake == "no folder":
        bare = bare / "missing"
    elif mistake == "no config":
        (bare / "config.json").unlink()
    elif mistake == "broken log":
        (bare / "log.jsonl").write_text('{"step": 1}\n{"step": ')
    else:
        (bare / "results.json").write_text('{"wer": ' if mistake == "broken results" else "[1]")
    with pytest.raises(UserError, match=r"give|take it away") as error:
        render(bare)
    assert "\n" not in str(error.value)
    assert not (bare / "README.md").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores/test/results.json", {"wer": "a lot"}, "wer is not a number"),
        ("scores/test/results.json", {"groups": {"speaker": [1]}}, "groups.speaker is not an object"),
        (
            "scores/test/results.json",
            {"character_confusions": {"deletions": [{"reference": "a", "hypothesis": ""}]}},
            "character_confusions.deletions.0 has no count",
        ),
        ("lineage.json", [{"stage": "distill"}, 1], "1 is not an object"),
        ("lineage.json", [{"final": {"l1": {"4": True}}}], "0.final.l1.4 is not a number"),
        ("results.json", FINETUNE | {"vocabulary": "abc"}, "vocabulary is not a list"),
        (
            "benchmark.json",
            {"ways": [{"times": {"1 s": {"cpu": []}}}]},
            "ways.0.times.1 s.cpu is not a number",
        ),
        ("text.json", ["basic"], "what it holds is not an object"),
        ("config.json", {"architectures": "HubertForCTC"}, "architectures is not a list; write it again by"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(
    name: str, value: Any, message: str, bare: Path
) -> None:
    write(bare, name, value)
    with pytest.raises(UserError, match=re.escape(f"{name}: {message}")):
        render(bare)
    assert not (bare / "README.md").exists()


def test_an_unknown_key_may_hold_anything(bare: Path) -> None:
    write(bare, "results.json", FINETUNE | {"my own": [1, {"a": None}], "final": None})
    assert "409 steps" in render(bare).text


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a": 1' + "0" * 10_000 + "}", "\x00", "\ufeff{}", '{"steps": 1e400}'],
    ids=range(5),
)
def test_json_that_breaks_parsers_is_no_traceback(text: str, bare: Path) -> None:
    (bare / "results.json").write_text(text, encoding="utf-8")
    text, error = outcome(bare)
    assert text or "results.json is not JSON" in error


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a file's value, the whole first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


GOLDEN = ROOT / "tests" / "golden_cards"
FILES = sorted(f"{path.relative_to(GOLDEN)}" for path in GOLDEN.rglob("*.json"))
FILES += [f"whole/{name}.json" for name in ("comparison", "examples", "scores/test/results", "benchmark")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind, as its stages left it, and one with everything that there may be."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    make_recogniser(folder / "whole")
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(FILES), odd=st.sampled_from(ODD))
def test_any_value_at_any_place_gives_a_card_or_one_line(
    data: st.DataObject, name: str, odd: Any, models: Path
) -> None:
    path = models / name
    before = path.read_text()
    value = json.loads(before)
    place = data.draw(st.sampled_from(list(places(value))))
    path.write_text(json.dumps(changed(value, place, odd)))
    try:
        text, error = outcome(models / name.split("/")[0])
    finally:
        path.write_text(before)
    assert not re.search(
        r"\b(None|nan|inf|null|Undefined)\b", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    assert bool(text) is not (str(path) in error)
    assert "\n" not in error


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from([*FILES, "student/log.jsonl"]))
def test_any_damaged_bytes_give_a_card_or_one_line(data: st.DataObject, name: str, models: Path) -> None:
    path = models / name
    before = path.read_bytes()
    start = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(start, min(len(before), start + 40)))
    path.write_bytes(before[:start] + data.draw(st.binary(max_size=8)) + before[end:])
    try:
        text, error = outcome(models / name.split("/")[0])
    finally:
        path.write_bytes(before)
    assert bool(text) is not (str(path) in error)
    assert "\n" not in error


def test_a_student_without_any_figure_is_no_mistake(tmp_path: Path) -> None:
    folder = make_student(tmp_path / "student")
    write(folder, "lineage.json", [{"stage": "distill", "target_layers": [], "final": {}, "hardware": {}}])
    (folder / "log.jsonl").write_text("\n")
    assert "1. **Distilled**.\n" in render(folder).text
