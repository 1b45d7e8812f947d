"""The first card of a converted folder: what its conversion knows (`first_card.md` is the template).

Names in a checkpoint come from strangers: they stand in code spans, where Markdown and HTML mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_UP, Context
from pathlib import Path
from typing import Any

from conversion.configuration import from_distiller
from hf_distilhubert.errors import one_line

NAME_LENGTH = 120
MAX_NAMES = 20  # of foreign objects; conversion.json has them all
# What the card shows of each class: a field of its output, and the shape of that.
OUTPUTS = {
    "HubertModel": ("last_hidden_state", "(clip, frame, feature)"),
    "HubertForLayerDistillation": ("predictions", "(clip, head, frame, feature)"),
    "HubertForCTC": ("logits", "(clip, frame, token)"),
}


def first_card(account: Mapping[str, Any]) -> str:
    """The README.md of a converted folder, metadata first.

    Args:
        account: what `conversion.json` holds.
    """
    import jinja2
    from huggingface_hub import ModelCardData

    model_class = account["model_class"]
    recognises = model_class == "HubertForCTC"
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition" if recognises else "feature-extraction",
        tags=["speech", "hubert", "distilhubert"] + ["ctc"] * recognises,
    )
    # Markdown, not HTML: what comes from the checkpoint is made safe by `code`.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"code": _code, "rounded_up": _rounded_up}
    config, heads = from_distiller(account["distiller"])
    output, shape = OUTPUTS[model_class]
    body = environment.get_template("first_card.md").render(
        account,
        config=config,
        heads=heads,
        recognises=recognises,
        keeps_heads=model_class == "HubertForLayerDistillation",
        output=output,
        shape=shape,
        MAX_NAMES=MAX_NAMES,
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _code(name: object) -> str:
    """A name in a code span that it cannot end: one printable line of limited length, without backticks."""
    return f"`{one_line(name, NAME_LENGTH).replace('`', chr(39)) or '?'}`"


def _rounded_up(value: float | None) -> str:
    """0.00000031234 -> `3.2e-07`: a difference is never told smaller than it is."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{float(Context(prec=2, rounding=ROUND_UP).create_decimal_from_float(value)):.1e}"
