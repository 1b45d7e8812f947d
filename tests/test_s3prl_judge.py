"""S3PRL itself judges the conversion, both ways: its own classes load the files and listen to the same sound.

They come from S3PRL's source distribution, whose checksum is fixed here. It is neither installed nor imported
here: `s3prl_judge.py` runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN, LARGE, ROOT, TINY
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertConfig, HubertModel

from conversion.checkpoint import read_checkpoint, write_checkpoint
from conversion.configuration import from_distiller
from conversion.from_s3prl import convert
from conversion.to_s3prl import export
from hf_distilhubert.audio import crop, read_audio
from hf_distilhubert.folders import new_folder
from hf_distilhubert.heads import HubertForLayerDistillation, head_settings
from hf_distilhubert.loading import load_model
from hf_distilhubert.s3prl_features import s3prl_features, student_parts

RELEASE = "s3prl-0.4.18"
REQUIREMENT = "s3prl==0.4.18 --hash=sha256:b59dcb12c434edc969b0b0290d4059c3a5c661adecc31db81ed9c510cd7f405e\n"
# What its distiller imports.
NEEDED = ("__init__.py", "version.txt", "optimizers.py", "upstream/", "util/", "utility/")
TOLERANCE = 1e-5

variants = pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.ckpt")))

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Verdict:
    """What S3PRL computed of a checkpoint at each step of `s3prl_judge.py`, and where it raised what."""

    parts: Parts
    refused: dict[str, str]

    def step(self, name: str) -> Parts:
        """The parts of one step, which S3PRL must not have refused."""
        assert name not in self.refused, self.refused[name]
        found = {part: tensor for part, tensor in self.parts.items() if part.startswith(f"{name}.")}
        return {part.removeprefix(f"{name}."): tensor for part, tensor in found.items()}


@pytest.fixture(scope="module")
def s3prl_source(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S3PRL's source, fetched once and kept in pytest's cache."""
    folder = Path(pytestconfig.cache.mkdir(RELEASE)) / "source"
    if not folder.is_dir():
        archive = download(tmp_path_factory.mktemp("download"))
        wanted = tuple(f"{RELEASE}/s3prl/{name}" for name in NEEDED)
        with new_folder(folder) as partial, tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.startswith(wanted)]
            tar.extractall(partial, members, filter="data")
    return folder / RELEASE


def download(folder: Path) -> Path:
    """The source distribution from wherever pip finds it; the test is skipped where it finds none.

    pip asks a source distribution for its metadata, by running its `setup.py` after comparing the checksum;
    nothing is built, and without isolation nothing else is fetched for it.
    """
    (folder / "requirements.txt").write_text(REQUIREMENT)
    options = (
        "--quiet --disable-pip-version-check --retries 1 --timeout 20 "
        "--no-deps --no-binary s3prl --no-build-isolation --require-hashes"
    )
    pip = [sys.executable, "-m", "pip", "download", *options.split()]
    arguments = [*pip, "--dest", folder, "--requirement", folder / "requirements.txt"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert "DO NOT MATCH" not in done.stderr, done.stderr
    if done.returncode != 0:
        reason = (done.stderr.strip() or "pip failed").splitlines()[-1]
        pytest.skip(f"{RELEASE} could not be fetched, so S3PRL cannot judge: {reason}")
    return folder / f"{RELEASE}.tar.gz"


def ask_s3prl(source: Path, folder: Path, checkpoints: dict[str, Path], clips: list[Tensor]) -> Any:
    """Let S3PRL judge checkpoints, all in one process; its verdicts by their names."""
    save_file({str(i): clip for i, clip in enumerate(clips)}, folder / "clips.safetensors")
    jobs = {name: str(path) for name, path in checkpoints.items()}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    arguments = [sys.executable, ROOT / "tests" / "s3prl_judge.py", folder]
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    refused = json.loads((folder / "refused.json").read_text())
    return {name: Verdict(load_file(folder / f"{name}.safetensors"), refused[name]) for name in jobs}


def listen(folder: Path, clips: list[Tensor]) -> Parts:
    """The same parts from a folder of ours, under the judge's names."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model_class = {"HubertModel": HubertModel}.get(architecture, HubertForLayerDistillation)
    model = load_model(model_class, folder)
    parts: Parts = {"conv_features": student_parts(model, clips)["conv_features"]}
    features: dict[str, Any] = {**s3prl_features(model, clips)}
    states = features.pop("hidden_states")
    if model_class is HubertModel:
        # Without heads S3PRL hands the same states out again, as if they were predictions.
        states, features["last_hidden_state"] = [*states, *states], states[-1]
    return parts | features | {f"hidden_states.{i}": state for i, state in enumerate(states)}


def off(actual: Tensor, expected: Tensor, mask: Tensor) -> float:
    """The largest difference in valid frames, relative to the largest expected value."""
    valid = mask.bool()
    assert actual.shape == expected.shape
    return float((actual[valid] - expected[valid]).abs().max() / expected[valid].abs().max())


def assert_equal_parts(ours: Parts, theirs: Parts) -> None:
    assert ours.keys() >= theirs.keys()
    mask = theirs["pad_mask"]
    assert torch.equal(ours["pad_mask"], mask)
    for name in theirs.keys() - {"pad_mask"}:
        distance = off(ours[name], theirs[name], mask)
        assert distance <= TOLERANCE, f"{name} is off by {distance:.1e}"


@pytest.fixture(scope="module")
def speech(speech_dir: Path) -> list[Tensor]:
    """Three recordings of differing length."""
    paths = [path for path in sorted(speech_dir.glob("*/test/*")) if path.suffix in (".flac", ".wav")]
    chosen = [paths[i * len(paths) // 6] for i in (1, 3, 5)]
    generator = np.random.default_rng(0)
    clips = zip(chosen, (48_000, 35_007, 20_011), strict=True)
    return [torch.from_numpy(crop(read_audio(path), samples, generator)) for path, samples in clips]


@pytest.fixture(scope="module")
def golden(s3prl_source: Path, speech: list[Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each of S3PRL's checkpoints as our folder and on the way back; S3PRL's verdicts on both files."""
    folder = tmp_path_factory.mktemp("golden")
    checkpoints = {}
    for path in sorted(GOLDEN.glob("*.ckpt")):
        has_heads = from_distiller(read_checkpoint(path).distiller)[1] is not None
        convert(path, folder / path.stem, keep_heads=has_heads)
        back = export(folder / path.stem, folder / path.name).file
        checkpoints |= {f"{path.stem}.original": path, f"{path.stem}.exported": back}
    return folder, ask_s3prl(s3prl_source, folder, checkpoints, speech)


@variants
def test_a_converted_folder_computes_what_s3prl_computes(
    name: str, golden: Any, speech: list[Tensor]
) -> None:
    folder, verdicts = golden
    assert_equal_parts(listen(folder / name, speech), verdicts[f"{name}.original"].step("load_strictly"))


@variants
def test_s3prl_loads_what_was_exported_and_computes_the_same(
    name: str, golden: Any, speech: list[Tensor]
) -> None:
    folder, verdicts = golden
    ours, verdict = listen(folder / name, speech), verdicts[f"{name}.exported"]
    assert_equal_parts(ours, verdict.step("load_strictly"))
    assert_equal_parts(ours, verdict.step("load_locally"))


def heads(layers: list[int], inner_size: int, output_size: int) -> dict[str, Any]:
    return {"distillation": head_settings(layers, inner_size, output_size)}


# Students as this project makes them, in every arrangement and with every activation that both sides know.
OWN: dict[str, dict[str, Any]] = {
    "one-head": heads([4], 6, 10),
    "two-heads-large": LARGE | heads([3, 11], 40, 32) | {"num_hidden_layers": 1},
    "three-heads-wide": heads([4, 8, 12], 24, 32) | {"hidden_size": 48, "num_attention_heads": 3},
    "front-end-large": heads([2], 32, 32)
    | {"feat_extract_norm": "layer", "conv_dim": (8, 10, 12, 14, 16, 18, 20)},
    "pre-norm": heads([2, 1], 8, 32) | {"do_stable_layer_norm": True, "intermediate_size": 20},
    "deep": heads([6], 32, 32) | {"num_hidden_layers": 5, "num_conv_pos_embeddings": 15},
    "relu": heads([1, 2], 8, 32) | {"hidden_act": "relu"},
    "gelu-accurate": heads([1, 2], 8, 32) | {"hidden_act": "gelu_accurate"},
    "tanh": heads([1, 2], 8, 32) | {"hidden_act": "tanh"},
    "linear": heads([1, 2], 8, 32) | {"hidden_act": "linear"},
    "no-heads": {},
    "no-heads-large": LARGE | {"num_hidden_layers": 3},
}


def save_student(folder: Path, changes: dict[str, Any]) -> Path:
    """A student whose every tensor is random: fresh ones hold many equal zeros and ones."""
    torch.manual_seed(0)
    config = HubertConfig(**TINY | {"num_hidden_layers": 2, "feat_proj_layer_norm": False} | changes)
    student: Any = (HubertForLayerDistillation if "distillation" in changes else HubertModel)(config)
    for parameter in student.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    student.save_pretrained(folder)
    return folder


def damage(folder: Path) -> dict[str, Path]:
    """Files that S3PRL has to refuse, or to compute something else of."""
    whole = read_checkpoint(folder / "one-head.ckpt")
    name, other = "encoder.layers.1.fc2.weight", "encoder.layers.0.fc2.weight"
    missing = {key: tensor for key, tensor in whole.weights.items() if key != name}
    swapped = whole.weights | {name: whole.weights[other], other: whole.weights[name]}
    headless = read_checkpoint(folder / "no-heads.ckpt")
    none = headless.distiller | {"out_layer_type": "none", "task_emb_type": "none"}
    return {
        "missing": write_checkpoint(folder / "missing.ckpt", missing, whole.distiller),
        "swapped": write_checkpoint(folder / "swapped.ckpt", swapped, whole.distiller),
        "none": write_checkpoint(folder / "none.ckpt", headless.weights, none),
    }


@pytest.fixture(scope="module")
def noise() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=generator) for length in (16_000, 11_007, 5_011)]


@pytest.fixture(scope="module")
def own(s3prl_source: Path, noise: list[Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Our own students' folders, and S3PRL's verdicts on them and on damaged files."""
    folder = tmp_path_factory.mktemp("own")
    for name, changes in OWN.items():
        export(save_student(folder / name, changes), folder / f"{name}.ckpt")
    checkpoints = {name: folder / f"{name}.ckpt" for name in OWN} | damage(folder)
    return folder, ask_s3prl(s3prl_source, folder, checkpoints, noise)


@pytest.mark.parametrize("name", OWN)
def test_s3prl_loads_students_of_our_own_and_computes_the_same(
    name: str, own: Any, noise: list[Tensor]
) -> None:
    folder, verdicts = own
    ours, verdict = listen(folder / name, noise), verdicts[name]
    assert_equal_parts(ours, verdict.step("load_strictly"))
    assert_equal_parts(ours, verdict.step("load_locally"))


def superb(verdict: Verdict, step: str) -> Tensor:
    """The features that SUPERB's tasks get, clip by clip, as `(clip, frame, feature)`."""
    features = verdict.step(step)
    return pad_sequence([features[str(i)] for i in range(len(features))], batch_first=True)


@pytest.mark.parametrize("name", OWN)
def test_superb_can_use_every_exported_student(name: str, own: Any, noise: list[Tensor]) -> None:
    folder, verdicts = own
    ours = listen(folder / name, noise)
    assert off(ours["paper"], superb(verdicts[name], "feed_superb_paper"), ours["pad_mask"]) <= TOLERANCE
    states = [state for part, state in ours.items() if part.startswith("hidden_states.")]
    if len({state.shape for state in states}) == 1:
        mean = torch.stack(states).mean(dim=0)
        assert off(mean, superb(verdicts[name], "feed_superb"), ours["pad_mask"]) <= TOLERANCE
    else:  # the heads are of another width
        assert "equal size" in verdicts[name].refused["feed_superb"]


def test_superb_cannot_use_a_student_whose_heads_are_none(own: Any) -> None:
    verdict = own[1]["none"]
    assert verdict.refused.keys() == {"load_locally", "feed_superb", "feed_superb_paper"}
    assert "not callable" in verdict.refused["load_locally"]


def test_s3prl_refuses_a_file_in_which_a_tensor_is_missing(own: Any) -> None:
    verdict = own[1]["missing"]
    assert not verdict.parts
    assert 'Missing key(s) in state_dict: "encoder.layers.1.fc2.weight"' in verdict.refused["load_strictly"]


def test_two_tensors_in_each_others_place_are_seen(own: Any, noise: list[Tensor]) -> None:
    folder, verdicts = own
    with pytest.raises(AssertionError, match="is off by"):
        assert_equal_parts(listen(folder / "one-head", noise), verdicts["swapped"].step("load_strictly"))
