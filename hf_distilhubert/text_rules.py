"""Which normal form the texts of a recogniser have: chosen once, saved with its weights, used ever after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError
from hf_distilhubert.provenance import write_json
from hf_distilhubert.text import CASES, basic, english, plain

Normaliser = Callable[[str], str]

PRESETS: dict[str, Callable[[str, str], str]] = {"basic": basic, "english": english, "none": plain}
CUSTOM = "custom"
TEXT_RULES = "text.json"
EXPECTED = f'expected {{"text": "{"|".join(PRESETS)}", "case": "{"|".join(CASES)}"}}'


@dataclass(frozen=True)
class TextRules:
    """Brings transcripts to the form that a recogniser writes: `rules(text)`.

    Attributes:
        text: `basic`, `english`, `none`, or `custom` for a function of one's own.
        case: `lower`, `upper` or `keep`; a function of one's own sees to it itself.
        function: that function. It cannot be saved: rules that are read back lack it, and refuse to work.
        name: of the function, for people to recognise it by.
    """

    text: str = "basic"
    case: str = "lower"
    function: Normaliser | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.text not in (*PRESETS, CUSTOM) or self.case not in CASES:
            raise UserError(
                f"there is no text {self.text!r} in case {self.case!r}; text is one of {', '.join(PRESETS)} "
                f"(from Python also a function), case one of {', '.join(CASES)}"
            )

    def __call__(self, text: str) -> str:
        """The text in normal form.

        Raises:
            UserError: the rules are a function that is not there.
        """
        if self.text != CUSTOM:
            return PRESETS[self.text](text, self.case)
        if self.function is None:
            raise UserError(
                f"this recogniser's texts were normalised by a function ({self.name or 'its name is lost'}), "
                "which no folder can hold; give that function from Python, or take another normal form "
                f"knowingly: --text {', '.join(PRESETS)}"
            )
        found = self.function(text)
        if not isinstance(found, str):
            raise UserError(f"{self.name} made {found!r} of a text; it has to return a str")
        return plain(found)

    def __str__(self) -> str:
        """In words."""
        cases = {"lower": "lower case", "upper": "upper case", "keep": "case as it is"}
        return self.name if self.text == CUSTOM else f"{self.text}, {cases[self.case]}"

    def save(self, folder: Path) -> None:
        """Write `text.json`."""
        values = {"text": self.text, "case": self.case} | ({"name": self.name} if self.name else {})
        write_json(folder / TEXT_RULES, values)


def text_rules(text: str | Normaliser = "basic", case: str | None = None) -> TextRules:
    """Rules by name, or from a function of one's own.

    Args:
        text: `basic`, `english`, `none`, or a function from a text to its normal form.
        case: `lower`, `upper` or `keep`; None is `lower`, and `keep` for `none`.

    Raises:
        UserError: there are no such rules.
    """
    if isinstance(text, TextRules):
        return text
    if callable(text):
        if case is not None:
            raise UserError(f"case {case!r} beside a function: the function sees to the case; leave it out")
        name = f"{getattr(text, '__module__', '')}.{getattr(text, '__qualname__', type(text).__qualname__)}"
        return TextRules(CUSTOM, "keep", text, name)
    if text == CUSTOM:
        raise UserError(
            f"text {CUSTOM!r} stands for a function; give that from Python, or one of {', '.join(PRESETS)}"
        )
    return TextRules(text, case or ("keep" if text == "none" else "lower"))


def chosen_rules(
    own: TextRules | None, text: str | Normaliser | None = None, case: str | None = None
) -> TextRules:
    """Those of the recogniser, but for what is asked for.

    Args:
        own: of the recogniser; None where the model is none yet.
        text: see `text_rules`; None is the recogniser's, or `basic`.
        case: `lower`, `upper` or `keep`; None is the recogniser's, or that of the preset.

    Raises:
        UserError: there are no such rules.
    """
    if text is None and own is not None:
        return replace(own, case=case or own.case)
    if case is None and own is not None and own.text in PRESETS and text in ("basic", "english"):
        case = own.case
    return text_rules("basic" if text is None else text, case)


def read_text_rules(source: str | Path, tokenizer: Any) -> TextRules:
    """The rules of a recogniser: as its `text.json` says, or else `basic` in the case of its vocabulary.

    Args:
        source: its folder, or its repository on the Hub.
        tokenizer: its tokenizer.

    Raises:
        UserError: the file is damaged.
    """
    path = _rules_file(source)
    if path is None:
        return TextRules(case=_case_of(tokenizer))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "keep_case" in values:  # as written before there was a choice
            return TextRules(case="keep" if values["keep_case"] else "lower")
        return TextRules(values["text"], values["case"], name=str(values.get("name", "")))
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: {EXPECTED}; mend it or take it away") from error


def _rules_file(source: str | Path) -> Path | None:
    """`text.json` of a folder, or of a repository on the Hub; None where there is none."""
    if Path(source).exists():
        path = Path(source, TEXT_RULES)
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        str(source),
        TEXT_RULES,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _case_of(tokenizer: Any) -> str:
    """The case that a tokenizer writes."""
    # Names such as "[CLS]" say nothing.
    letters = [token for token in tokenizer.get_vocab() if len(token) == 1]
    upper, lower = any(map(str.isupper, letters)), any(map(str.islower, letters))
    if tokenizer.do_lower_case or not upper:
        return "lower"
    return "keep" if lower else "upper"
