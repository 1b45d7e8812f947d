"""Four cards, whole: of a converted model, a distilled student, a fine-tuned recogniser, an exported model.

`golden_cards/KIND/` holds what the stages left beside the weights (without the weights), in runs of the
commands that the cards name, and `golden_cards/KIND.md` the card. After a change that is meant,

    WRITE_GOLDEN_CARDS=1 python -m pytest tests/test_golden_cards.py

writes the cards anew; read what `git diff` says of them.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from cards import named_figures
from conftest import ROOT

from model_card.render import render

CARDS = ROOT / "tests" / "golden_cards"
STATED = {"license": "apache-2.0", "data_license": "cc-by-sa-4.0"}
MIXED = STATED | {"language": "en", "data_license": "apache-2.0, cc-by-4.0 and cc-by-sa-4.0"}
GIVEN: dict[str, dict[str, str]] = {
    "converted": {},  # nobody said under which licence the checkpoint is
    "student": STATED,
    "recogniser": MIXED,
    "exported": MIXED,
}


@pytest.fixture(autouse=True)
def _pictures_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `named_figures`; tests/test_figures.py draws."""
    monkeypatch.setattr("model_card.figures.draw_figures", named_figures)


def rendered(kind: str, folder: Path) -> str:
    shutil.copytree(CARDS / kind, folder / kind)
    return render(folder / kind, **GIVEN[kind]).text


@pytest.mark.parametrize("kind", GIVEN)
def test_the_card_is_this_one(kind: str, tmp_path: Path) -> None:
    text = rendered(kind, tmp_path)
    if os.environ.get("WRITE_GOLDEN_CARDS"):
        (CARDS / f"{kind}.md").write_text(text, encoding="utf-8")
    assert text == (CARDS / f"{kind}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", GIVEN)
def test_rendered_again_the_card_is_the_same_byte_for_byte(kind: str, tmp_path: Path) -> None:
    text = rendered(kind, tmp_path)
    assert render(tmp_path / kind).text == text
    assert (tmp_path / kind / "README.md").read_bytes() == text.encode()


@pytest.mark.parametrize("kind", GIVEN)
def test_a_golden_card_has_no_stray_lines_and_no_private_name(kind: str) -> None:
    text = (CARDS / f"{kind}.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]$", text, flags=re.MULTILINE)
    # A heading, a table and a fence have an empty line (or our mark) before them.
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"^(?!<!--|#|\|)[^\n]+\n(#{1,3} |\|)", prose, flags=re.MULTILINE)
    assert not re.search(r"(?<![\w.:/-])/(home|tmp|root|work|Users)\b", text)
    assert not re.search(r"\b(None|nan|inf|null|Undefined)\b", prose)
