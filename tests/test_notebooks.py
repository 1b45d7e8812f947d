"""The notebooks run as they stand, on tiny models and a handful of real clips, against a Hub of our own."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from conftest import ROOT, save_teacher
from hub_server import HubServer
from matplotlib.image import imread
from nbclient import NotebookClient
from safetensors.torch import load_file
from transformers import HubertModel

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEATURES, FINETUNE, DISTIL = (
    ROOT / "notebooks" / f"{name}.ipynb" for name in ("features", "finetune_ctc", "distil")
)
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


def test_every_notebook_starts_on_colab_with_the_same_one_cell():
    first = [next(found for found in read(path).cells if found.cell_type == "code") for path in NOTEBOOKS]
    assert {found.id for found in first} == {"install"}
    assert len({found.source for found in first}) == 1


def test_an_encoder_for_pictures_computes_where_they_are_drawn_also_beside_a_gpu():
    code = "".join(
        found.source for path in NOTEBOOKS for found in read(path).cells if found.cell_type == "code"
    )
    made = re.findall(r"FastEncoder\((.*?)\)", code)
    assert made
    assert all('device="cpu"' in arguments for arguments in made)


@pytest.mark.parametrize("installed", [True, False])
def test_the_first_cell_installs_what_is_missing_and_else_does_nothing(installed, monkeypatch):
    import importlib.util

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


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, speech_dir: Path, golden_dir: Path) -> Iterator[HubServer]:
    """The models and the data of the notebooks under their own names: tiny ones, and twelve short clips."""
    root = tmp_path_factory.mktemp("hub")
    save_teacher(root / "ntu-spml" / "distilhubert", num_hidden_layers=2)
    save_teacher(root / "facebook" / "hubert-base-ls960")
    (root / "leo19941227" / "distilhubert").mkdir(parents=True)
    checkpoint = root / "leo19941227" / "distilhubert" / "distilhubert_ls960_4-8-12.ckpt"
    shutil.copyfile(golden_dir / "conversion" / "paper.ckpt", checkpoint)
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a notebook runs."""
    path = tmp_path / "notebook"
    path.mkdir()
    return path


@pytest.fixture
def execute(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[nbformat.NotebookNode], None]:
    """Runs a notebook in a kernel, in place."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = hub.environment(tmp_path / "home")
    environment |= {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "PATH": search}

    def run(notebook: nbformat.NotebookNode) -> None:
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute(env=environment)

    return run


def pictures(notebook: nbformat.NotebookNode) -> dict[str, np.ndarray]:
    """What the cells have drawn, by the cell."""
    return {
        found.id: imread(io.BytesIO(base64.b64decode(output.data["image/png"])))[..., :3]
        for found in notebook.cells
        for output in found.get("outputs", [])
        if "image/png" in output.get("data", {})
    }


def assert_drawn(notebook: nbformat.NotebookNode, *names: str) -> None:
    """These cells have drawn pictures wide enough to read, with colours in their frames."""
    drawn = pictures(notebook)
    assert set(drawn) == set(names)
    for picture in drawn.values():
        assert picture.shape[1] >= 600
        assert (np.ptp(picture, axis=-1) > 0.2).mean() > 0.002


@pytest.mark.slow
def test_the_notebook_of_features_converts_draws_and_writes_them(execute, folder, speech_dir):
    digits = folder / "free-spoken-digit-dataset" / "recordings"
    digits.mkdir(parents=True)
    for path in sorted((speech_dir / "fsdd_digits").glob("*/[378]_[jt]*_*.flac")):
        word, speaker, _ = path.stem.split("_")
        take = len(list(digits.glob(f"{word}_{speaker}_*")))
        soundfile.write(digits / f"{word}_{speaker}_{take}.wav", *soundfile.read(path))
    notebook = read(FEATURES)
    insert_after(notebook, "settings", "TAKES = 2")
    execute(notebook)

    [said] = printed(notebook, "convert")
    assert float(re.search(r"within (\S+) of S3PRL's", said)[1]) < 1e-5
    assert_drawn(notebook, "pictures", "takes", "map", "heads")
    takes = dict(line.split(": ") for line in printed(notebook, "takes"))
    assert float(takes["another take"]) > float(takes["another word (8)"])
    _, *shares = printed(notebook, "nearest")
    assert [line.split()[0] for line in shares] == [f"hidden_states[{n}]" for n in range(3)] + ["any"]
    [said] = printed(notebook, "fast")
    assert float(re.search(r"difference (\S+) of", said)[1]) < 1e-5
    files = [path.name for path in (folder / "features").rglob("*.safetensors")]
    assert sorted(files) == ["7_jackson_0.safetensors", "7_theo_0.safetensors"]
    assert printed(notebook, "files")[-2:] == [
        f"{name} {load_file(folder / 'features' / name)['features'].numpy().shape}" for name in sorted(files)
    ]


@pytest.mark.slow
def test_the_notebook_of_distillation_leads_to_a_student_that_stock_transformers_loads(execute, folder):
    notebook = read(DISTIL)
    insert_after(notebook, "settings", "LAYERS, STEPS = [2, 4], 12")
    execute(notebook)

    student = folder / "my-student"
    held_out = json.loads((student / "results.json").read_text())["held_out"]
    assert held_out["after"]["loss"] < held_out["before"]["loss"]
    assert_drawn(notebook, "losses", "look")
    _, *rows = printed(notebook, "compare")
    assert [row.split()[1] for row in rows] == ["2", "4"]
    models = printed(notebook, "cost")
    parameters = [int(line.split(" parameters")[0].split()[-1].replace(",", "")) for line in models]
    assert parameters[0] > parameters[1] == parameters[2]
    assert parameters[1] == HubertModel.from_pretrained(student).num_parameters()


@pytest.mark.slow
def test_the_notebook_leads_from_a_name_on_the_hub_to_a_pushed_recogniser(hub, execute, folder, tmp_path):
    notebook = read(FINETUNE)
    insert_after(notebook, "settings", "STEPS, REPO_ID = 12, 'someone/my-recogniser'")
    # After so few steps it would write nothing.
    insert_after(notebook, "train", "torch.nn.init.normal_(model.lm_head.weight, std=5.0);")
    execute(notebook)

    assert_drawn(notebook, "listen", "curve")
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
    assert all((pushed / name).read_bytes() == (made / name).read_bytes() for name in there - {"README.md"})
    card = (pushed / "README.md").read_text(encoding="utf-8")
    assert "base_model: ntu-spml/distilhubert" in card
    assert '"someone/my-recogniser"' in card
    assert "- hf-internal-testing/librispeech_asr_dummy" in card
    assert str(tmp_path) not in "".join((pushed / name).read_text(errors="replace") for name in there)
    log = [json.loads(line) for line in (pushed / "log.jsonl").read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    score = json.loads((pushed / "scores" / "test" / "results.json").read_text())
    assert (score["utterances"], score["wer"] > 0) == (3, True)
