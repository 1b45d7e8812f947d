"""An exported folder says the same in JavaScript: transformers.js in Node, and browsers' WebAssembly."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import SOURCE, trace_no_more, transformers_js
from kinds import difference

from hf_distilhubert import Transcriber
from hf_distilhubert.audio import Waveform
from hf_distilhubert.export import FILES, export


@pytest.fixture(scope="module")
def node(pytestconfig: pytest.Config) -> Path:
    """A folder with transformers.js and the script."""
    folder = transformers_js(pytestconfig)
    shutil.copy(SOURCE / "listen.mjs", folder)
    return folder


@pytest.fixture(scope="module")
def clips() -> list[Waveform]:
    """Noise that comes and goes, with an offset that normalisation has to take away."""
    generator = np.random.default_rng(3)
    lengths = (5_003, 16_000, 40_321)
    return [
        (generator.standard_normal(n) * np.sin(np.arange(n) / 2_000) * 0.2 + 0.05).astype(np.float32)
        for n in lengths
    ]


@pytest.fixture(scope="module")
def heard(node: Path, clips: list[Waveform], exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the export in float32, and then that in 8 bits, give for each clip."""
    model, folder, _ = exported
    scratch = tmp_path_factory.mktemp("heard")
    with pytest.MonkeyPatch.context() as monkeypatch:
        trace_no_more(monkeypatch, folder / FILES["onnx"])
        export(model, scratch / "int8", "onnx-int8")
    for number, clip in enumerate(clips):
        clip.tofile(scratch / f"{number}.f32")
    exports = [[folder, folder / FILES["onnx"]], [scratch / "int8", scratch / "int8" / FILES["onnx-int8"]]]
    jobs = {"exports": exports, "clips": [scratch / f"{number}.f32" for number in range(len(clips))]}
    arguments = ["node", node / "listen.mjs", json.dumps(jobs, default=str)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


def test_transformers_js_writes_the_same_text(heard, clips, exported):
    texts = [found["text"] for found in heard[0]]
    assert texts == Transcriber(exported[0], device="cpu").transcribe_waveforms(clips)
    assert len(set(texts)) == len(clips)


def test_webassembly_computes_the_same(heard, clips, exported):
    acoustic = Transcriber(exported[0], device="cpu").acoustic
    for clip, found in zip(clips, heard[0], strict=True):
        logits = torch.tensor(found["logits"]).view(found["dims"])[0]
        [(_, [expected])] = acoustic.clips([clip], 1)
        assert difference(logits.log_softmax(-1), torch.from_numpy(expected)) < 1e-5


def test_transformers_js_finds_the_file_in_8_bits_by_itself(heard):
    for whole, small in zip(*heard, strict=True):
        assert small["text"]
        distance = difference(torch.tensor(small["logits"]), torch.tensor(whole["logits"]))
        assert 1e-4 < distance < 0.1
