"""The code on Markdown pages, as it stands there: found, made shorter, and run once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from conftest import ROOT, python, save_spoken, save_teacher

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
STARTS = {
    "python": [],
    "distilhubert": ["-m", "hf_distilhubert"],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
}
# Later flags go over earlier ones: training on the pages takes hours.
SHORTER = {
    "hf_distilhubert.distill": ("--max_steps", "2", "--batch_size", "4"),
    "finetune.train": ("--max_steps", "2", "--per_device_train_batch_size", "4"),
}


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its lines, and why it is not run here; empty where it is."""

    language: str
    code: str
    needs: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that have a language.

    A title that begins with "needs" says what a block needs that no test has: hours, a microphone, the Hub.
    """
    return [
        Block(language, code, title if title.startswith("needs") else "")
        for language, title, code in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


def lines(code: str) -> Iterator[list[str]]:
    """The commands of a block of bash, as words; comments are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def module_of(words: list[str]) -> str:
    """The module that a command runs."""
    if words[0] == "distilhubert":
        return f"hf_distilhubert.{words[1]}"
    return words[words.index("-m") + 1] if "-m" in words else ""


@dataclass
class Workplace:
    """A folder in which pages are read and done: what a page before has made is there for the next."""

    folder: Path
    done: set[str] = field(default_factory=set)

    def follow(self, page: Path) -> int:
        """Run what was not run before, in the order of the page; how many commands and snippets it has."""
        found = 0
        for block in blocks(page):
            if block.needs or block.language not in ("bash", "python"):
                continue
            steps = lines(block.code) if block.language == "bash" else [["-c", block.code]]
            for words in steps:
                found += 1
                if (key := "\0".join(words)) not in self.done:
                    self._run(words)
                    self.done.add(key)
        return found

    def _run(self, words: list[str]) -> None:
        start = words if words[0] == "-c" else [*STARTS[words[0]], *words[1:]]
        python(*start, *SHORTER.get(module_of(words), ()), cwd=self.folder)


def prepare(folder: Path) -> Workplace:
    """What readers of the pages have: folders of these names stand in for the repositories on the Hub."""
    from conversion.to_s3prl import export
    from hf_distilhubert.distill import DistillConfig, distill

    teacher = save_teacher(folder / "facebook" / "hubert-base-ls960", num_hidden_layers=12)
    recordings = save_spoken(folder / "recordings")
    settings = {"data": str(recordings), "max_steps": 0, "teacher": str(teacher)}
    distill(DistillConfig(output_dir=str(folder / "ntu-spml" / "distilhubert"), **settings))
    export(folder / "ntu-spml" / "distilhubert", folder / "distilhubert_ls960_4-8-12.ckpt")
    soundfile.write(folder / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16_000), 16_000)
    (folder / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}')
    (folder / "runs").mkdir()
    (folder / "demo").mkdir()
    (folder / "demo" / "teacher").symlink_to(ROOT / "demo" / "teacher")
    return Workplace(folder)


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, on GitHub and in the built pages alike."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
