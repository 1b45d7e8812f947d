"""Calls to the Hub: with an end to waiting, tried again where that can help, and failing in one line.

The Hub's client tries uploads again by itself (six times, 1, 2, 4, 8 and 8 s apart), but asks for anything
else only once, and waits for an answer for ever. `retried` and `time_limit` add what is missing.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from hf_distilhubert.errors import UserError, one_line

Result = TypeVar("Result")

WAITS = (1.0, 2.0, 4.0, 8.0, 8.0)  # seconds between tries, the client's own
PATIENCE = 300.0  # seconds: who asks to be left alone for longer gets no second try
SILENCE = 60.0  # seconds without a byte, after which a connection is given up
TEMPORARY = (408, 429, 500, 502, 503, 504)  # the client's own
QUOTA = ("quota", "storage", "limit", "billing", "payment", "too large")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Give up a connection on which nothing happens for so long."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY  # which one is in use is said nowhere else

    def limit(request: Any) -> None:
        # Some calls ask for no limit, so a limit of the whole client would not do.
        asked = request.extensions.get("timeout", {})
        names = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {name: asked.get(name) or seconds for name in names}

    def factory() -> Any:
        client = before()
        hooks = client.event_hooks
        client.event_hooks = hooks | {"request": [*hooks["request"], limit]}
        return client

    set_client_factory(factory)
    try:
        yield
    finally:
        set_client_factory(before)


def retried(call: Callable[[], Result]) -> Result:
    """What `call` returns once it does: an overload or a lost connection is waited out, saying so."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            pause = _asked_wait(error) or wait
            if not is_temporary(error) or pause > PATIENCE:
                raise
            warnings.warn(f"{_reason(_cause(error))}; trying again in {pause:.0f} s", stacklevel=2)
            time.sleep(pause)
    return call()


def is_temporary(error: BaseException) -> bool:
    """Whether the same call can succeed later."""
    status = _status(error)
    return status in TEMPORARY if status else _lost(error) or isinstance(error, json.JSONDecodeError)


def is_conflict(error: BaseException) -> bool:
    """Whether the Hub refuses because something is there already, or has changed."""
    return _status(error) in (409, 412)


def _status(error: BaseException) -> int | None:
    """The Hub's answer where there was one."""
    from huggingface_hub.errors import HfHubHTTPError

    return int(error.response.status_code) if isinstance(error, HfHubHTTPError) else None


def _lost(error: BaseException) -> bool:
    """Whether there was no whole answer: no connection, one that broke off, or silence."""
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library below the client goes by different names in its versions; this is its base class.
    return isinstance(error, HfHubHTTPError.__bases__[0]) and not isinstance(error, HfHubHTTPError)


def _cause(error: BaseException) -> BaseException:
    """The failed call below what the client says about it."""
    while error.__cause__ is not None and _status(error) is None and not _lost(error):
        error = error.__cause__
    return error


def _asked_wait(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait for, None where it does not ask."""
    value = error.response.headers.get("Retry-After", "") if _status(error) else ""  # type: ignore[attr-defined]
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(when.tzinfo and UTC)).total_seconds())


@contextmanager
def in_one_line(doing: str) -> Iterator[None]:
    """Say in one line what failed and what to do.

    Args:
        doing: what the block does, e.g. `making the repository`.

    Raises:
        UserError: the block failed by anything but a `UserError`.
    """
    try:
        yield
    except UserError:
        raise
    # What moves large files raises errors of its own kinds.
    except Exception as error:
        cause = _cause(error)
        raise UserError(f"{doing} failed: {_reason(cause)}; {_remedy(cause)}") from error


def _reason(error: BaseException) -> str:
    """What happened, in a few words."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    if status := _status(error):
        said = one_line(getattr(error, "server_message", None) or "", 200)
        return f"the Hub answered {status}" + (f" ({said})" if said else "")
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token for the Hub"
    if type(error).__name__.endswith("Timeout"):
        return "the Hub stopped answering"
    if type(error).__name__ == "ConnectError":
        return f"the Hub cannot be reached ({one_line(error, 120)})"
    if _lost(error):
        return "the connection to the Hub was lost"
    if isinstance(error, json.JSONDecodeError):
        return "the Hub's answer was cut short or is no JSON"
    return one_line(error, 300)


def _remedy(error: BaseException) -> str:
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    status = _status(error)
    said = str(error).lower()
    refused = status in (402, 403, 413) or (status is None and isinstance(error, ValueError))
    if isinstance(error, OfflineModeIsEnabled):
        return "unset it to push"
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return "set HF_TOKEN or run `hf auth login`, with a token that may write"
    if refused and any(word in said for word in QUOTA):
        return "free space on the Hub or get more, then push again"
    if status == 403:
        return "use a token that may write there, another REPO_ID, or --pull_request"
    if status == 404:
        return "check REPO_ID, --revision and what the token may see"
    if status in (409, 412):
        return "somebody changed it at the same time: look at what is there now, then push again"
    if status == 413:
        return "make the files smaller"
    if status == 400 or (isinstance(error, ValueError) and not is_temporary(error)):
        return "mend what it names"
    wait = _asked_wait(error)
    later = f"in {wait:.0f} s" if wait else "later"
    return f"push again {later}: what has arrived is not sent twice"
