"""A Hub for tests: the files of a folder, served the way that the real client asks for them.

`ROOT/OWNER/NAME/…` is a repository at `main`, `ROOT/OWNER/NAME@REVISION/…` another revision of it;
`ROOT/datasets/OWNER/NAME/…` is a data set. What clients send lands there too, see `hub_uploads`; what goes
wrong when it is told to, see `hub_failures`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from hub_failures import Failure, Trouble, drop
from hub_files import commit_of, entry_of
from hub_uploads import Refusal, Uploads

TOKEN = "hf_token-of-the-tests"
JSON = {"Content-Type": "application/json"}
RESOLVE = re.compile(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")
ABOUT = re.compile(
    r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)"
    r"(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?"
)

# Argument by argument a folder and a repository: stock classes give the same from both.
SAME_LOGITS = """
import sys
import torch
from transformers import AutoModelForCTC, AutoProcessor

def logits_of(source):
    processor = AutoProcessor.from_pretrained(source)
    sound = processor(torch.linspace(-1, 1, 8_000).sin().numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return AutoModelForCTC.from_pretrained(source).eval()(**sound).logits

assert torch.equal(logits_of(sys.argv[1]), logits_of(sys.argv[2]))
"""


class HubServer(ThreadingHTTPServer):
    """Serves while the `with` block lasts.

    Args:
        root: where the repositories lie.

    Attributes:
        requests: method and path of everything that was asked for.
        uploads: what clients have sent.
        trouble: what goes wrong.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []
        self.uploads = Uploads(root)
        self.trouble = Trouble()

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: Path, *, offline: bool = False) -> dict[str, str]:
        """For a process whose Hub is this one, and whose cache and login lie under `home`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return inherited | {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
            "NO_PROXY": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are two packets
    failure: Failure | None

    def do_HEAD(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.failure = self.server.trouble.of(f"{self.command} {urlsplit(self.path).path}")
        if self.server.trouble.instead(self.failure, self):
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._take_in():
            self._serve()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD  # noqa: N815 (the names that http.server asks for)

    def _take_in(self) -> bool:
        """Answer what belongs to an upload."""
        signed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        try:
            found = self.server.uploads.answer(
                self.command, self.path, self.body, address=self.server.address, signed=signed
            )
            if found is None:
                return False
            self._answer(200, JSON, json.dumps(found).encode())
        except Refusal as refusal:
            headers = JSON | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self._answer(refusal.status, headers, json.dumps(refusal.body).encode())
        return True

    def _serve(self) -> None:
        """Answer what only reads."""
        if about := ABOUT.fullmatch(urlsplit(self.path).path):
            self._about(about[1], about[2], unquote(about[3] or "main"), unquote(about[4] or ""))
        elif file := RESOLVE.fullmatch(self.path):
            self._resolve(*map(unquote, file.groups()))
        else:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        """A file of a repository."""
        if (folder := self._folder(repository, revision)) is None:
            return
        if not (folder / name).is_file():
            self._answer(404, {"X-Repo-Commit": commit_of(folder), "X-Error-Code": "EntryNotFound"})
        else:
            content = (folder / name).read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._answer(200, {"X-Repo-Commit": commit_of(folder), "ETag": tag}, content)

    def _folder(self, repository: str, revision: str) -> Path | None:
        """Where a revision lies; None where there is none, which is answered then."""
        folder = self.server.root / repository
        if not folder.is_dir():
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return None
        if revision not in ("main", commit_of(folder)):
            folder = self.server.root / f"{repository}@{revision}"
        if not folder.is_dir():
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return folder

    def _about(self, repository: str, what: str | None, revision: str, name: str) -> None:
        """A repository itself, or the files and folders in it."""
        if (folder := self._folder(repository, revision)) is None:
            return
        below = sorted(path for path in folder.rglob("*"))
        if what == "tree":
            below = [path for path in below if path.is_relative_to(folder / name)]
        elif what == "paths-info":
            body = self.body.decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            below = [path for path in below if path.relative_to(folder).as_posix() in wanted]
        entries = [entry_of(folder, path) for path in below]
        files = [{"rfilename": entry["path"]} for entry in entries if entry["type"] == "file"]
        about = {"id": repository.removeprefix("datasets/"), "sha": commit_of(folder), "siblings": files}
        about["private"] = repository in self.server.uploads.private
        content = json.dumps(entries if what in ("tree", "paths-info") else about).encode()
        self._answer(200, JSON, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        kind = self.failure.kind if self.failure else None
        if kind == "lost answer":
            drop(self)
            return
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if kind == "wrong bytes":
            content = bytes(byte ^ 1 for byte in content)
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if kind == "cut answer" else content)
        if kind == "cut answer":
            drop(self)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked for stands in `requests`."""
