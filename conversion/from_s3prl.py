"""A checkpoint of S3PRL's distiller becomes a Transformers folder: `python -m conversion.from_s3prl`.

The weights are the checkpoint's, bit for bit; the folder gets its name once it was read back and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command

if TYPE_CHECKING:
    from conversion.checkpoint import Checkpoint
    from conversion.mapping import Heads

EXAMPLES = """\
  python -m conversion.from_s3prl distilhubert_ls960_4-8-12.ckpt distilhubert
  python -m conversion.from_s3prl student.ckpt student --keep_heads    # to go on with distillation
"""


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        folder: where the model lies.
        model_class: `HubertModel` or `HubertForLayerDistillation`.
        target_layers: the teacher's layers that the heads predict; empty without heads.
        num_parameters: number of parameters in the folder.
        step: training step of the checkpoint.
        sha256: of the checkpoint.
        foreign: objects of other programs that were left out.
    """

    folder: Path
    model_class: str
    target_layers: tuple[int, ...]
    num_parameters: int
    step: int
    sha256: str
    foreign: tuple[str, ...]


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    keep_heads: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write the student of a checkpoint as a folder that `HubertModel.from_pretrained` loads.

    Args:
        checkpoint: S3PRL's file; nothing in it is run.
        output_dir: the new folder.
        keep_heads: keep the prediction heads (`HubertForLayerDistillation`).
        overwrite: replace a folder that is there already.

    Raises:
        UserError: the checkpoint is not one of S3PRL's distiller, or Transformers cannot express it.
    """
    from conversion.checkpoint import read_checkpoint
    from conversion.configuration import from_distiller
    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.provenance import record

    check_new(output_dir, overwrite=overwrite)
    source = read_checkpoint(checkpoint)
    config, heads = from_distiller(source.distiller)
    if keep_heads and heads is None:
        raise UserError(f"{checkpoint} has no prediction heads; leave --keep_heads out")
    model, names = _student(source, config, heads, keep_heads)
    result = Conversion(
        folder=Path(output_dir),
        model_class=type(model).__name__,
        target_layers=heads.target_layers if heads is not None and keep_heads else (),
        num_parameters=model.num_parameters(),
        step=source.step,
        sha256=source.sha256,
        foreign=source.foreign,
    )
    with new_folder(output_dir, overwrite=overwrite) as folder:
        _save(folder, model)
        _write_account(folder, Path(checkpoint).name, source, names)
        settings = {"checkpoint": str(checkpoint), "keep_heads": keep_heads}
        record(folder, "convert", settings, _figures(result), source=checkpoint)
    return result


def _student(
    source: Checkpoint, config: Any, heads: Heads | None, keep_heads: bool
) -> tuple[Any, dict[str, str]]:
    """The model with the checkpoint's weights, and the new name of every tensor of the checkpoint."""
    from transformers import HubertModel

    from conversion.mapping import table, to_hugging_face
    from hf_distilhubert.heads import HubertForLayerDistillation, head_settings

    weights = to_hugging_face(source.weights, config, heads)
    names = {row.s3prl: row.hugging_face for row in table(config, heads)}
    if keep_heads and heads is not None:
        config.distillation = head_settings(heads.target_layers, heads.inner_size, heads.output_size)
        model: Any = HubertForLayerDistillation(config)
    else:
        model = HubertModel(config)
        weights = {_bare(name): tensor for name, tensor in weights.items() if name.startswith("hubert.")}
        names = {old: _bare(new) for old, new in names.items() if new.startswith("hubert.")}
    model.load_state_dict(weights, strict=True)
    return model.eval(), names


def _bare(name: str) -> str:
    return name.removeprefix("hubert.")


def _save(folder: Path, model: Any) -> None:
    """Write model and feature extractor, read the model back and compare it bit for bit."""
    import torch

    from hf_distilhubert.audio import feature_extractor
    from hf_distilhubert.loading import load_model, quiet_transformers

    with quiet_transformers():
        model.save_pretrained(folder)
    # S3PRL feeds raw waveforms and masks the padding, so users have to do the same.
    feature_extractor(do_normalize=False).save_pretrained(folder)
    saved = load_model(type(model), folder).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(saved[name], tensor):
            raise RuntimeError(f"{name} was not read back from {folder} as it was written")


def _write_account(folder: Path, name: str, source: Checkpoint, names: dict[str, str]) -> None:
    """`conversion.json`: where every tensor came from."""
    from hf_distilhubert.provenance import write_json

    account = {
        "source": name,
        "sha256": source.sha256,
        "step": source.step,
        "distiller": source.distiller,
        "left_out": list(source.foreign),
        "tensors": names,
    }
    write_json(folder / "conversion.json", account)


def _figures(result: Conversion) -> dict[str, Any]:
    return {
        "model_class": result.model_class,
        "keeps_heads": bool(result.target_layers),
        "target_layers": list(result.target_layers),
        "num_parameters": result.num_parameters,
        "step": result.step,
        "sha256": result.sha256,
    }


def main() -> None:
    """Read the command line, convert, and say what came out."""
    parser = argument_parser(
        "python -m conversion.from_s3prl",
        "Convert a checkpoint of S3PRL's distiller into a Transformers folder.",
        EXAMPLES,
    )
    parser.add_argument("checkpoint", help="S3PRL's file; nothing in it is run")
    parser.add_argument("output_dir", help="the new folder")
    parser.add_argument("--keep_heads", action="store_true", help="keep the prediction heads")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is there already")
    result = convert(**vars(parser.parse_args()))
    print(f"{result.folder}: {result.model_class}, {result.num_parameters:,} parameters, read back and equal")


if __name__ == "__main__":
    run_command(main)
