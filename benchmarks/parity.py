"""Converted students against S3PRL's own outputs: `python -m benchmarks.parity GOLDEN_FOLDER`.

The folder holds pairs `NAME.ckpt` and `NAME.expected.safetensors`, the outputs that S3PRL computed from it on
a padded batch with its mask. A figure is the largest difference over valid frames, as a share of the largest
value; the last column is a clip of the batch alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command

EXAMPLES = "  python -m benchmarks.parity ../shared/golden/conversion\n"
COLUMNS = ("variant", "front end", "projection", "layers", "predictions", "single clip")


def figures(checkpoint: Path) -> list[float | None]:
    """The figures of one checkpoint; None for predictions where it has no heads."""
    from safetensors.torch import load_file

    from hf_distilhubert.s3prl_features import student_parts

    expected = load_file(checkpoint.with_suffix(".expected.safetensors"))
    model = _converted(checkpoint)
    lengths = expected["lengths"].tolist()
    clips = [clip[:length] for clip, length in zip(expected["input_values"], lengths, strict=True)]
    valid = expected["frame_mask"].bool()
    actual = student_parts(model, clips)

    def share(ours: Any, theirs: Any) -> float:
        return float((ours - theirs).abs().max() / theirs.abs().max())

    layers = [name for name in actual if name.startswith("hidden_states.")]
    heads = range(actual["predictions"].shape[1] if "predictions" in actual else 0)
    alone = student_parts(model, [clips[1]])[layers[-1]]
    return [
        share(actual["conv_features"][valid], expected["conv_features"][valid]),
        share(actual["projected_features"][valid], expected["projected_features"][valid]),
        max(share(actual[name][valid], expected[name][valid]) for name in layers),
        max(
            (share(actual["predictions"][:, i][valid], expected["predictions"][:, i][valid]) for i in heads),
            default=None,
        ),
        share(alone, expected["single_1.last_hidden_state"]),
    ]


def _converted(checkpoint: Path) -> Any:
    """The student, with its heads where it has any, as it comes from the disk."""
    from transformers import HubertModel

    from conversion.checkpoint import read_checkpoint
    from conversion.configuration import from_distiller
    from conversion.from_s3prl import convert
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.loading import load_model

    keep_heads = from_distiller(read_checkpoint(checkpoint).distiller)[1] is not None
    with tempfile.TemporaryDirectory() as folder:
        result = convert(checkpoint, Path(folder, "student"), keep_heads=keep_heads)
        return load_model(HubertForLayerDistillation if keep_heads else HubertModel, result.folder)


def main() -> None:
    """Print the figures as a Markdown table."""
    import torch

    parser = argument_parser("python -m benchmarks.parity", __doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("folder", help="holds NAME.ckpt and NAME.expected.safetensors")
    checkpoints = sorted(Path(parser.parse_args().folder).glob("*.ckpt"))
    if not checkpoints:
        raise UserError("the folder holds no NAME.ckpt; give one with files of S3PRL's")
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n|---{'|--:' * 5}|")
    for checkpoint in checkpoints:
        shown = ["-" if value is None else f"{value:.1e}" for value in figures(checkpoint)]
        print(f"| {checkpoint.stem} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    run_command(main)
