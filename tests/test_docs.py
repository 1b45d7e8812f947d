"""The pages of docs/: their code runs, they build without a warning, and what they name is there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import ROOT, python
from pages import Workplace, blocks, lines, module_of

from hf_distilhubert.speech_data import load_clips

DOCS = ROOT / "docs"
# These pages have tests of their own, which start a Hub for them.
ELSEWHERE = ("story.md", "hub-failures.md")
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
CODE = re.compile(r"^```\w+.*?\n(?P<block>.*?)^```|`(?P<span>[^`\n]+)`", flags=re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"(\w+=\S+ |/usr/bin/time -v )*"
    r"(?P<command>((python|accelerate launch) -m [a-z]\w+\.[a-z]|distilhubert [a-z]).*)"
)
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
TRAINER_FLAGS = """
from dataclasses import fields

from finetune.arguments import CTCTrainingArguments

print(*(f"--{field.name}" for field in fields(CTCTrainingArguments)))
"""
# What the pages tell to programs that are not ours.
FOREIGN = {"--constraint", "--editable"}


def in_order(nav: list[dict[str, object]]) -> list[Path]:
    """The pages as the navigation has them."""
    found: list[Path] = []
    for entry in nav:
        [place] = entry.values()
        found += in_order(place) if isinstance(place, list) else [DOCS / str(place)]
    return found


@pytest.mark.slow
def test_every_command_and_snippet_of_the_pages_runs(workplace: Workplace):
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sum(workplace.follow(page) for page in in_order(nav) if page.name not in ELSEWHERE) >= 28


def test_what_is_not_run_here_is_whole_python_all_the_same():
    left = [block for page in PAGES for block in blocks(page) if block.needs and block.language == "python"]
    assert left
    for block in left:
        compile(block.code, block.needs, "exec")


def test_the_table_that_a_page_makes_of_common_voice_leads_to_its_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "common-voice"
    (copy / "clips").mkdir(parents=True)
    # A quotation mark that is never closed is a character like any other.
    said = {"train": ['"Hyvää', "päivää"], "dev": ["huomenta"], "test": ["öitä"]}
    for name, texts in said.items():
        lines = ["client_id\tpath\tsentence_id\tsentence\tlocale"]
        for number, text in enumerate(texts):
            soundfile.write(copy / "clips" / f"{name}_{number}.mp3", np.full(16_000, 0.1), 16_000)
            lines.append(f"someone\t{name}_{number}.mp3\t1\t{text}\tfi")
        (copy / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    [snippet] = [block for block in blocks(DOCS / "fine-tune.md") if "Common Voice" in block.needs]
    monkeypatch.chdir(tmp_path)
    exec(snippet.code, {})  # noqa: S102
    for split, texts in zip(("train", "validation", "test"), said.values(), strict=True):
        assert [clip.text for clip in load_clips("common-voice", split, need_text=True).clips] == texts


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them: a warning, such as a page that no list names, is an error."""
    folder = tmp_path_factory.mktemp("site")
    config = ("--config-file", ROOT / "mkdocs.yml", "--site-dir", folder)
    python("-m", "mkdocs", "build", "--strict", *config, NO_MKDOCS_2_WARNING="1")
    return folder


class Fetched(HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in FETCHED and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get(FETCHED[tag]) or "")


def test_the_built_pages_fetch_nothing_from_elsewhere_and_miss_nothing(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        for address in filter(None, Fetched(page).addresses):
            assert not re.match(r"(\w+:)?//", address), f"{page.name} fetches {address}"
            # The page for what is not there is served under any address, so its own begin at the root.
            place = site / address.lstrip("/") if address.startswith("/") else page.parent / address
            assert place.exists(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\s\"']*(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_programs_are_no_pages(site: Path):
    assert not list(site.rglob("*.py"))
    assert (site / "speed.png").exists()


def test_every_module_of_the_library_and_every_stage_has_its_place_in_the_reference():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    named = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    library = [path.stem for path in (ROOT / "hf_distilhubert").glob("*.py") if path.stem[0] != "_"]
    modules = [f"hf_distilhubert.{name}" for name in library]
    assert sorted(named) == sorted([*modules, "conversion", "finetune", "model_card"])


@cache
def flags_of(module: str) -> frozenset[str]:
    """The flags that a command has by its `--help`."""
    start = module.split(".") if module.startswith("hf_distilhubert.") else [module]
    found = set(FLAG.findall(python("-m", *start, "--help")))
    if module == "finetune.train":
        found |= set(python("-c", TRAINER_FLAGS).split())
    return frozenset(found)


def codes(page: Path) -> list[str]:
    """The code of a page, blocks and spans."""
    found = CODE.finditer(page.read_text(encoding="utf-8"))
    return [match["block"] or match["span"] or "" for match in found]


def ours(code: str) -> list[list[str]]:
    """Those lines of a piece of code that run a command of this project, as words."""
    found = map(COMMAND.match, code.replace("\\\n", " ").splitlines())
    return list(lines("\n".join(match["command"] for match in found if match)))


def test_every_command_and_flag_of_the_pages_exists():
    found = [(page, words) for page in PAGES for code in codes(page) for words in ours(code)]
    assert len(found) > 80
    for page, words in found:
        for flag in FLAG.findall(shlex.join(words)):
            module = module_of(words)
            assert flag in flags_of(module), f"{page.name}: {module} has no {flag}"
        assert flags_of(module_of(words))


def test_every_flag_that_is_spoken_of_is_a_flag_of_some_command():
    modules = {module_of(words) for page in PAGES for code in codes(page) for words in ours(code)}
    known = FOREIGN.union(*(flags_of(module) for module in modules))
    for page in PAGES:
        for code in codes(page):
            if not ours(code):
                assert set(FLAG.findall(code)) <= known, f"{page.name}: {code}"
