"""The code on the README page runs as it stands there, only shorter; what the page names is there."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from pages import Workplace, anchors

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command_and_snippet_of_the_readme_runs(workplace: Workplace):
    assert workplace.follow(PAGE) >= 12


def test_every_file_is_on_the_readme_page_and_every_file_of_the_page_is_there():
    tree = README[README.index("## What is where") :]
    named = set(re.findall(r"\b[\w]+\.(?:py|md)\b", tree.split("```")[1]))
    there = {
        path.name
        for folder in ("hf_distilhubert", "conversion", "finetune", "model_card", "demo")
        for path in (ROOT / folder).glob("*.[pm]*")
        if path.suffix in (".py", ".md") and path.name != "__init__.py"
    }
    assert named == there


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(links) > 15
    for link in links:
        if not link.startswith("https://"):
            place, _, anchor = link.partition("#")
            assert (ROOT / place).exists(), link
            assert not anchor or anchor in anchors(ROOT / place), link
