"""Every failure of the Hub at every step: a push leaves all as before or whole, a pull takes no half.

`REWRITE_PAGES=1 python -m pytest tests/test_push_failures.py` writes docs/hub-failures.md anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ENVIRONMENT, ROOT
from failures_page import page
from push_failures import KINDS, SCENARIOS

PAGE = ROOT / "docs" / "hub-failures.md"
Found = list[dict[str, Any]]


def run(script: str, folder: Path) -> Found:
    """What a script of this folder found, in a process of its own, whose Hub is not the suite's."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / script, folder],
        env={name: value for name, value in ENVIRONMENT.items() if not name.startswith("HF_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run("push_failures.py", tmp_path_factory.mktemp("pushes"))


def name(case: dict[str, Any]) -> str:
    way = case.get("scenario") or case["way"]  # of a push, of a pull
    return f"{way}, {case['step']}: {case['kind']}{', for ever' * case['for_ever']}"


def test_every_failure_happens_at_every_step(pushes):
    met = {(case["scenario"], case["step"], case["kind"]) for case in pushes if case["met"]}
    for scenario, (_, _, steps, kinds) in SCENARIOS.items():
        assert {(scenario, step, kind) for step in steps for kind in kinds} <= met
    # Where nothing is new, one failure of each sort is enough; elsewhere it is all of them.
    assert SCENARIOS["new"][3] == KINDS


def test_the_repository_is_as_before_or_whole_and_a_message_says_which(pushes):
    for case in pushes:
        expected = ("whole",) if case["message"] is None else ("as before", "made, empty")
        assert case["state"] in expected, name(case)


def test_what_was_made_stays_only_where_the_hub_does_not_let_it_go_and_is_told(pushes):
    for case in pushes:
        told = "may still be in someone/model, empty" in (case["message"] or "")
        assert told or case["state"] != "made, empty", name(case)
        assert not told or (case["for_ever"] and case["step"] in ("every", "info", "delete")), name(case)


def test_one_failure_that_passes_is_waited_out(pushes):
    passing = ("503", "429", "slow", "cut request", "cut answer", "lost answer", "no JSON")
    for case in pushes:
        if not case["for_ever"]:
            assert (case["message"] is None) == (case["kind"] in passing), name(case)


def test_each_message_is_one_line_with_a_remedy(pushes):
    for case in pushes:
        if case["message"] is not None:
            assert "\n" not in case["message"], name(case)
            assert len(case["message"]) < 400, name(case)
            assert "; " in case["message"], name(case)


def test_the_next_push_makes_it_whole_and_sends_nothing_twice(pushes):
    for case in pushes:
        assert case["again"] is None, name(case)
        assert case["whole"], name(case)
        assert not case["sent_twice"], name(case)
        # Also where a commit was made and only its answer was lost.
        assert case["commits"] == 1, name(case)


# ----- the other way: loading what is there ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pulls(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run("pull_failures.py", tmp_path_factory.mktemp("pulls"))


def test_what_is_cut_off_is_never_taken_for_whole(pulls):
    for case in pulls:
        assert case["met"], name(case)
        assert case["first"] != "other content", name(case)
        # Ours says it in one line.
        expected = ("the same", "UserError") if case["way"] == "checkpoint" else ("the same", "OSError")
        if case["kind"] != "wrong bytes":
            assert case["first"] in expected, name(case)


def test_the_next_load_is_whole_unless_the_client_keeps_other_bytes(pulls):
    for case in pulls:
        # huggingface_hub compares the sizes of what it downloads, and Transformers nothing.
        kept = case["way"] == "weights" and case["kind"] == "wrong bytes" and case["step"] == "resolve"
        assert (case["again"] == "the same") != kept, name(case)


def test_the_page_of_failures_shows_what_happens(pushes, pulls):
    text = page(pushes, pulls)
    if os.environ.get("REWRITE_PAGES"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text
