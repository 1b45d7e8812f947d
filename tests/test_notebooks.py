"""The notebooks run as they stand, on tiny models and a handful of real clips, against a Hub of our own."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT, save_teacher
from hub_server import HubServer
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FINETUNE = ROOT / "notebooks" / "finetune_ctc.ipynb"
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|Users|content)\b")
CARD = """---
configs:
- config_name: clean
  data_files:
  - split: validation
    path: clean/validation-*
---
"""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def cell(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    return next(found for found in notebook.cells if found.id == name)


def insert_after(notebook: nbformat.NotebookNode, name: str, source: str) -> None:
    place = notebook.cells.index(cell(notebook, name)) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source))


def printed(notebook: nbformat.NotebookNode, name: str) -> list[str]:
    outputs = cell(notebook, name).outputs
    return "".join(found.text for found in outputs if found.get("name") == "stdout").splitlines()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    code = [found for found in notebook.cells if found.cell_type == "code"]
    assert all(found.outputs == [] and found.execution_count is None for found in code)
    assert not MACHINE.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("installed", [True, False])
def test_the_first_cell_installs_what_is_missing_and_else_does_nothing(installed, monkeypatch):
    import importlib.util
    import sys

    from IPython.core.inputtransformer2 import TransformerManager

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before, said = list(sys.path), []
    shell = SimpleNamespace(
        system=said.append, run_line_magic=lambda name, line, **_: said.append(f"{name} {line}")
    )
    first = cell(read(FINETUNE), "install").source
    exec(TransformerManager().transform_cell(first), {"get_ipython": lambda: shell})  # noqa: S102
    if installed:
        assert (said, sys.path) == ([], before)
    else:
        clone, install = said
        assert clone.startswith("git clone ")
        assert clone.endswith("{REPOSITORY} hf-distilhubert")  # IPython fills it in
        assert install == "pip install --quiet --editable hf-distilhubert"
        assert sys.path == ["hf-distilhubert", *before]


@pytest.fixture
def hub(tmp_path: Path, speech_dir: Path) -> Iterator[HubServer]:
    """The model and the data of the notebook under their own names: a tiny one, and twelve short clips."""
    root = tmp_path / "hub"
    save_teacher(root / "ntu-spml" / "distilhubert", num_hidden_layers=2)
    repository = root / "datasets" / "hf-internal-testing" / "librispeech_asr_dummy"
    (repository / "clean").mkdir(parents=True)
    (repository / "README.md").write_text(CARD)
    source = speech_dir / "librispeech_mini"
    with (source / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["duration_s"]))[:12]
    table = [
        {
            "audio": {"bytes": (source / row["file_name"]).read_bytes(), "path": Path(row["file_name"]).name},
            "text": row["transcription"],
            "speaker_id": number,
        }
        for number, row in enumerate(rows)
    ]
    path = repository / "clean" / "validation-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    with HubServer(root) as server:
        yield server


@pytest.mark.slow
def test_the_notebook_leads_from_a_name_on_the_hub_to_a_pushed_recogniser(hub, tmp_path, monkeypatch):
    notebook = read(FINETUNE)
    insert_after(notebook, "settings", "STEPS, REPO_ID = 12, 'someone/my-recogniser'")
    # After so few steps it would write nothing.
    insert_after(notebook, "train", "torch.nn.init.normal_(model.lm_head.weight, std=5.0);")
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    environment = hub.environment(tmp_path / "home") | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    client.execute(env=environment)

    # What `pipeline` and `Transcriber` load from the Hub says the same.
    by_pipeline, by_transcriber, *words = printed(notebook, "back")
    assert by_pipeline == by_transcriber
    assert [word.split()[4] for word in words] == by_pipeline.split() != []
    # All that was meant to be pushed was, and nothing else.
    made, pushed = folder / "my-recogniser", hub.root / "someone" / "my-recogniser"
    there = {path.relative_to(pushed).as_posix() for path in pushed.rglob("*") if path.is_file()}
    here = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert here - there == {"scores/test/report.html", "scores/test/utterances.csv"}
    assert {"README.md", "model.safetensors", "tokenizer.json", "scores/test/results.json"} <= there <= here
    assert all((pushed / name).read_bytes() == (made / name).read_bytes() for name in there)
    card = (pushed / "README.md").read_text(encoding="utf-8")
    assert "base_model: ntu-spml/distilhubert" in card
    assert "- hf-internal-testing/librispeech_asr_dummy" in card
    assert str(tmp_path) not in "".join((pushed / name).read_text(errors="replace") for name in there)
    log = [json.loads(line) for line in (pushed / "log.jsonl").read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    score = json.loads((pushed / "scores" / "test" / "results.json").read_text())
    assert (score["utterances"], score["wer"] > 0) == (3, True)
