"""A Hub for tests: the files of a folder, served the way that the real client asks for them.

`ROOT/OWNER/NAME/…` is a repository at `main`, `ROOT/OWNER/NAME@REVISION/…` another revision of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")


class HubServer(ThreadingHTTPServer):
    """Serves while the `with` block lasts.

    Args:
        root: where the repositories lie.

    Attributes:
        requests: method and path of everything that was asked for.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, home: Path, *, offline: bool = False) -> dict[str, str]:
        """For a process whose Hub is this one, and whose cache and login lie under `home`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return inherited | {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
            "NO_PROXY": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        match = RESOLVE.fullmatch(self.path)
        repository, revision, name = map(unquote, match.groups() if match else ("", "", ""))
        folder = self.server.root / (repository if revision == "main" else f"{repository}@{revision}")
        if not match or not (self.server.root / repository).is_dir():
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
        elif not folder.is_dir():
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            commit = {"X-Repo-Commit": hashlib.sha1(str(folder).encode(), usedforsecurity=False).hexdigest()}
            if not (folder / name).is_file():
                self._answer(404, commit | {"X-Error-Code": "EntryNotFound"})
            else:
                content = (folder / name).read_bytes()
                self._answer(200, commit | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content)

    do_GET = do_HEAD  # noqa: N815 (the name that http.server asks for)

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked for stands in `requests`."""
