"""A page and a few folders over HTTP, to this machine alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path, PurePosixPath
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
        files: single files, by address without the slash; they may lie anywhere.
        texts: what has no file, by address without the slash.
        policy: the Content-Security-Policy of everything.
    """

    page: Path
    folders: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, bytes] = field(default_factory=dict)
    policy: str = "default-src 'self'"

    def open(self, target: str) -> tuple[BinaryIO, str]:
        """What the target of a request names, and its type.

        Raises:
            OSError: there is no such file, or it may not be read.
            RuntimeError: a link in a circle.
            ValueError: a NUL, half an address.
        """
        name = unquote(urlsplit(target).path).lstrip("/") or "index.html"
        kind = TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
        if name in self.texts:
            return BytesIO(self.texts[name]), kind
        file = self.files.get(name) or self._in_folder(name)
        if not file.is_file():
            raise FileNotFoundError(name)
        return file.open("rb"), kind

    def _in_folder(self, name: str) -> Path:
        """Links and `..` lead out of no folder."""
        first, _, rest = name.partition("/")
        root = self.folders.get(first, self.page).resolve()
        file = (root / (rest if first in self.folders else name)).resolve()
        if not file.is_relative_to(root):
            raise PermissionError(name)
        return file


def is_own_name(host: str, port: int) -> bool:
    """Whether a `Host` is this machine's name for itself.

    A page of another site can have that site's name point here, and would then be let read what is served
    (DNS rebinding); its requests still bear the name.
    """
    name, _, number = host.lower().partition(":")
    return name in (HOST, "localhost") and (number or "80") == str(port)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: ThreadingHTTPServer

    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments)

    def handle(self) -> None:
        """Answer, unless the browser, which may have seen enough, hangs up."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Say how large a file is."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        [host, *others] = self.headers.get_all("Host", [""])
        if others or not is_own_name(host, self.server.server_port):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        try:
            source, kind = self.site.open(self.path)
        except (OSError, RuntimeError, ValueError):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with source:
            self._send(source, kind, body=body)

    def _send(self, source: BinaryIO, kind: str, *, body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(source.seek(0, os.SEEK_END)),
            "Content-Security-Policy": self.site.policy,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            source.seek(0)
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
