"""The text that describes S3PRL's front end, such as `[(512,10,5)] + [(512,3,2)] * 4`, without `eval`."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, TypeGuard

from hf_distilhubert.errors import UserError

PAPER_CONV_LAYERS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
MAX_CONV_LAYERS = 100
MAX_LENGTH = 1_000  # of the text
MAX_RECEPTIVE_FIELD = 4_000  # samples that a frame hears, ten times HuBERT's
NUMBER = r" *([1-9][0-9]{0,4}) *"
TRIPLE = re.compile(rf"\({NUMBER},{NUMBER},{NUMBER}\)")
PLAIN_TRIPLE = TRIPLE.pattern.replace("([", "(?:[")
TERM = re.compile(
    rf" *\[((?: *{PLAIN_TRIPLE} *,)* *{PLAIN_TRIPLE} *),? *\] *(?:\* *(?P<repeats>[1-9][0-9]?) *)?"
)


def parse_conv_layers(text: object) -> list[tuple[int, int, int]]:
    """Size, kernel and stride of each convolution.

    S3PRL hands the text (of a list, if it is one) to `eval`; here it is a sum of lists of triples, repeated
    or not, and nothing else.

    Raises:
        UserError: it is anything else, or more than a speech model has.
    """
    # A list of triples is what S3PRL makes a text of before it evaluates it.
    given = str([tuple(triple) for triple in text]) if _is_list_of_triples(text) else text
    layers: list[tuple[int, int, int]] = []
    for part in given.split("+") if isinstance(given, str) and len(given) <= MAX_LENGTH else [""]:
        match = TERM.fullmatch(part)
        if match is None:
            raise UserError(
                f"the checkpoint's config has extractor_conv_feature_layers = {str(given)[:100]!r}; "
                f"expected a text such as {PAPER_CONV_LAYERS!r}"
            )
        triples = [(int(size), int(kernel), int(stride)) for size, kernel, stride in TRIPLE.findall(match[1])]
        layers.extend(triples * int(match["repeats"] or 1))
        if len(layers) > MAX_CONV_LAYERS:
            raise UserError(
                "the checkpoint's config has extractor_conv_feature_layers of more than "
                f"{MAX_CONV_LAYERS} convolutions; HuBERT has 7"
            )
    if receptive_field(layers) > MAX_RECEPTIVE_FIELD:
        raise UserError(
            f"the checkpoint's config has extractor_conv_feature_layers whose frames hear "
            f"{receptive_field(layers)} samples; allowed: {MAX_RECEPTIVE_FIELD} (HuBERT's hear 400)"
        )
    return layers


def format_conv_layers(layers: list[tuple[int, int, int]]) -> str:
    """The way back: a text that `parse_conv_layers` (and S3PRL) reads as these layers."""
    terms = []
    for (size, kernel, stride), group in groupby(layers):
        repeats = len(list(group))
        terms.append(f"[({size},{kernel},{stride})]" + (f" * {repeats}" if repeats > 1 else ""))
    return " + ".join(terms)


def receptive_field(layers: list[tuple[int, int, int]]) -> int:
    """How many samples a frame of these convolutions hears."""
    field, step = 1, 1
    for _, kernel, stride in layers:
        field, step = field + (kernel - 1) * step, step * stride
    return field


def _is_list_of_triples(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) <= MAX_CONV_LAYERS and all(map(_is_triple, value))


def _is_triple(value: object) -> bool:
    return isinstance(value, list | tuple) and [type(item) for item in value] == [int] * 3
