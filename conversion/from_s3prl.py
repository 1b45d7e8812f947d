"""A checkpoint of S3PRL's distiller becomes a Transformers folder: `python -m conversion.from_s3prl`.

The weights are the checkpoint's, bit for bit; the folder gets its name once it was read back from disk,
compared, and found to compute what S3PRL computes.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, one_line, run_command

if TYPE_CHECKING:
    from conversion.checkpoint import Checkpoint
    from conversion.parity import PartParity
    from conversion.students import Student

DTYPES = ("float32", "float16")
EXAMPLES = """\
  python -m conversion.from_s3prl distilhubert_ls960_4-8-12.ckpt distilhubert
  python -m conversion.from_s3prl hub:leo19941227/distilhubert/distilhubert_ls960_4-8-12.ckpt distilhubert
  python -m conversion.from_s3prl student.ckpt student --keep_heads       # to go on with distillation
  python -m conversion.from_s3prl student.ckpt student --ctc vocab.json   # to go on with fine-tuning
  python -m conversion.from_s3prl student.ckpt student --verify speech.wav more.flac
"""


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        folder: where the model lies.
        model_class: `HubertModel`, `HubertForLayerDistillation` or `HubertForCTC`.
        dtype: type of the weights in the folder.
        target_layers: the teacher's layers that the heads predict; empty without heads.
        num_parameters: number of parameters in the folder.
        vocabulary_size: number of a CTC head's tokens; None for the other classes.
        step: training step of the checkpoint.
        sha256: of the checkpoint.
        foreign: objects of other programs that were left out.
        parity: the folder against S3PRL's arithmetic, part by part.
        verified_on: the sound that this was computed on.
    """

    folder: Path
    model_class: str
    dtype: str
    target_layers: tuple[int, ...]
    num_parameters: int
    vocabulary_size: int | None
    step: int
    sha256: str
    foreign: tuple[str, ...]
    parity: tuple[PartParity, ...]
    verified_on: str


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    keep_heads: bool = False,
    ctc: str | Path | None = None,
    dtype: str = "float32",
    verify: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Conversion:
    """Write the student of a checkpoint as a folder that `HubertModel.from_pretrained` loads.

    Args:
        checkpoint: S3PRL's file, or `hub:OWNER/NAME/FILE`; nothing in it is run.
        output_dir: the new folder.
        keep_heads: keep the prediction heads (`HubertForLayerDistillation`).
        ctc: a `vocab.json` or a processor's folder: `HubertForCTC` with a new, untrained head for it.
        dtype: type of the weights in the folder, `float32` or `float16`.
        verify: recordings on which the folder is compared with S3PRL's arithmetic; made-up sound without.
        overwrite: replace a folder that is there already.

    Raises:
        UserError: the checkpoint is not one of S3PRL's distiller, or Transformers cannot express it.
    """
    from conversion.checkpoint import read_checkpoint
    from conversion.parity import verification_clips
    from conversion.sources import checkpoint_file
    from conversion.students import make_student
    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.provenance import record, short_name

    check_new(output_dir, overwrite=overwrite, keep=[checkpoint, ctc, *verify])
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; allowed: {', '.join(DTYPES)}")
    clips = verification_clips(verify)
    source = read_checkpoint(checkpoint_file(checkpoint))
    student = make_student(source, keep_heads=keep_heads, ctc=ctc, dtype=dtype)
    with new_folder(output_dir, overwrite=overwrite) as folder:
        _save(folder, student)
        parity = _compare(source, student.model, clips, dtype)
        result = _result(Path(output_dir), source, student, dtype, parity, verify)
        _write_account(folder, checkpoint, source, student, result)
        names = {"checkpoint": short_name(checkpoint), "ctc": short_name(ctc)}
        settings = names | {"keep_heads": keep_heads, "dtype": dtype, "verify": [*map(short_name, verify)]}
        record(folder, "convert", settings, _figures(result), source=checkpoint)
    return result


def _save(folder: Path, student: Student) -> None:
    """Write model and processor, read the model back and compare it bit for bit."""
    import torch
    from safetensors import SafetensorError

    from hf_distilhubert.loading import load_model, quiet_transformers

    try:
        with quiet_transformers():
            student.model.save_pretrained(folder)
        student.save_processor(folder)
    except SafetensorError as error:  # its word for a full disk
        raise UserError(f"cannot write the weights: {one_line(error, 200)}; make room for them") from error
    saved = load_model(type(student.model), folder, dtype=student.model.dtype).state_dict()
    for name, tensor in student.model.state_dict().items():
        if not torch.equal(saved[name], tensor):
            raise RuntimeError(f"{name} was not read back from {folder} as it was written")
    # A model points to itself, so its memory would stay until the next collection.
    del saved
    gc.collect()


def _compare(source: Checkpoint, model: Any, clips: Any, dtype: str) -> list[PartParity]:
    """The model, equal to what was saved, against S3PRL's arithmetic; full precision has to agree."""
    from conversion.parity import TOLERANCE, compare

    parity = compare(source.weights, source.distiller, model.float(), clips)
    wrong = next((part for part in parity if not part.is_equal), None)
    if wrong is not None and not math.isfinite(wrong.relative_difference):
        raise UserError(
            f"what {source.path} computes is not finite, from its {wrong.name} on; give a trained model"
        )
    if wrong is not None and dtype == "float32":
        raise RuntimeError(
            f"{wrong.name} differs from S3PRL's arithmetic by {wrong.relative_difference:.1e} of its largest "
            f"value; expected at most {TOLERANCE:.0e}"
        )
    return parity


def _result(
    folder: Path,
    source: Checkpoint,
    student: Student,
    dtype: str,
    parity: Sequence[PartParity],
    verify: Sequence[str | Path],
) -> Conversion:
    return Conversion(
        folder=folder,
        model_class=type(student.model).__name__,
        dtype=dtype,
        target_layers=student.target_layers,
        num_parameters=student.model.num_parameters(),
        vocabulary_size=student.vocabulary_size,
        step=source.step,
        sha256=source.sha256,
        foreign=source.foreign,
        parity=tuple(parity),
        verified_on=", ".join(Path(path).name for path in verify) or "made-up sound",
    )


def _write_account(
    folder: Path, checkpoint: str | Path, source: Checkpoint, student: Student, result: Conversion
) -> None:
    """`conversion.json`, where every tensor came from, and the first card."""
    from conversion.first_card import first_card
    from hf_distilhubert.provenance import short_name, write_json

    account = {
        "source": short_name(checkpoint),
        **_figures(result),
        "distiller": source.distiller,
        "left_out": list(source.foreign),
        "parity": [asdict(part) for part in result.parity],
        "verified_on": result.verified_on,
        "tensors": student.names,
    }
    write_json(folder / "conversion.json", account)
    (folder / "README.md").write_text(first_card(account), encoding="utf-8")


def _figures(result: Conversion) -> dict[str, Any]:
    return {
        "sha256": result.sha256,
        "step": result.step,
        "model_class": result.model_class,
        "dtype": result.dtype,
        "keeps_heads": bool(result.target_layers),
        "target_layers": list(result.target_layers),
        "vocabulary_size": result.vocabulary_size,
        "num_parameters": result.num_parameters,
    }


def main() -> None:
    """Read the command line, convert, and say what came out."""
    parser = argument_parser(
        "python -m conversion.from_s3prl",
        "Convert a checkpoint of S3PRL's distiller into a Transformers folder.",
        EXAMPLES,
    )
    parser.add_argument("checkpoint", help="S3PRL's file, or hub:OWNER/NAME/FILE; nothing in it is run")
    parser.add_argument("output_dir", help="the new folder")
    parser.add_argument("--keep_heads", action="store_true", help="keep the prediction heads")
    parser.add_argument(
        "--ctc", metavar="VOCABULARY", help="vocab.json or a processor's folder: HubertForCTC with a new head"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights in the folder")
    parser.add_argument(
        "--verify",
        nargs="*",
        metavar="AUDIO",
        help="print how far the folder is from S3PRL's arithmetic, on these recordings or made-up sound",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is there already")
    arguments = parser.parse_args()
    result = convert(**vars(arguments) | {"verify": arguments.verify or ()})
    if arguments.verify is not None:
        from conversion.parity import parity_table

        print(parity_table(result.parity))
    worst = max(part.relative_difference for part in result.parity)
    print(
        f"{result.folder}: {result.model_class}, {result.num_parameters:,} parameters, read back and equal; "
        f"within {worst:.1e} of S3PRL's arithmetic"
    )


if __name__ == "__main__":
    run_command(main)
