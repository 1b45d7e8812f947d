"""A page and a few folders over HTTP, to this machine alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from hf_distilhubert.errors import UserError

HOST = "127.0.0.1"
# Browsers run no module and compile no WebAssembly of another type, and systems differ in what they guess.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


@dataclass(frozen=True)
class Site:
    """What is served, and nothing else is.

    Attributes:
        page: folder of the page; `/` is its `index.html`.
        folders: other folders, by the first part of an address.
        texts: what has no file, by address without the slash.
        policy: the Content-Security-Policy of everything.
    """

    page: Path
    folders: Mapping[str, Path]
    texts: Mapping[str, bytes] = field(default_factory=dict)
    policy: str = "default-src 'self'"

    def find(self, target: str) -> Path | None:
        """The file behind the target of a request, or None; links and `..` lead out of no folder."""
        try:
            name = unquote(urlsplit(target).path).lstrip("/") or "index.html"
            first, _, rest = name.partition("/")
            root = self.folders.get(first, self.page).resolve()
            file = (root / (rest if first in self.folders else name)).resolve()
            return file if file.is_relative_to(root) and file.is_file() else None
        except (OSError, RuntimeError, ValueError):  # a link in a circle, a NUL, half an address
            return None


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send a file."""
        # A browser that has seen enough hangs up.
        with suppress(ConnectionError):
            self._answer(body=True)

    def do_HEAD(self) -> None:
        """Say how large a file is."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        text = self.site.texts.get(urlsplit(self.path).path.lstrip("/"))
        file = None if text is not None else self.site.find(self.path)
        if text is not None:
            self._send(BytesIO(text), len(text), TYPES[".json"], body=body)
        elif file is not None:
            kind = TYPES.get(file.suffix, "application/octet-stream")
            with file.open("rb") as source:
                self._send(source, file.stat().st_size, kind, body=body)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, source: BinaryIO, size: int, kind: str, *, body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(size),
            "Content-Security-Policy": self.site.policy,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            shutil.copyfileobj(source, self.wfile)

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""


def open_server(site: Site, port: int) -> ThreadingHTTPServer:
    """Take a port, 0 for any that is free; `serve_forever` then answers.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, site))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"port {port} cannot be had: {reason}; give another with --port") from error
