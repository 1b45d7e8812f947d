"""A card that is there already: which parts of it are ours, and how the new card takes their place.

Each of our sections stands between two marks. What stands outside of the marks was written by a person and
stays, byte for byte, where it is: a section takes the place of the one of its name, a new one comes after the
one before it. A card without any marks is a person's too, and ours comes behind it, unless a program is known
to have written it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from hf_distilhubert.errors import UserError

BEGIN, END = "<!-- hf-distilhubert: {} -->", "<!-- hf-distilhubert: end of {} -->"
MARK = "<!-- hf-distilhubert:"
# A mark of the beginning, no other mark, the mark of the same section's end.
SECTION = re.compile(rf"{MARK} ([\w-]+) -->((?:(?!{MARK}).)*){MARK} end of \1 -->", re.DOTALL)
HEAD = re.compile(r"---[ \t]*\r?\n(.*?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
HEADINGS = re.compile(r"^##+ (.*?)\s*$", re.MULTILINE)
HEADING = re.compile(r"^# ", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
TITLE = "title"
GAP = "\n\n"
# Cards that programs write (Transformers' Trainer, our conversion), and that nobody has to keep: a sentence
# of theirs, all their headings, and how often they ask for more. One with other headings, or where something
# was filled in, is a person's by now.
GENERIC = (
    (
        "<!-- This model card has been generated automatically according to the information the Trainer",
        {
            *("Model description", "Intended uses & limitations", "Training and evaluation data"),
            *("Training procedure", "Training hyperparameters", "Training results", "Framework versions"),
        },
        3,
    ),
    (
        "This is a first card; `python -m model_card.render FOLDER` writes a full one in its place.",
        {"Fine-tune it first", "How to load it", "Agreement with S3PRL"},
        0,
    ),
)
MORE = "More information needed"


def read_card(path: Path) -> tuple[str, str]:
    """Metadata (YAML) and body of a card; both empty where there is none, or one that a program wrote.

    Raises:
        UserError: it cannot be read, or is not text.
    """
    if not path.exists():
        return "", ""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save it as such, or take it away") from error
    if _generic(text) and not SECTION.search(text):
        return "", ""
    head = HEAD.match(text)
    return (head[1] or "", text[head.end() :]) if head else ("", text)


def _generic(text: str) -> bool:
    """Whether a card is as a program wrote it."""
    headings = set(HEADINGS.findall(CODE.sub("", text)))
    return any(
        phrase in text and headings <= known and text.count(MORE) >= gaps for phrase, known, gaps in GENERIC
    )


def section(body: str, name: str) -> str:
    """What stands in the section of this name; empty without one."""
    return next((match[2] for match in SECTION.finditer(body) if match[1] == name), "")


def rewritten(body: str, name: str, text: str) -> str:
    """The body with other Markdown in the section of this name, and nothing else changed."""
    new = _between_marks(name, text)
    return SECTION.sub(lambda match: new if match[1] == name else match[0], body)


def merged(body: str, sections: Mapping[str, str]) -> str:
    """The body of a card with the sections that it should have.

    Args:
        body: of the card that is there.
        sections: name -> Markdown, in their order; those that are empty are left out.
    """
    first = SECTION.search(body)
    own_title = HEADING.search(CODE.sub("", body[: first.start() if first else len(body)]))
    texts = {
        name: _between_marks(name, text)
        for name, text in sections.items()
        if text.strip() and not (name == TITLE and own_title)
    }
    pieces = _pieces(body)
    _drop(pieces, texts.keys())
    _add(pieces, list(texts))
    return "".join(texts[text] if ours else text for ours, text in pieces)


def _between_marks(name: str, text: str) -> str:
    return f"{BEGIN.format(name)}\n{text.replace(MARK, '').strip()}\n{END.format(name)}"


# Whether it is a section of ours, and its name, or what a person wrote.
Piece = tuple[bool, str]


def _pieces(body: str) -> list[Piece]:
    """A person's text and names of sections in turn, beginning and ending with text."""
    pieces: list[Piece] = []
    end = 0
    for match in SECTION.finditer(body):
        pieces += [(False, body[end : match.start()]), (True, match[1])]
        end = match.end()
    return [*pieces, (False, body[end:])]


def _drop(pieces: list[Piece], names: Collection[str]) -> None:
    """Take out sections that the card no longer has, each with the empty line that came with it."""
    for place in reversed(range(len(pieces))):
        ours, name = pieces[place]
        if ours and name not in names:
            before, after = pieces[place - 1][1], pieces[place + 1][1]
            if before.endswith(GAP) or not before.strip():
                after = after.removeprefix(GAP)
            pieces[place - 1 : place + 2] = [(False, before + after)]


def _add(pieces: list[Piece], names: list[str]) -> None:
    """Put in sections that the card has not had: after the one before them, else before all others."""
    for place, name in enumerate(names):
        if (True, name) in pieces:
            continue
        before = next((pieces.index((True, other)) for other in reversed(names[:place])), None)
        if before is not None:
            pieces[before + 1 : before + 1] = [(False, GAP), (True, name)]
        elif len(pieces) > 1:
            pieces[1:1] = [(True, name), (False, GAP)]
        else:
            pieces[:] = [(False, _opened(pieces[0][1])), (True, name), (False, "\n")]


def _opened(text: str) -> str:
    """A person's text with an empty line behind it."""
    if not text or text.endswith(GAP):
        return text or "\n"
    return text + ("\n" if text.endswith("\n") else GAP)
