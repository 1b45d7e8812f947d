"""The shapes of the published model: parameters, config, time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from transformers import HubertConfig

from conversion.checkpoint import write_checkpoint
from conversion.configuration import from_distiller
from conversion.conv_layers import PAPER_CONV_LAYERS

# `Config["distiller"]` of the published model, as S3PRL's yaml says, with the layers that it predicts.
SETTINGS = {
    "extractor_mode": "default",
    "extractor_conv_feature_layers": PAPER_CONV_LAYERS,
    "feature_grad_mult": 0.1,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "encoder_layers": 2,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "attention_type": "original",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "final_dim": 768,
    "out_layer_type": "expand-last",
    "n_tasks": 3,
    "task_emb_type": "expand-last",
    "pred_layer_id": [4, 8, 12],
}
# The config of ntu-spml/distilhubert, as the converter of Transformers 4 made it.
PUBLISHED = {
    "activation_dropout": 0.1,
    "apply_spec_augment": False,
    "attention_dropout": 0.1,
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "do_stable_layer_norm": False,
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "feat_proj_dropout": 0.0,
    "feat_proj_layer_norm": False,
    "final_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.0,
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_feat_extract_layers": 7,
    "num_hidden_layers": 2,
    "vocab_size": 32,
}
# Runs a command and says, as its last line, how much memory it took at most: not by getrusage, which counts
# the process that started it too.
MEASURED = """
import runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(name, run_name="__main__")
except SystemExit as done:
    assert not done.code
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


@pytest.fixture(scope="module")
def checkpoint(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published model's tensors and settings, with random numbers."""
    shapes = json.loads((golden_dir / "conversion" / "paper-size.keys.json").read_text())
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    return write_checkpoint(tmp_path_factory.mktemp("paper") / "paper.ckpt", weights, SETTINGS)


def convert_measured(checkpoint: Path, output: Path, *flags: str) -> tuple[dict, int]:
    """`results.json` of a conversion in a process of its own, and its peak memory in MiB."""
    words = [sys.executable, "-c", MEASURED, "conversion.from_s3prl", str(checkpoint), str(output), *flags]
    run = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300, env=dict(os.environ))
    assert run.returncode == 0, run.stderr[-2_000:]
    return json.loads((output / "results.json").read_text()), int(run.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_the_published_model_has_its_parameters_and_fits_into_600_mb(
    checkpoint: Path, tmp_path: Path
) -> None:
    plain, memory = convert_measured(checkpoint, tmp_path / "plain")
    assert plain["num_parameters"] == 23_491_200
    assert memory < 600
    heads, memory = convert_measured(checkpoint, tmp_path / "heads", "--keep_heads")
    assert heads["num_parameters"] == 27_034_752
    assert heads["target_layers"] == [4, 8, 12]
    assert memory < 600


def test_the_config_is_that_of_the_published_folder() -> None:
    config, _ = from_distiller(SETTINGS)
    ours = config.to_dict()
    assert {key: ours[key] for key in PUBLISHED} == PUBLISHED
    # Of the rest, which has no part in what a HubertModel computes, only this differs from the defaults: with
    # a probability above 0, Transformers would make up a mask vector that was never trained.
    default = HubertConfig().to_dict()
    others = {key for key in ours.keys() - PUBLISHED.keys() if ours[key] != default.get(key)}
    assert others == {"mask_time_prob"}
    assert ours["mask_time_prob"] == 0.0
