"""What a file says that is nobody's business: paths and names of this machine, tokens, e-mail addresses."""

from __future__ import annotations

import codecs
import getpass
import html
import json
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model_card.files import ABSOLUTE_PATH
from model_card.selection import File

LARGEST_TEXT = 50_000_000  # bytes; a longer file is looked through like one that is no text
EMAIL = re.compile(r"[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}\b")
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|hf_oauth_[\w.-]{20,}|api_org_[A-Za-z0-9]{20,}"  # the Hub's
    r"|gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"  # GitHub's and GitLab's
    r"|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,}"  # of other services
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)"  # JSON web tokens
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:\b(?:api_?key|password|secret)\b\W{1,4}[\w-]{16,})"
)
# Accounts that stand for nobody.
NOBODY = ("admin", "jovyan", "root", "runner", "ubuntu", "user")
EMBEDDED = re.compile(r"data:[\w/.+-]+;base64,[A-Za-z0-9+/=]*")
TAG_END = re.compile(r"</|/>")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")


@dataclass(frozen=True)
class Machine:
    """What must not be told about where a push is made.

    Attributes:
        user: the name of the account.
        home: its folder.
        token: for the Hub, None without one.
    """

    user: str
    home: str
    token: str | None = None

    @classmethod
    def this(cls) -> Machine:
        """The one that runs this."""
        from huggingface_hub import get_token

        return cls(_account(), str(Path.home()), get_token())

    @cached_property
    def account(self) -> re.Pattern[str]:
        """The account's name where it is no word of a sentence: in a path, before @, or as a whole value."""
        if not self.user or self.user in NOBODY:
            return re.compile(r"(?!)")
        name = re.escape(self.user)
        return re.compile(
            rf"(?<![\w.-]){name}(?=[/\\@])|(?<=[/\\]){name}(?![\w.-])|(?<=[\"']){name}(?=[\"'])"
        )

    @cached_property
    def folder(self) -> bytes:
        """What its home's paths begin with, as it stands in files that are no text."""
        return self.home.encode() + b"/" if self.home.count("/") and len(self.home) > 3 else b""


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # it has no name, as in some containers
        return ""


def leaks(file: File, machine: Machine) -> Iterator[str]:
    """What a file says about the machine or its user: `FILE:LINE what`, one for each thing and line."""
    if file.name.endswith(".safetensors"):
        for note in _safetensors_notes(file.path):
            yield from (f"{file.name} (its metadata) {what}" for what in _in_line(note, machine))
        return
    text = _text(file)
    if text is None:
        if machine.folder and _holds(file.path, machine.folder):
            yield f"{file.name} holds a path in {machine.home}"
        return
    for number, line in enumerate(text.splitlines(), start=1):
        yield from (f"{file.name}:{number} {what}" for what in _in_line(_plain(line, file.name), machine))


def _in_line(line: str, machine: Machine) -> Iterator[str]:
    if (machine.token and machine.token in line) or TOKEN.search(line):
        yield "holds a token or a password"  # which this line does not repeat
    if path := ABSOLUTE_PATH.search(line):
        yield f"names the absolute path {path[0][:80]!r}"
    elif account := machine.account.search(line):
        yield f"names the user {account[0]!r} of this machine"
    if address := EMAIL.search(line):
        yield f"holds the e-mail address {address[0][:80]!r}"


def _plain(line: str, name: str) -> str:
    """A line without the marks of its format, whose slashes look like paths."""
    suffix = Path(name).suffix
    if suffix in (".json", ".jsonl", ".ipynb"):
        return ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _unescaped(match[2]), line)
    if suffix in (".html", ".md", ".svg", ".xml"):
        return html.unescape(TAG_END.sub("<", EMBEDDED.sub("", line)))
    return line


def _unescaped(letter: str) -> str:
    return {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}.get(letter, letter)


def _text(file: File) -> str | None:
    """The content of a text file; None where it is none."""
    if file.size > LARGEST_TEXT:
        return None
    content = file.path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _holds(path: Path, wanted: bytes) -> bool:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(wanted) >= 0


def _safetensors_notes(path: Path) -> list[str]:
    """The free text of a safetensors file; none where its head is damaged, which another check tells."""
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if length > path.stat().st_size:
            return []
        try:
            notes = json.loads(file.read(length)).get("__metadata__", {})
        except (ValueError, AttributeError, RecursionError):
            return []
    return [f"{key}: {value}" for key, value in notes.items()] if isinstance(notes, dict) else []
