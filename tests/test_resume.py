"""A run that is stopped from outside goes on, from the same command, as if it had never stopped."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest
from conftest import RUNS, save_teacher
from stopped_runs import SETTINGS, outcome

from hf_distilhubert.checkpoints import Checkpoints

KILL = signal.SIGKILL


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher whose student has dropout, which a run that goes on must draw as one that never stopped."""
    return save_teacher(tmp_path / "teacher", hidden_dropout=0.1, attention_dropout=0.1)


@pytest.fixture
def command(teacher, spoken, tmp_path):
    """The command in one or more real processes, stopped from outside."""

    def call(name: str, stop: dict | None = None, processes: int = 1, **changes) -> dict:
        flags = {"teacher": teacher, "data": spoken, "output_dir": tmp_path / name} | SETTINGS | changes
        words = []
        for flag, value in flags.items():
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
        every = {"ranks": list(range(processes)), "delay": 0.0, "count": 1}
        stop = stop and every | stop
        return RUNS.ask(flags=words, output=str(tmp_path / "output"), processes=processes, stop=stop)

    return call


def kill_until_done(command, name: str, kills: list[dict], folder: Path, **changes) -> list[list[str]]:
    """Kill a run again and again, then let it end; what lay beside it after each kill."""
    seen = []
    for stop in kills:
        answer = command(name, {"number": KILL} | stop, **changes)
        assert set(answer["statuses"]) == {-KILL}, answer["printed"]
        seen.append(sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [])
    answer = command(name, **changes)
    assert set(answer["statuses"]) == {0}, answer["printed"]
    assert "going on from" in answer["printed"][0]
    assert not folder.exists()
    return seen


def random_kills(number: int, seed: int) -> list[dict]:
    """Some in a step or soon after it, some while a checkpoint is being written."""
    generator = random.Random(seed)
    turns = [{"event": "step", "count": count} for count in (1, 2, 3)] + [{"event": "save"}] * 3
    return [generator.choice(turns) | {"delay": generator.uniform(0, 0.06)} for _ in range(number)]


@pytest.mark.slow
def test_killed_twenty_times_it_ends_bit_for_bit_as_if_left_alone(command, tmp_path):
    alone = command("alone", max_steps=40)
    assert alone["statuses"] == [0], alone["printed"]
    folder = tmp_path / "killed.checkpoints"
    seen = kill_until_done(command, "killed", random_kills(20, seed=0), folder, max_steps=40)
    assert sum(any(name.endswith(".partial") for name in names) for names in seen) >= 3
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "alone")


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"num_workers": 2}, id="workers"),
        pytest.param({"accumulation": 2}, id="parts"),
        pytest.param({"processes": 2}, id="two-processes"),
        # With more than two, rounding depends on the order of the sum.
        pytest.param({"processes": 4}, id="four-processes", marks=pytest.mark.slow),
        pytest.param(
            {"streaming": "true", "num_workers": 2, "processes": 2}, id="streamed", marks=pytest.mark.slow
        ),
    ],
)
def test_killed_it_ends_as_if_left_alone_in_every_layout(command, tmp_path, layout):
    alone = command("alone", **layout)
    assert set(alone["statuses"]) == {0}, alone["printed"]
    kills = [{"event": "step", "count": 6, "delay": 0.01}, {"event": "save", "delay": 0.02}]
    kills = kills[: 1 if layout.get("processes", 1) > 2 else 2]  # many processes take long to start
    kill_until_done(command, "killed", kills, tmp_path / "killed.checkpoints", **layout)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "alone")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_says_how_to_go_on_and_does(command, tmp_path, number, status):
    command("alone")
    # In between two checkpoints: the stop is what saves this one.
    answer = command("stopped", {"event": "step", "count": 5, "number": number}, num_workers=2)
    assert answer["statuses"] == [status], answer["printed"]
    assert "the same command (without --overwrite) goes on from there" in answer["printed"][0]
    (newest,) = [path for path in Checkpoints(tmp_path / "stopped").named() if path.name > "step-00000004"]
    assert newest.name in answer["printed"][0]
    assert command("stopped")["statuses"] == [0]
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "alone")


def test_a_signal_to_one_process_stops_all_and_another_number_of_processes_goes_on(command, tmp_path):
    answer = command(
        "stopped", {"event": "step", "count": 3, "number": signal.SIGTERM, "ranks": [1]}, processes=2
    )
    assert answer["statuses"] == [0, 0], answer["printed"]
    answer = command("stopped")
    assert answer["statuses"] == [0], answer["printed"]
    assert "2 processes before, 1 now" in answer["printed"][0]
    steps = [json.loads(line)["step"] for line in (tmp_path / "stopped" / "log.jsonl").open()]
    assert steps == [0, 3, 4, 6, 8, 9, 12, 12]
