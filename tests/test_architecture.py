"""Who may import whom, and what importing costs; read off the syntax trees."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

LIBRARY = "hf_distilhubert"
STAGES = ("conversion", "finetune", "model_card")
BANNED = {"torchaudio", "torchcodec", "librosa", "s3prl", "fairseq"}
# These import (next to) nothing of ours, so that each can be read alone.
LEAVES = {
    f"{LIBRARY}/audio.py": {f"{LIBRARY}.errors"},
    f"{LIBRARY}/batches.py": set(),
    f"{LIBRARY}/objective.py": set(),
    "conversion/mapping.py": {f"{LIBRARY}.errors"},
    "conversion/values.py": set(),
    "conversion/inert.py": {"conversion.values"},
    "conversion/conv_layers.py": {f"{LIBRARY}.errors"},
    "conversion/reference.py": {"conversion.conv_layers"},
}
SOURCES = [
    path
    for folder in (LIBRARY, *STAGES, "demo", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_library_imports_no_stage_and_no_stage_imports_another(path):
    room = path.relative_to(ROOT).parts[0]
    everything = {LIBRARY, *STAGES, "demo", "benchmarks"}
    # The demo and the benchmarks put everything to work, and nothing imports them.
    allowed = {LIBRARY: {LIBRARY}, "demo": {LIBRARY, *STAGES, "demo"}, "benchmarks": everything - {"demo"}}
    ours = {module.split(".")[0] for module in imports(path)} & everything
    assert ours <= allowed.get(room, {LIBRARY, room})


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").glob("*.py"))], ids=name_of)
def test_nothing_imports_what_does_not_work_beside_todays_torch(path):
    assert not {module.split(".")[0] for module in imports(path)} & BANNED


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_import_next_to_nothing_of_ours(name):
    ours = {m for m in imports(ROOT / name) if m.split(".")[0] in {LIBRARY, *STAGES}}
    assert ours <= LEAVES[name]


def seconds(*arguments: str) -> float:
    """The quickest of three runs: what else the machine does is not ours."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
        times.append(time.perf_counter() - started)
    return min(times)


def test_importing_the_library_is_quick():
    script = (
        "import time; start = time.perf_counter(); import hf_distilhubert; print(time.perf_counter() - start)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.3


@pytest.mark.parametrize(
    "command",
    [
        (LIBRARY, "--help"),
        (LIBRARY, "distill", "--help"),
        (LIBRARY, "transcribe", "--help"),
        (LIBRARY, "benchmark", "--help"),
        (LIBRARY, "export", "--help"),
        (LIBRARY, "demo", "--help"),
        ("conversion.from_s3prl", "--help"),
        ("conversion.to_s3prl", "--help"),
        ("conversion.inspect", "--help"),
        ("finetune.train", "--help"),
        ("finetune.score", "--help"),
        ("model_card.render", "--help"),
        ("model_card.push", "--help"),
        ("demo.run", "--help"),
        ("demo.speech", "--help"),
    ],
    ids=" ".join,
)
def test_help_is_quick_and_has_examples(command):
    run = subprocess.run(
        [sys.executable, "-m", *command], check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ
    )
    assert "examples:" in run.stdout
    assert seconds("-m", *command) < 2.0


def test_the_wheel_holds_the_library_alone(tmp_path):
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{LIBRARY}/{name}" for name in ("py.typed", "web/index.html", "web/app.js")} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {LIBRARY}
