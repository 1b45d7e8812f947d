"""Whether what a folder holds loads for everyone: stock Transformers, or the runtime of an exported file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError, one_line
from model_card.facts import MIXES_LAYERS
from model_card.selection import File, Selection

TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "vocab.json")
# Exported files, by their suffix, and the package that runs them.
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


def weights(selection: Selection) -> Iterator[str]:
    """What is wrong with the tensors, read one at a time: damage, and values that are no numbers."""
    for file in selection.files:
        if file.name.endswith(".safetensors"):
            yield from _tensors(file)


def _tensors(file: File) -> Iterator[str]:
    import torch
    from safetensors import SafetensorError, safe_open

    bad = []
    try:
        with safe_open(file.path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                if not torch.isfinite(tensors.get_tensor(name)).all():
                    bad.append(name)
    except (SafetensorError, OSError) as error:
        yield f"{file.name} is damaged ({one_line(error, 120)}): save the model again"
    if bad:
        yield f"{file.name}: {len(bad)} tensors hold NaN or infinity, for example {bad[0]}: train it again"


def loads(folder: Path, selection: Selection) -> Iterator[str]:
    """What keeps the folder from being loaded by others."""
    graphs = [file for file in selection.files if _is_graph(file)]
    if graphs:
        yield from _exported(graphs, selection)
    elif not any(file.name.endswith(".safetensors") for file in selection.files):
        yield "there are no weights in safetensors: save the model again with save_pretrained"
    else:
        yield from _stock(folder, selection)


def needs_this_package(folder: Path) -> bool:
    """Whether the model is of a type that stock Transformers refuses until this package is imported."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # which loading it says better
    return isinstance(config, dict) and config.get("model_type") == MIXES_LAYERS


def _is_graph(file: File) -> bool:
    return Path(file.name).parts[0] in ("onnx", "openvino") and Path(file.name).suffix in RUNTIMES


def _stock(folder: Path, selection: Selection) -> Iterator[str]:
    """Load model and processor as `AutoModel` and `AutoProcessor` do, from these files alone."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCTC, AutoProcessor

    from hf_distilhubert.loading import load, load_model

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = load(AutoConfig, folder, **local)
        recognises = (config.architectures or [""])[0].endswith("ForCTC")
        load_model(AutoModelForCTC if recognises else AutoModel, folder, dtype="auto", **local)
    except UserError as error:
        yield str(error)
    tokenizes = any(selection.named(name) for name in TOKENIZER)
    try:
        load(AutoProcessor if tokenizes else AutoFeatureExtractor, folder, **local)
    except UserError as error:
        yield str(error)


def _exported(graphs: list[File], selection: Selection) -> Iterator[str]:
    for name in ("config.json", "preprocessor_config.json"):
        if selection.named(name) is None:
            yield f"there is no {name}, which clients of an exported model read: export it again"
    for graph in graphs:
        if problem := _does_not_run(graph.path):
            yield f"{graph.name} {problem}"


def _does_not_run(graph: Path) -> str | None:
    """Hear a second of noise; None where that gives numbers."""
    import numpy as np

    from hf_distilhubert.export_runners import need_packages, onnx_runner, openvino_runner

    package = RUNTIMES[graph.suffix]
    try:
        need_packages("openvino" if package == "openvino" else "onnx", package)
        run = (openvino_runner if package == "openvino" else onnx_runner)(graph)
        noise = np.random.default_rng(0).standard_normal((1, 16_000)).astype(np.float32)
        frames, _ = run(noise, np.ones((1, 16_000), np.int64))
    except UserError as error:
        return f"cannot be checked: {error}"
    # Each runtime has errors of its own, with Exception as their only base.
    except Exception as error:
        return f"does not open ({one_line(error, 120)}): export the model again"
    return None if np.isfinite(frames).all() else "gives NaN or infinity: export the model again"
