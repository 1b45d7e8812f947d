"""A Hub in trouble: what goes wrong at which step of a client's work, how often, and how."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

REPOSITORY = r"(?:models|datasets|spaces)/[^/]+/[^/]+"
# The steps of a push and of a pull, as requests: the method and the path without its query.
STEPS = {
    "whoami": r"GET /api/whoami-v2",
    "info": rf"GET /api/{REPOSITORY}(/revision/[^/]+)?",
    "refs": rf"GET /api/{REPOSITORY}/refs",
    "create": r"POST /api/repos/create",
    "branch": rf"POST /api/{REPOSITORY}/branch/[^/]+",
    "discussions": rf"GET /api/{REPOSITORY}/discussions",
    "preupload": rf"POST /api/{REPOSITORY}/preupload/[^/]+",
    "batch": r"POST /.+\.git/info/lfs/objects/batch",
    "put": r"PUT /lfs/upload/[0-9a-f]+",
    "verify": r"POST /lfs/verify/[0-9a-f]+",
    "validate": r"POST /api/validate-yaml",
    "commit": rf"POST /api/{REPOSITORY}/commit/[^/]+",
    "delete": rf"DELETE /api/(repos/delete|{REPOSITORY}/branch/[^/]+)",
    "tree": rf"GET /api/{REPOSITORY}/tree/.+",
    "paths": rf"POST /api/{REPOSITORY}/paths-info/[^/]+",
    "head": r"HEAD /.+/resolve/.+",
    "resolve": r"GET /.+/resolve/.+",
}
# Refusals that say more than their number.
WORDS = {
    401: "Invalid username or password.",
    403: "You don't have the rights to write here.",
    409: "Another change is under way.",
    412: "A commit has happened since. Please refresh and try again.",
    413: "Private repository storage limit reached.",
    429: "You have been rate-limited.",
}


@dataclass
class Failure:
    """Something that goes wrong.

    Attributes:
        step: one of `STEPS`, or `every`.
        kind: a status (`503`), or `slow` (no answer at all), `cut request` (the connection ends in the middle
            of what is sent), `cut answer` (in the middle of what comes back), `lost answer` (everything is
            done, and nothing comes back), `no JSON` (a page of a proxy), `wrong bytes` (other content of
            the same length).
        times: how often; None for ever.
        wait: seconds in a `Retry-After`, None without one.
        skip: how many requests of the step are answered well before.
        met: how many requests have failed.
    """

    step: str
    kind: str
    times: int | None = 1
    wait: int | None = None
    skip: int = 0
    met: int = 0

    def meets(self, request: str) -> bool:
        """Whether a request fails; counts those that do."""
        if self.step != "every" and not re.fullmatch(STEPS[self.step], request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.met += 1
        return self.times is None or self.met <= self.times


class Trouble:
    """The failures of a server; add to `failures`, and clear it.

    Args:
        patience: seconds that a `slow` request hangs at most.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self.failures: list[Failure] = []
        self.patience = patience
        self.over = threading.Event()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Let go of what hangs, and fail no more."""
        self.over.set()
        self.over = threading.Event()
        self.failures = []

    def of(self, request: str) -> Failure | None:
        """What goes wrong with a request, `METHOD /path`."""
        with self._lock:
            return next((failure for failure in self.failures if failure.meets(request)), None)

    def instead(self, failure: Failure | None, handler: BaseHTTPRequestHandler) -> bool:
        """Treat a request badly before the Hub sees it; whether that was all that happens to it."""
        length = int(handler.headers.get("Content-Length", 0))
        if failure is None or failure.kind in ("cut answer", "lost answer", "wrong bytes"):
            return False
        handler.rfile.read(length // 2 if failure.kind == "cut request" else length)
        if failure.kind in ("slow", "cut request"):
            if failure.kind == "slow":
                self.over.wait(self.patience)
            drop(handler)
        else:
            _refuse(failure, handler)
        return True


def drop(handler: BaseHTTPRequestHandler) -> None:
    """End the connection without another word."""
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _refuse(failure: Failure, handler: BaseHTTPRequestHandler) -> None:
    page = failure.kind == "no JSON"
    status = 502 if page else int(failure.kind)
    message = WORDS.get(status, "Trouble.")
    content = b"<html>Bad gateway</html>" if page else f'{{"error": "{message}"}}'.encode()
    headers: dict[str, Any] = {"Content-Type": "text/html" if page else "application/json"}
    headers |= {"Content-Length": len(content)} | (
        {} if failure.wait is None else {"Retry-After": failure.wait}
    )
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)
