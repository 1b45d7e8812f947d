"""The code on the README page runs as it stands there, only shorter."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import soundfile
from conftest import ROOT, python, save_teacher

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Later flags go over earlier ones: training on the page takes hours.
SHORTER = {
    "hf_distilhubert.distill": ("--max_steps", "2", "--batch_size", "4"),
    "finetune.train": ("--max_steps", "2", "--per_device_train_batch_size", "4"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command on the page, as arguments of Python."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    starts = {
        "python": [],
        "distilhubert": ["-m", "hf_distilhubert"],
        "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
    }
    found = []
    for line in filter(None, lines):
        first, *rest = shlex.split(line)
        module = rest[rest.index("-m") + 1] if "-m" in rest else ""
        found.append([*starts[first], *rest, *SHORTER.get(module, ())])
    return found


@pytest.mark.slow
def test_every_command_and_snippet_of_the_readme_runs(spoken, tmp_path):
    from conversion.to_s3prl import export
    from hf_distilhubert.distill import DistillConfig, distill

    # Folders of these names stand in for the repositories on the Hub.
    teacher = save_teacher(tmp_path / "facebook" / "hubert-base-ls960", num_hidden_layers=12)
    settings = {"data": str(spoken), "max_steps": 0, "teacher": str(teacher)}
    distill(DistillConfig(output_dir=str(tmp_path / "ntu-spml" / "distilhubert"), **settings))
    export(tmp_path / "ntu-spml" / "distilhubert", tmp_path / "distilhubert_ls960_4-8-12.ckpt")
    spoken.rename(tmp_path / "recordings")
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16_000), 16_000)
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}')
    (tmp_path / "runs").mkdir()
    assert len(commands()) >= 7
    for arguments in commands():
        python(*arguments, cwd=tmp_path)
    assert len(blocks("python")) >= 3
    for code in blocks("python"):
        python("-c", code, cwd=tmp_path)


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
