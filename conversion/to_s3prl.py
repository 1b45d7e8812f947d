"""A student's Transformers folder becomes a checkpoint of S3PRL's distiller: `python -m conversion.to_s3prl`.

S3PRL's `distiller_local` loads the file, so a student can be put through its SUPERB tasks. These add up all
hidden states, the heads' predictions among them, unless told which one to take: where teacher and student
differ in width there is no such sum, and `-s paper` takes the student's last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.folders import resolved

EXAMPLES = """\
  python -m conversion.to_s3prl student student.ckpt
  python -m conversion.to_s3prl runs/distilled student.ckpt --overwrite
"""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        file: the checkpoint.
        target_layers: the teacher's layers that its heads predict; empty without heads.
        tensors: number of tensors.
        num_parameters: number of values in them.
    """

    file: Path
    target_layers: tuple[int, ...]
    tensors: int
    num_parameters: int


def export(model_dir: str | Path, output: str | Path, *, overwrite: bool = False) -> Export:
    """Write a student in S3PRL's format.

    Args:
        model_dir: a folder of `HubertForLayerDistillation` or `HubertModel`, or its name on the Hub.
        output: the new file.
        overwrite: replace a file that is there already.

    Raises:
        UserError: the folder holds no student, or one that S3PRL's distiller cannot be.
    """
    from conversion.checkpoint import check_new_file, write_checkpoint
    from conversion.configuration import to_distiller
    from conversion.mapping import to_s3prl

    check_new_file(output, overwrite=overwrite)
    if Path(model_dir).is_dir() and resolved(output).is_relative_to(resolved(model_dir)):
        raise UserError(f"{output} lies in {model_dir}, the model's folder; choose another output file")
    weights, config, heads = _load_student(model_dir)
    distiller = to_distiller(config, heads)
    weights = to_s3prl(weights, config, heads)
    file = write_checkpoint(output, weights, distiller, overwrite=overwrite)
    return Export(
        file=file,
        target_layers=heads.target_layers if heads is not None else (),
        tensors=len(weights),
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
    )


def _load_student(model_dir: str | Path) -> tuple[dict[str, Any], Any, Any]:
    """Weights under the names of `HubertForLayerDistillation`, config, and heads (`None` without them)."""
    from transformers import AutoConfig, HubertModel

    from conversion.mapping import Heads
    from hf_distilhubert.heads import HubertForLayerDistillation, distillation_settings
    from hf_distilhubert.loading import load
    from hf_distilhubert.objective import PAPER_OBJECTIVE

    config = load(AutoConfig, model_dir)
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture not in ("HubertForLayerDistillation", "HubertModel"):
        raise UserError(
            f"{model_dir} holds a {architecture or config.model_type}; S3PRL's distiller is a student alone "
            "(HubertModel) or with its prediction heads (HubertForLayerDistillation): give such a folder"
        )
    if architecture == "HubertModel":
        weights = _load_weights(HubertModel, model_dir)
        return {f"hubert.{name}": tensor for name, tensor in weights.items()}, config, None
    settings = distillation_settings(config)
    if settings["objective"] != PAPER_OBJECTIVE:
        # S3PRL's heads all predict a layer of the teacher from the student's last one; others have no place.
        weights = _load_weights(HubertForLayerDistillation, model_dir)
        return {name: weights[name] for name in weights if name.startswith("hubert.")}, config, None
    heads = Heads(tuple(settings["target_layers"]), settings["head_inner_size"], settings["head_output_size"])
    return _load_weights(HubertForLayerDistillation, model_dir), config, heads


def _load_weights(model_class: Any, model_dir: str | Path) -> dict[str, Any]:
    """The model's tensors in float32; ones that Transformers would have made up are refused."""
    from hf_distilhubert.loading import load

    model, report = load(model_class, model_dir, dtype="float32", output_loading_info=True)
    wrong = sorted(
        map(str, [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]])
    )
    if wrong:
        raise UserError(
            f"the weights in {model_dir} do not fit its config: {wrong[0]} is missing, unknown or misshapen "
            f"({len(wrong)} such); give the whole folder as it was saved"
        )
    return dict(model.state_dict())


def main() -> None:
    """Read the command line, export, and say what came out."""
    parser = argument_parser(
        "python -m conversion.to_s3prl",
        "Write a student's folder as a checkpoint that S3PRL's distiller loads. Where its heads predict\n"
        "another width than the student's own, run SUPERB with `-s paper`: it cannot add up both.",
        EXAMPLES,
    )
    parser.add_argument("model_dir", help="a folder, or a name on the Hub")
    parser.add_argument("output", help="the new file, e.g. student.ckpt")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    result = export(**vars(parser.parse_args()))
    print(f"{result.file}: {result.tensors} tensors, {result.num_parameters:,} parameters")


if __name__ == "__main__":
    run_command(main)
