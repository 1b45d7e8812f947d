"""Mistakes that a user can mend, said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """What was given, what is allowed, what to do: in one line, without a traceback."""


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command: 0 when it is done, 2 and one line on standard error when the user can mend it.

    Ctrl-C ends with 130 as shells expect; every other exception is a bug of ours and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def one_line(message: object, limit: int = 600) -> str:
    """Fold a message (also another library's) into one line of at most `limit` characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
