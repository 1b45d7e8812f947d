"""Mistakes that a user can mend, said in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """What was given, what is allowed, what to do: in one line, without a traceback."""


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command: 0 when it is done, 2 and one line on standard error when the user can mend it.

    Ctrl-C ends with 130 as shells expect; every other exception is a bug of ours and keeps its traceback.
    Warnings are one line too.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            main()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {one_line(message)}", file=sys.stderr)


def one_line(message: object, limit: int = 600) -> str:
    """Fold a message (also another library's) into one printable line of at most `limit` characters."""
    text = " ".join(str(message).split())
    # What a stranger's file says must not steer a terminal.
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"
