"""Fine-tuning that is killed goes on, from the same command, as if it had never stopped."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest
from conftest import RUNS, TINY
from stopped_runs import outcome

KILL = signal.SIGKILL
# Three steps an epoch; what is logged is a mean over steps on both sides of a checkpoint.
FLAGS = {
    "text": "english",
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "logging_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "eval_strategy": "epoch",
    "augment": "true",
    "spec_augment": "true",
    "use_cpu": "true",
    "bf16": "false",
    "pad_multiple": 1_000,
    "learning_rate": 1e-3,
}


@pytest.fixture
def command(spoken: Path, tmp_path: Path):
    """The command in one or more real processes, killed from outside; its model has dropout."""
    shape = tmp_path / "shape.json"
    dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    shape.write_text(json.dumps(TINY | {"num_hidden_layers": 2, "vocab_size": 20} | dropout))

    def call(name: str, stop: dict | None = None, processes: int = 1, **changes) -> dict:
        given = {"data": spoken, "from_scratch": shape, "output_dir": tmp_path / name}
        words = [
            str(word) for flag, value in (given | FLAGS | changes).items() for word in (f"--{flag}", value)
        ]
        every = {"ranks": list(range(processes)), "number": KILL, "delay": 0.0}
        request = {"flags": words, "output": str(tmp_path / "output"), "processes": processes}
        return RUNS.ask(stage="finetune", stop=stop and every | stop, **request)

    return call


def end_after(command, tmp_path: Path, kills: list[dict], **changes) -> list[bool]:
    """Kill a run again and again, then let it end as one left alone; which kills tore a checkpoint."""
    alone = command("alone", **changes)
    assert set(alone["statuses"]) == {0}, alone["printed"]
    folder = tmp_path / "killed.checkpoints"
    torn, again = [], {}
    for stop in kills:
        answer = command("killed", stop, **changes, **again)
        assert set(answer["statuses"]) == {-KILL}, answer["printed"]
        again = {"resume_from_checkpoint": "true"}
        torn.append(any(map(unfinished, folder.iterdir())))
    answer = command("killed", **changes, **again)
    assert set(answer["statuses"]) == {0}, answer["printed"]
    assert not folder.exists()
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "alone")
    return torn


def unfinished(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return True
    return False


def test_killed_in_steps_and_evaluations_it_ends_bit_for_bit_as_if_left_alone(command, tmp_path):
    # In the second epoch, in the evaluation that ends it, and after the last step.
    kills = [
        {"event": event, "count": count} for event, count in (("step", 5), ("evaluation", 1), ("result", 1))
    ]
    end_after(command, tmp_path, kills)


@pytest.mark.slow
def test_killed_twelve_times_it_ends_bit_for_bit_as_if_left_alone(command, tmp_path):
    generator = random.Random(0)
    turns = [{"event": "step", "count": count} for count in (1, 2)] + [{"event": "save", "count": 1}] * 3
    kills = [generator.choice(turns) | {"delay": generator.uniform(0, 0.06)} for _ in range(11)]
    # The first one waits until there is a checkpoint.
    assert any(end_after(command, tmp_path, [{"event": "step", "count": 3}, *kills], max_steps=25))


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, id="parts"),
        pytest.param({"train_sampling_strategy": "random", "logging_strategy": "epoch"}, id="random-order"),
        pytest.param({"dataloader_num_workers": 2}, id="workers"),
        pytest.param({"per_device_train_batch_size": 2, "processes": 2}, id="two-processes"),
    ],
)
def test_killed_it_ends_as_if_left_alone_in_every_layout(command, tmp_path, layout):
    kills = [{"event": "step", "count": 5, "delay": 0.01}, {"event": "save", "count": 2, "delay": 0.02}]
    end_after(command, tmp_path, kills, **layout)
