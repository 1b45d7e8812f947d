"""What a client sends to the Hub of the tests: new repositories, large files ahead of time, commits.

The steps of a push, as the real client takes them: create, validate-yaml (the card), preupload (which files
are large), batch, put and verify (the large ones, by their hash), commit (everything at once).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

OWNER = "someone"  # whose token every client of these tests has
LARGE = 10_000_000  # bytes; and the kinds of files that are large whatever their size
LARGE_KINDS = (".safetensors", ".parquet", ".bin", ".png", ".wav", ".flac")
FRONT = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)

Json = dict[str, Any]


class Refusal(Exception):  # noqa: N818 (an answer, as HTTP has it)
    """What the Hub does not do: a status, a code that the client knows, and words."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **more}


class Uploads:
    """Writes into the folders of repositories; see `hub_server` for where they lie.

    Args:
        root: where the repositories lie.

    Attributes:
        objects: large files that have arrived, by SHA-256; a commit makes them part of a repository.
        summaries: the first line of each commit's message.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[str, bytes] = {}
        self.summaries: list[str] = []
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes, *, address: str, signed: bool) -> Json | None:
        """What a request is answered with, None where it is none of an upload's.

        Args:
            method: GET, POST or PUT.
            path: without the query.
            body: what was sent.
            address: of the server, for the links in an answer.
            signed: whether a token came with it; links to storage need none.

        Raises:
            Refusal: the request is not granted; nothing has changed.
        """
        for verb, pattern, handle in ROUTES:
            if verb == method and (found := re.fullmatch(pattern, path)):
                if not signed and verb != "PUT":
                    raise Refusal(401, "Invalid username or password.")
                return handle(self, *found.groups(), body=body, address=address)
        return None

    # ----- the steps of a push, in their order ------------------------------------------------------------

    def who(self, *, body: bytes, address: str) -> Json:
        return {"type": "user", "name": OWNER, "orgs": [], "auth": {"type": "access_token"}}

    def create(self, *, body: bytes, address: str) -> Json:
        asked = json.loads(body)
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        name = f"{kind}{asked.get('organization') or OWNER}/{asked['name']}"
        url = {"url": f"{address}/{name}"}
        with self._lock:
            if (self.root / name).exists():
                raise Refusal(409, "You already created this repository", **url)
            (self.root / name).mkdir(parents=True)
        return url

    def validate(self, *, body: bytes, address: str) -> Json:
        head = FRONT.match(json.loads(body)["content"])
        try:
            values = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            raise Refusal(400, "invalid YAML", errors=[{"message": str(error)}]) from error
        warnings = [] if values else [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": warnings}

    def preupload(self, repository: str, revision: str, *, body: bytes, address: str) -> Json:
        folder = self._folder(repository, revision)
        return {"files": [_mode(folder, file) for file in json.loads(body)["files"]]}

    def batch(self, repository: str, *, body: bytes, address: str) -> Json:
        self._folder(repository, "main")
        objects = []
        for asked in json.loads(body)["objects"]:
            wanted = {"oid": asked["oid"], "size": asked["size"]}
            links = {name: {"href": f"{address}/lfs/{name}/{asked['oid']}"} for name in ("upload", "verify")}
            # What is here already is not sent again.
            objects.append(wanted if asked["oid"] in self.objects else wanted | {"actions": links})
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str, *, body: bytes, address: str) -> Json:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, f"what was sent is not {oid}")
        self.objects[oid] = body
        return {}

    def verify(self, oid: str, *, body: bytes, address: str) -> Json:
        if oid not in self.objects or len(self.objects[oid]) != json.loads(body)["size"]:
            raise Refusal(404, f"there is no {oid} of that size")
        return {}

    def commit(self, repository: str, revision: str, *, body: bytes, address: str) -> Json:
        folder = self._folder(repository, revision)
        header, *operations = [json.loads(line) for line in body.splitlines() if line]
        parent = header["value"].get("parentCommit")
        with self._lock:
            if parent not in (None, commit_of(folder)):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            # Everything is looked at before anything is written.
            files = dict(self._file(operation) for operation in operations)
            for name, content in files.items():
                _write(folder, name, content)
            self.summaries.append(header["value"]["summary"])
        oid, page = commit_of(folder), f"{address}/{repository.removeprefix('models/')}"
        return {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"}

    # ----- folders and files ------------------------------------------------------------------------------

    def _folder(self, repository: str, revision: str) -> Path:
        repository = repository.removeprefix("models/")
        if not (self.root / repository).is_dir():
            raise Refusal(404, f"there is no {repository}", "RepoNotFound")
        folder = self.root / (repository if revision == "main" else f"{repository}@{revision}")
        if not folder.is_dir():
            raise Refusal(404, f"there is no revision {revision}", "RevisionNotFound")
        return folder

    def _file(self, operation: Json) -> tuple[str, bytes | None]:
        """Name and content of a file of a commit; None takes it away."""
        kind, value = operation["key"], operation["value"]
        name = value["path"]
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Refusal(400, f"{name} cannot be a path in a repository")
        if kind == "file":
            return name, base64.b64decode(value["content"])
        if kind == "deletedFile":
            return name, None
        if kind != "lfsFile":
            raise Refusal(400, f"{kind} {name}: this Hub has no such operation")
        if value["oid"] not in self.objects:
            raise Refusal(400, f"{name}: its content was never sent")
        return name, self.objects[value["oid"]]


MODEL_OR_DATA_SET = r"((?:models|datasets)/[^/]+/[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", Uploads.who),
    ("POST", "/api/repos/create", Uploads.create),
    ("POST", "/api/validate-yaml", Uploads.validate),
    ("POST", rf"/api/{MODEL_OR_DATA_SET}/preupload/([^/]+)", Uploads.preupload),
    ("POST", r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", Uploads.batch),
    ("PUT", "/lfs/upload/([0-9a-f]{64})", Uploads.upload),
    ("POST", "/lfs/verify/([0-9a-f]{64})", Uploads.verify),
    ("POST", rf"/api/{MODEL_OR_DATA_SET}/commit/([^/]+)", Uploads.commit),
)


def commit_of(folder: Path) -> str:
    """The name of what lies in a folder now: another one after every change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    return hashlib.sha1(repr((str(folder), state)).encode(), usedforsecurity=False).hexdigest()


def _mode(folder: Path, file: Mapping[str, Any]) -> Json:
    """Whether a file is sent ahead, and what it is now, so that the same is not committed again."""
    large = file["size"] >= LARGE or file["path"].endswith(LARGE_KINDS)
    about = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    path = folder / file["path"]
    if path.is_file():
        content = path.read_bytes()
        blob = b"blob %d\0" % len(content) + content
        sha1 = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        about["oid"] = hashlib.sha256(content).hexdigest() if large else sha1
    return about


def _write(folder: Path, name: str, content: bytes | None) -> None:
    path = folder / name
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
