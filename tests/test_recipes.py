"""Settings by name: every recipe is one that the trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hf_distilhubert.distill
from hf_distilhubert import DistillConfig, UserError
from hf_distilhubert.objective import OBJECTIVES, PAPER_OBJECTIVE
from hf_distilhubert.settings import OBJECTIVE_NAMES

RECIPES = sorted((Path(hf_distilhubert.distill.__file__).parent / "recipes").glob("*.yaml"))


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `distil` is called with for a command line."""

    def read(*arguments: str) -> DistillConfig:
        monkeypatch.setattr(hf_distilhubert.distill, "distill", lambda config: config)
        return hf_distilhubert.distill.main(list(arguments))

    return read


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_taken_and_flags_go_over_it(path: Path, settings_of: Any) -> None:
    config = settings_of("--recipe", path.stem, "--max_steps", "7", "--data", "speech")
    assert (config.max_steps, config.data) == (7, "speech")
    assert settings_of("--data", "speech", f"--recipe={path.stem}", "--max_steps", "7") == config


def test_the_papers_recipe_is_the_default(settings_of: Any) -> None:
    assert settings_of("--recipe", "paper") == DistillConfig()


def test_s3prls_recipe_has_all_of_its_ways(settings_of: Any) -> None:
    config = settings_of("--recipe", "s3prl")
    assert (config.target_layers, config.weight_decay, config.pad_multiple) == ([4, 12], 0.01, 1)
    assert (config.teacher_dropout, config.mask_loss, config.mask_group_norm) == (True, False, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "other"], "no recipe 'other'; give one of laptop"),
        (["--recipe"], "no recipe ''"),
        (["some.yaml", "--recipe", "paper"], "not both"),
        (["--objective", "all"], "objective is 'all'; give one of several-layers"),
        (["--shape", "wide"], "shape is 'wide'; give one of paper"),
        (["--precision", "int8"], "precision is 'int8'"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(arguments: list[str], said: str, settings_of: Any) -> None:
    with pytest.raises(UserError, match=said):
        settings_of(*arguments)


def test_the_names_that_help_shows_are_the_objectives() -> None:
    assert tuple(OBJECTIVES) == OBJECTIVE_NAMES
    assert OBJECTIVE_NAMES[0] == PAPER_OBJECTIVE
