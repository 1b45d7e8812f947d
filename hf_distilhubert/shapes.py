"""The shape of a student: what it has less of than its teacher, and which layers start it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hf_distilhubert.errors import UserError

# Named shapes; their sizes are shares of the teacher's, so that a small teacher gets a smaller student.
SHAPES = ("paper", "narrow", "deep")
NARROW_FRONT_END = tuple(Fraction(eighths, 8) for eighths in (1, 2, 3, 4, 6, 8, 8))
DEEP_LAYERS, DEEP_HIDDEN, DEEP_INTERMEDIATE = 10, Fraction(5, 8), Fraction(5, 16)

FIRST, EVEN = "first", "even"
TEACHER, RANDOM = "teacher", "random"


@dataclass(frozen=True)
class StudentShape:
    """How a student differs from its teacher; None stands for as much as the teacher has.

    Attributes:
        num_hidden_layers: Transformer layers.
        start_layers: the teacher's layers that they start with: `first`, `even` (from the first to the last,
            evenly spaced) or a number for each, from 1.
        hidden_size: width of the Transformer.
        intermediate_size: width of its feed-forward parts.
        num_attention_heads: attention heads.
        conv_dim: channels of each convolution of the front end; kernels and strides stay the teacher's.
        initial: `teacher`, cut to the channels of largest norm where it is wider, or `random`.
    """

    num_hidden_layers: int | None = 2
    start_layers: str | Sequence[int] = FIRST
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    conv_dim: Sequence[int] | None = None
    initial: str = TEACHER


def student_shape(name: str, teacher: Any, **changes: Any) -> StudentShape:
    """A named shape for this teacher, with changes.

    For HuBERT Base, parameters without the heads:

    - `paper`: the teacher's widths and first two layers; 23.5 M.
    - `narrow`: the same behind a front end of 64, 128, 192, 256, 384, 512, 512 channels; 20.7 M.
    - `deep`: that front end and ten layers of 480; 22.0 M. What that size leaves open was chosen here: 960
      feed-forward units, the teacher's number of heads (so of 40 each), layers evenly spaced. A teacher of
      fewer layers starts as many as it has.

    Args:
        name: one of `SHAPES`.
        teacher: the teacher's config.
        **changes: fields of `StudentShape` that are to be others; None leaves one as the shape has it.
            `start_layers` may be a list of words, as a command line gives it.

    Raises:
        UserError: there is no such shape, or it is not to be had in whole channels from this teacher.
    """
    if name not in SHAPES:
        raise UserError(f"a student of shape {name!r} is unknown; give one of {', '.join(SHAPES)}")
    values: dict[str, Any] = {}
    if name != "paper":
        values["conv_dim"] = _narrow_front_end(name, teacher)
    if name == "deep":
        values |= {
            "num_hidden_layers": min(DEEP_LAYERS, teacher.num_hidden_layers),
            "start_layers": EVEN,
            "hidden_size": _share(name, DEEP_HIDDEN, teacher.hidden_size, "hidden_size"),
            "intermediate_size": _share(
                name, DEEP_INTERMEDIATE, teacher.intermediate_size, "intermediate_size"
            ),
        }
    values |= {field: value for field, value in changes.items() if value is not None}
    if "start_layers" in changes and changes["start_layers"] is not None:
        values["start_layers"] = _read_start_layers(changes["start_layers"])
    return StudentShape(**values)


def _narrow_front_end(name: str, teacher: Any) -> tuple[int, ...]:
    if len(teacher.conv_dim) != len(NARROW_FRONT_END):
        raise UserError(
            f"the shape {name} is one of {len(NARROW_FRONT_END)} convolutions, and the teacher has "
            f"{len(teacher.conv_dim)}; give the shape paper and a conv_dim of your own"
        )
    pairs = zip(NARROW_FRONT_END, teacher.conv_dim, strict=True)
    return tuple(_share(name, share, size, "conv_dim") for share, size in pairs)


def _share(name: str, share: Fraction, size: int, field: str) -> int:
    part = share * size
    if part.denominator != 1:
        raise UserError(
            f"the shape {name} has {share} of the teacher's {field}, which is {size}; "
            f"give the shape paper and a {field} of your own"
        )
    return int(part)


def _read_start_layers(given: str | Sequence[Any]) -> str | tuple[int, ...]:
    """`first`, `["even"]` and `["1", "5"]`, as flags and YAML give them."""
    words = [given] if isinstance(given, str) else list(given)
    if len(words) == 1 and words[0] in (FIRST, EVEN):
        return str(words[0])
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        said = " ".join(map(str, words))
        raise UserError(f"start_layers is {said}; give {FIRST}, {EVEN} or numbers of layers") from None


def student_sizes(shape: StudentShape, teacher: Any) -> dict[str, Any]:
    """The sizes of a `HubertConfig` of this shape.

    Raises:
        UserError: they do not go together, or with the teacher's kernels.
    """
    fields = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "conv_dim")
    sizes = {field: getattr(shape, field) for field in fields}
    sizes = {field: getattr(teacher, field) if size is None else size for field, size in sizes.items()}
    sizes["conv_dim"] = list(sizes["conv_dim"])
    if len(sizes["conv_dim"]) != len(teacher.conv_kernel):
        raise UserError(
            f"conv_dim has {len(sizes['conv_dim'])} sizes; give {len(teacher.conv_kernel)}, one for each of "
            "the teacher's convolutions"
        )
    for field, size in sizes.items():
        if min(size if field == "conv_dim" else [size]) < 1:
            raise UserError(f"{field} is {size}; give 1 or more")
    parts = {
        "attention heads": sizes["num_attention_heads"],
        "groups of the teacher's positional convolution": teacher.num_conv_pos_embedding_groups,
    }
    for name, count in parts.items():
        if sizes["hidden_size"] % count:
            raise UserError(
                f"hidden_size {sizes['hidden_size']} cannot be shared by {count} {name}; give a multiple"
            )
    return sizes


def start_layers(shape: StudentShape, teacher: Any) -> list[int]:
    """Numbers of the teacher's layers that start the student's, one each; none where it starts at random.

    `even` goes from the first to the last and is, for 6 of 12, what DistilBERT took: 1, 3, 5, 8, 10, 12.

    Raises:
        UserError: the teacher has no such layers, or there are not as many as the student has.
    """
    if shape.initial not in (TEACHER, RANDOM):
        raise UserError(f"initial is {shape.initial!r}; give {TEACHER} or {RANDOM}")
    if shape.initial == RANDOM:
        return []
    depth = teacher.num_hidden_layers
    count = depth if shape.num_hidden_layers is None else shape.num_hidden_layers
    if not 1 <= count <= depth:
        raise UserError(f"a student of {count} layers; 1 to {depth} can come from this teacher")
    if shape.start_layers == FIRST:
        return list(range(1, count + 1))
    if shape.start_layers == EVEN:
        return [1 + round(i * (depth - 1) / max(count - 1, 1)) for i in range(count)]
    if isinstance(shape.start_layers, str):
        raise UserError(
            f"start_layers is {shape.start_layers}; give {FIRST}, {EVEN} or a list of numbers of layers"
        )
    if len(shape.start_layers) != count:
        raise UserError(
            f"start_layers names {len(shape.start_layers)} layers for a student of {count}; give one for each"
        )
    wrong = [layer for layer in shape.start_layers if not 1 <= layer <= depth]
    if wrong:
        raise UserError(f"the teacher has no layer {wrong[0]} to start from; its layers are 1 to {depth}")
    return list(shape.start_layers)
