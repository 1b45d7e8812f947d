"""The flags of beam search, for every command that decodes; light to import."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hf_distilhubert.errors import UserError

if TYPE_CHECKING:
    from hf_distilhubert.ctc_decoding import Decoder

# Their defaults are those of `beam_search.BeamSettings`.
SETTINGS = {"beam_width": "width", "language_weight": "weight", "word_bonus": "bonus"}


def add_beam_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags; without any of them decoding is greedy."""
    group = parser.add_argument_group("beam search (any of these turns it on)")
    group.add_argument(
        "--language_model",
        metavar="FILE",
        help="words or characters in ARPA format, see finetune.language_model",
    )
    group.add_argument(
        "--hot_words",
        nargs="+",
        metavar="WORD",
        help="words that are likely here, or WORD:BONUS (default: 5)",
    )
    group.add_argument("--beam_width", type=int, help="texts that are kept at once (default: 64)")
    group.add_argument(
        "--language_weight", type=float, help="of the language model beside the sound (default: 0.5)"
    )
    group.add_argument("--word_bonus", type=float, help="for each of its words, or characters (default: 1)")


def take_decoder(arguments: dict[str, Any]) -> Callable[[Any], Decoder] | None:
    """Take the flags out of the arguments of a command; None decodes greedily.

    Raises:
        UserError: see `beam_decoder`, or the width is none.
    """
    model, words = arguments.pop("language_model"), arguments.pop("hot_words")
    given = {name: arguments.pop(flag) for flag, name in SETTINGS.items()}
    settings = {name: value for name, value in given.items() if value is not None}
    if model is None and words is None and not settings:
        return None
    if settings.get("width", 1) < 1:
        raise UserError(f"--beam_width {settings['width']}; give a number from 1")
    for flag, name in SETTINGS.items():
        if not math.isfinite(settings.get(name, 0)):
            raise UserError(f"--{flag} {settings[name]}; give a number")
        if name != "width" and name in settings and model is None:
            raise UserError(f"--{flag} is about words that a --language_model knows; give one")
    from hf_distilhubert.beam_decoder import beam_decoder

    return beam_decoder(language_model=model, hot_words=words or (), **settings)
