"""What is in a checkpoint, without running any of it: `python -m conversion.inspect`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, one_line, run_command

EXAMPLES = """\
  python -m conversion.inspect distilhubert_ls960_4-8-12.ckpt
  python -m conversion.inspect hub:leo19941227/distilhubert/distilhubert_ls960_4-8-12.ckpt
"""


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in the file: its name, type (`float32`) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """What a file of `torch.save` holds.

    Attributes:
        file: the checkpoint.
        size: in bytes.
        sha256: of the file.
        parts: its parts (`Distiller`, `Config`, …) and what each is.
        tensors: of the model; of the whole file where it is none of S3PRL's distiller.
        settings: of the model, `Config['distiller']`; empty where there are none.
        target_layers: the teacher's layers that the heads predict; empty without heads.
        step: training step.
        foreign: names of other programs' classes and functions.
        refusal: why it cannot be converted; empty where it can.
    """

    file: Path
    size: int
    sha256: str
    parts: dict[str, str]
    tensors: tuple[TensorEntry, ...]
    settings: dict[str, Any]
    target_layers: tuple[int, ...]
    step: int | None
    foreign: tuple[str, ...]
    refusal: str

    @property
    def num_parameters(self) -> int:
        """Number of values in the tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def inspect(checkpoint: str | Path) -> Inspection:
    """Look into a checkpoint, also into one that is not S3PRL's.

    Args:
        checkpoint: a file, or `hub:OWNER/NAME/FILE`; nothing in it is run.

    Raises:
        UserError: it is no file of `torch.save` at all.
    """
    from conversion.archive import open_archive
    from conversion.sources import checkpoint_file
    from hf_distilhubert.folders import file_sha256

    file = checkpoint_file(checkpoint)
    with open_archive(file) as archive:
        content = archive.content if isinstance(archive.content, dict) else {"": archive.content}
        foreign = tuple(one_line(name, limit=100) for name in archive.foreign)
    refusal, settings, target_layers, step = _verdict(file)
    return Inspection(
        file=file,
        size=file.stat().st_size,
        sha256=file_sha256(file),
        parts={one_line(key, limit=60): _part(value) for key, value in content.items()},
        tensors=tuple(_tensors(content.get("Distiller", content))),
        settings=settings,
        target_layers=target_layers,
        step=step,
        foreign=foreign,
        refusal=refusal,
    )


def _verdict(file: Path) -> tuple[str, dict[str, Any], tuple[int, ...], int | None]:
    """Why the file cannot be converted (empty where it can), its settings, predicted layers and step."""
    import warnings

    from conversion.checkpoint import read_checkpoint
    from conversion.configuration import from_distiller
    from conversion.mapping import to_hugging_face

    settings: dict[str, Any] = {}
    layers: tuple[int, ...] = ()
    step = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # foreign objects have a line of their own
            source = read_checkpoint(file)
        settings, step = source.distiller, source.step
        config, heads = from_distiller(source.distiller)
        layers = heads.target_layers if heads is not None else ()
        to_hugging_face(source.weights, config, heads)
    except UserError as error:
        return one_line(error), settings, layers, step
    return "", settings, layers, step


def _part(value: Any) -> str:
    from conversion.checkpoint import describe

    if isinstance(value, dict):
        return f"{len(value)} entries"
    return f"a list of {len(value)}" if isinstance(value, list) else describe(value)


def _tensors(content: Any) -> list[TensorEntry]:
    """The tensors right in a dictionary, or one level below it."""
    from conversion.archive import TYPES
    from conversion.values import TensorRef

    def entries(values: Any, prefix: str) -> list[TensorEntry]:
        return [
            TensorEntry(
                one_line(f"{prefix}{key}", limit=200),
                str(TYPES.get(value.storage.kind, value.storage.kind)).removeprefix("torch."),
                value.shape,
            )
            for key, value in values.items()
            if isinstance(value, TensorRef)
        ]

    if not isinstance(content, dict):
        return []
    # Each dictionary once: many keys may lead to the same one.
    below = {id(value): (key, value) for key, value in content.items() if isinstance(value, dict)}
    nested = [entry for key, value in below.values() for entry in entries(value, f"{key}.")]
    return entries(content, "") or nested


def report(inspection: Inspection) -> str:
    """The inspection as lines for a terminal."""
    parts = [f"{key} ({what})" if key else what for key, what in inspection.parts.items()]
    lines = [
        f"file      {inspection.file} ({inspection.size:,} bytes)",
        f"sha256    {inspection.sha256}",
        f"parts     {', '.join(parts)}",
    ]
    if inspection.step is not None:
        lines.append(f"step      {inspection.step:,}")
    lines.append(f"tensors   {len(inspection.tensors)}, {inspection.num_parameters:,} parameters")
    width = max((len(tensor.name) for tensor in inspection.tensors), default=0)
    lines += [
        f"          {tensor.name:{width}}  {tensor.dtype}  {' x '.join(map(str, tensor.shape)) or 1}"
        for tensor in inspection.tensors
    ]
    if inspection.settings:
        lines.append("settings  Config['distiller']")
        lines += [
            f"          {one_line(key, limit=60)}: {one_line(json.dumps(value), limit=100)}"
            for key, value in inspection.settings.items()
        ]
        layers = ", ".join(map(str, inspection.target_layers))
        lines.append(f"heads     {f'they predict the layers {layers} of the teacher' if layers else 'none'}")
    lines.append(f"foreign   {', '.join(inspection.foreign) or 'none'}")
    lines.append(f"verdict   {inspection.refusal or 'can be converted'}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, inspect, and print what was found."""
    parser = argument_parser(
        "python -m conversion.inspect", "Say what is in a checkpoint, without running any of it.", EXAMPLES
    )
    parser.add_argument("checkpoint", help="a file, or hub:OWNER/NAME/FILE")
    print(report(inspect(parser.parse_args().checkpoint)))


if __name__ == "__main__":
    run_command(main)
