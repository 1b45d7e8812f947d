"""Training says what goes wrong, once, and nothing where all is well; its recipes are taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

import finetune.train
from finetune.advice import Advice
from finetune.settings import FinetuneConfig

RECIPES = sorted((Path(finetune.train.__file__).parent / "recipes").glob("*.yaml"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch):
    """What is said of a run that logs these lines, one each 100 steps."""

    def tell(*lines: dict) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(tqdm, "write", said.append)
        advice, arguments = Advice(), SimpleNamespace(learning_rate=3e-4)
        for number, line in enumerate(lines, start=1):
            state = SimpleNamespace(global_step=100 * number, is_world_process_zero=True)
            advice.on_log(arguments, state, None, logs=line)
        return said

    return tell


def test_only_blanks_are_noticed_once_but_not_in_the_beginning(told):
    silent = {"eval_wer": 1.0, "eval_empty": 1.0}
    assert told(silent, silent) == []
    (said,) = told(silent, silent, silent, silent)
    assert "after 300 steps the model writes nothing" in said
    assert told(*[{"eval_wer": 0.9, "eval_empty": 0.5}] * 6) == []


def test_a_loss_that_rises_is_noticed_and_one_that_jitters_is_not(told):
    falling = [{"loss": 3.0 / number} for number in range(1, 16)]
    (said,) = told(*falling, *[{"loss": 2.0}] * 8)
    assert "Lower --learning_rate (it is 0.0003)" in said
    jitter = [{"loss": 1.0 + 0.3 * (-1) ** number} for number in range(40)]
    assert told(*falling, *[{"loss": 0.2}] * 5, {"loss": 9.0}, *[{"loss": 0.2}] * 9) == []
    assert told(*jitter) == []


def test_learning_by_heart_is_noticed(told):
    lines = []
    for number in range(1, 16):
        lines.append({"loss": 2.0 / number})
        lines.append(
            {"eval_wer": 0.5 - 0.02 * number if number < 6 else 0.42 + 0.01 * number, "eval_empty": 0.0}
        )
    (said,) = told(*lines)
    assert "learns the clips by heart: give --augment true" in said
    better = [line for number in range(1, 16) for line in ({"loss": 2.0 / number}, {"eval_wer": 0.9**number})]
    assert told(*better) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_taken_and_flags_go_over_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[tuple[FinetuneConfig, object]] = []

    def record(config, arguments):
        taken.append((config, arguments))
        return SimpleNamespace(evaluation=None, folder=tmp_path, steps=0, seconds=0)

    monkeypatch.setattr(finetune.train, "train", record)
    flags = ["--data", "speech", "--learning_rate", "7e-4", "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["train", "--recipe", path.stem, *flags])
    finetune.train.main()
    ((config, arguments),) = taken
    assert (config.data, arguments.learning_rate, config.model) == ("speech", 7e-4, "ntu-spml/distilhubert")
