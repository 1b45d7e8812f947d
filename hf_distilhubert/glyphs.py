"""Text that the installed fonts can draw: other fonts where the first lacks a character, else its number."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.font_manager import fontManager, get_font

FIRST = "DejaVu Sans"  # comes with matplotlib
CIRCLE = "\N{DOTTED CIRCLE}"  # what a mark stands on that stands on nothing


def families(texts: Iterable[str]) -> list[str]:
    """The first font, and those of the others that draw what it lacks."""
    found = {family for text in texts for character in text if (family := _family(character))}
    return [FIRST, *sorted(found - {FIRST})]


def legible(text: str) -> str:
    """The same text, with `U+4E2D` for what cannot be drawn or seen, and a circle for a mark to stand on."""
    if is_mark(text) and _family(text):
        return CIRCLE + text
    return "".join(character if _family(character) else code_point(character) for character in text)


def is_mark(text: str) -> bool:
    """Whether it is one character that stands on the one before it, such as an accent."""
    return len(text) == 1 and unicodedata.category(text).startswith("M")


def code_point(character: str) -> str:
    """The number that Unicode gives a character."""
    return f"U+{ord(character):04X}"


@cache
def _family(character: str) -> str | None:
    """The font that draws a character, None where none does."""
    if not character.isprintable():
        return None
    if ord(character) in _characters(FIRST):
        return FIRST
    return next((name for name in _others() if ord(character) in _characters(name)), None)


@cache
def _others() -> tuple[str, ...]:
    """The installed fonts, without matplotlib's own for formulas, and pictures."""
    own = Path(mpl.get_data_path())
    upright = (
        entry for entry in fontManager.ttflist if (entry.style, str(entry.weight)) == ("normal", "400")
    )
    found = {entry.name for entry in upright if own not in Path(entry.fname).parents}
    return tuple(sorted(name for name in found if "emoji" not in name.lower()))


@cache
def _characters(family: str) -> frozenset[int]:
    try:
        return frozenset(get_font(fontManager.findfont(family)).get_charmap())
    except (OSError, RuntimeError):  # a file that went away, or no font
        return frozenset()
