"""Put a recogniser into demo/teacher, as the teacher that the demo ships: in float16, without its logs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.folders import new_folder

KEPT = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "text.json",
    "lineage.json",
)
EXTRA_CHANNELS = 16
EXAMPLES = """\
  python -m demo.ship_teacher runs/teacher/model demo/teacher"""


def ship(model_dir: str | Path, output_dir: str | Path, *, overwrite: bool = False) -> Path:
    """Copy a fine-tuned folder with its weights in float16.

    Args:
        model_dir: a folder of `finetune.train`.
        output_dir: the new folder.
        overwrite: replace it if it is there.

    Raises:
        UserError: there is no such model, or the new folder exists.
    """
    import torch
    from transformers import HubertForCTC

    from hf_distilhubert.loading import load_model, quiet_transformers

    model = widen_front_end(load_model(HubertForCTC, model_dir))
    with new_folder(output_dir, overwrite=overwrite) as folder:
        with quiet_transformers():
            model.to(torch.float16).save_pretrained(folder)
        for name in KEPT:
            source = Path(model_dir) / name
            if source.is_file():
                shutil.copyfile(source, folder / name)
    return Path(output_dir)


def widen_front_end(model: Any) -> Any:
    """The same function with a wider last convolution (layer norm after it, none before the projection).

    S3PRL's format has a projection only where front end and encoder differ in width, and this model's do not.
    Each new channel is the mean of the old ones: it leaves their mean alone and is normalised to 0, and their
    variance shrinks by a constant that the norm's weight takes back.
    """
    import torch
    from transformers import HubertForCTC

    config = type(model.config).from_dict(model.config.to_dict())
    old = config.conv_dim[-1]
    new = old + EXTRA_CHANNELS
    config.conv_dim = [*config.conv_dim[:-1], new]
    weights = dict(model.state_dict())
    last = f"hubert.feature_extractor.conv_layers.{len(config.conv_dim) - 1}"
    mean = weights[f"{last}.conv.weight"].mean(dim=0, keepdim=True)
    weights[f"{last}.conv.weight"] = torch.cat(
        [weights[f"{last}.conv.weight"], mean.repeat(EXTRA_CHANNELS, 1, 1)]
    )
    scaled = weights[f"{last}.layer_norm.weight"] * (old / new) ** 0.5
    weights[f"{last}.layer_norm.weight"] = torch.cat([scaled, torch.ones(EXTRA_CHANNELS)])
    for name in (f"{last}.layer_norm.bias", "hubert.feature_projection.projection.weight"):
        nothing = torch.zeros(*weights[name].shape[:-1], EXTRA_CHANNELS)
        weights[name] = torch.cat([weights[name], nothing], dim=-1)
    wider = HubertForCTC(config).eval()
    wider.load_state_dict(weights)
    return wider


def main() -> None:
    """Ship from the command line."""
    parser = argument_parser("python -m demo.ship_teacher", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("model_dir", help="a folder of finetune.train")
    parser.add_argument("output_dir", help="the new folder")
    parser.add_argument("--overwrite", action="store_true", help="replace it if it is there")
    arguments = parser.parse_args()
    ship(arguments.model_dir, arguments.output_dir, overwrite=arguments.overwrite)


if __name__ == "__main__":
    run_command(main)
