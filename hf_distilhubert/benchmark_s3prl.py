"""S3PRL's own distiller as a peer, where it is installed: of the model's sizes, with random weights.

Its time does not depend on the weights; how near its results are is the business of the stage `conversion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from hf_distilhubert.audio import Waveform
from hf_distilhubert.errors import UserError, one_line

if TYPE_CHECKING:
    from hf_distilhubert.benchmark_ways import Run


def s3prl_run(config: Any) -> Run:
    """S3PRL's `DistillerModel` without heads, a clip at a time.

    Args:
        config: of the model.

    Raises:
        UserError: what is installed does not import, or has no such model.
    """
    try:
        module: Any = import_module("s3prl.upstream.distiller.model")
        with redirect_stdout(StringIO()), catch_warnings():  # it tells what it builds
            simplefilter("ignore")
            model = module.DistillerModel(module.DistillerConfig(_settings(config))).eval()
    # It imports many packages of other ages, which fail in ways of their own.
    except Exception as error:
        raise UserError(f"S3PRL does not run here: {one_line(error, 200)}") from error

    @torch.inference_mode()
    def run(clips: Sequence[Waveform]) -> list[Tensor]:
        found = []
        for clip in clips:
            wave = torch.from_numpy(clip)[None]
            *_, layers = model(wave, torch.ones_like(wave), get_hidden=True, no_pred=True)
            found.append(layers[-1][0])
        return found

    return run


def _settings(config: Any) -> dict[str, Any]:
    convolutions = list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True))
    return {
        "extractor_mode": "default" if config.feat_extract_norm == "group" else "layer_norm",
        "extractor_conv_feature_layers": str(convolutions),
        "conv_pos": config.num_conv_pos_embeddings,
        "conv_pos_groups": config.num_conv_pos_embedding_groups,
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_ffn_embed_dim": config.intermediate_size,
        "encoder_attention_heads": config.num_attention_heads,
        "layer_norm_first": config.do_stable_layer_norm,
        "task_emb_type": "none",
        "out_layer_type": "none",
    }
