"""Export without the exporter, which takes seconds; transformers.js from npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from hf_distilhubert.folders import file_sha256, new_folder

SOURCE = ROOT / "tests" / "browser"
NPM = "npm ci --ignore-scripts --no-audit --no-fund --fetch-retries 1 --fetch-timeout 60000"


def trace_no_more(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    """From now on the exporter hands out that graph, whatever the model is."""

    def write_onnx(_module: Any, path: Path, _metadata: Any) -> None:
        shutil.copy(graph, path)

    monkeypatch.setattr("hf_distilhubert.export_graph.write_onnx", write_onnx)


def transformers_js(config: pytest.Config) -> Path:
    """A folder with transformers.js in `node_modules`, fetched once and kept in pytest's cache.

    npm compares the packages with the checksums in `browser/package-lock.json`; what they would run when
    installed is not run.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node and npm are not installed, so transformers.js cannot listen")
    name = f"transformers-js-{file_sha256(SOURCE / 'package-lock.json')[:12]}"
    folder = Path(config.cache.mkdir(name)) / "installed"
    if not folder.is_dir():
        with new_folder(folder) as partial:
            for file in SOURCE.glob("*.json"):
                shutil.copy(file, partial)
            _install(partial)
    return folder


def _install(folder: Path) -> None:
    done = subprocess.run(NPM.split(), cwd=folder, capture_output=True, text=True)
    assert "EINTEGRITY" not in done.stderr, done.stderr
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "npm error" in line] or ["npm failed"]
        pytest.skip(f"transformers.js could not be fetched: {errors[0]}")
