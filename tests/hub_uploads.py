"""What a client sends to the Hub of the tests: new repositories, large files ahead of time, commits.

The steps of a push, as the real client takes them: create, validate-yaml (the card), preupload (which files
are large), batch, put and verify (the large ones, by their hash), commit (everything at once, to a branch or
as a pull request, which lies at `ROOT/OWNER/NAME@refs/pr/NUMBER`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_files import Json, commit_of, mode_of, write_file

OWNER = "someone"  # whose token every client of these tests has
FRONT = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)


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
        private: names of the repositories that were made private.
        requests: title of each pull request, by the repository and its number.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[str, bytes] = {}
        self.summaries: list[str] = []
        self.private: set[str] = set()
        self.requests: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes, *, address: str, signed: bool) -> Json | None:
        """What a request is answered with, None where it is none of an upload's.

        Args:
            method: GET, POST, PUT or DELETE.
            path: with the query.
            body: what was sent.
            address: of the server, for the links in an answer.
            signed: whether a token came with it; links to storage need none.

        Raises:
            Refusal: the request is not granted; nothing has changed.
        """
        address_of = urlsplit(path)
        for verb, pattern, handle in ROUTES:
            if verb == method and (found := re.fullmatch(pattern, address_of.path)):
                if not (signed or verb == "PUT" or handle is Uploads.validate):
                    raise Refusal(401, "Invalid username or password.")
                query = {"query": parse_qs(address_of.query)} if handle in ASKED else {}
                return handle(self, *map(unquote, found.groups()), body=body, address=address, **query)
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
            if asked.get("visibility") == "private":
                self.private.add(name)
        return url

    def delete(self, *, body: bytes, address: str) -> Json:
        asked = json.loads(body)
        folder = self._folder(f"{asked.get('organization') or OWNER}/{asked['name']}", "main")
        for revision in (folder, *folder.parent.glob(f"{folder.name}@*")):
            shutil.rmtree(revision)
        return {}

    def refs(self, repository: str, *, body: bytes, address: str) -> Json:
        folder = self._folder(repository, "main")
        names = {"main": folder} | {
            path.name.partition("@")[2]: path
            for path in folder.parent.glob(f"{folder.name}@*")
            if path.name != f"{folder.name}@refs"
        }
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_of(path)}
            for name, path in names.items()
        ]
        return {"branches": branches, "converts": [], "tags": []}

    def branch(self, repository: str, name: str, *, body: bytes, address: str) -> Json:
        folder = self._folder(repository, "main")
        if "/" in name:
            raise Refusal(400, f"Invalid rev id: {name}")
        target = folder.with_name(f"{folder.name}@{name}")
        if target.exists() or name == "main":
            raise Refusal(409, f"Reference refs/heads/{name} already exists")
        shutil.copytree(folder, target)
        return {}

    def delete_branch(self, repository: str, name: str, *, body: bytes, address: str) -> Json:
        if name == "main":
            raise Refusal(403, "the main branch cannot be deleted")
        shutil.rmtree(self._folder(repository, name))
        return {}

    def discussions(self, repository: str, *, body: bytes, address: str) -> Json:
        self._folder(repository, "main")
        found = [
            {
                "title": title,
                "num": number,
                "author": {"name": OWNER},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open",
                "repo": {"name": repository.removeprefix("models/"), "type": "model"},
                "isPullRequest": True,
            }
            for (name, number), title in self.requests.items()
            if name == repository
        ]
        return {"count": len(found), "start": 0, "discussions": found}

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
        return {"files": [mode_of(folder, file) for file in json.loads(body)["files"]]}

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

    def commit(
        self, repository: str, revision: str, *, body: bytes, address: str, query: Mapping[str, list[str]]
    ) -> Json:
        folder = self._folder(repository, revision)
        header, *operations = [json.loads(line) for line in body.splitlines() if line]
        parent = header["value"].get("parentCommit")
        with self._lock:
            if parent not in (None, commit_of(folder)):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            # Everything is looked at before anything is written.
            files = dict(self._file(operation) for operation in operations)
            page = f"{address}/{repository.removeprefix('models/')}"
            asked = {}
            if query.get("create_pr") == ["1"]:
                number = 1 + sum(name == repository for name, _ in self.requests)
                self.requests[repository, number] = header["value"]["summary"]
                main = self._folder(repository, "main")
                folder = shutil.copytree(folder, main.with_name(f"{main.name}@refs") / "pr" / str(number))
                asked = {"pullRequestUrl": f"{page}/discussions/{number}"}
            for name, content in files.items():
                write_file(folder, name, content)
            self.summaries.append(header["value"]["summary"])
        oid = commit_of(folder)
        return {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}", **asked}

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
    ("DELETE", "/api/repos/delete", Uploads.delete),
    ("GET", rf"/api/{MODEL_OR_DATA_SET}/refs", Uploads.refs),
    ("POST", rf"/api/{MODEL_OR_DATA_SET}/branch/([^/]+)", Uploads.branch),
    ("DELETE", rf"/api/{MODEL_OR_DATA_SET}/branch/([^/]+)", Uploads.delete_branch),
    ("GET", rf"/api/{MODEL_OR_DATA_SET}/discussions", Uploads.discussions),
    ("POST", "/api/validate-yaml", Uploads.validate),
    ("POST", rf"/api/{MODEL_OR_DATA_SET}/preupload/([^/]+)", Uploads.preupload),
    ("POST", r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", Uploads.batch),
    ("PUT", "/lfs/upload/([0-9a-f]{64})", Uploads.upload),
    ("POST", "/lfs/verify/([0-9a-f]{64})", Uploads.verify),
    ("POST", rf"/api/{MODEL_OR_DATA_SET}/commit/([^/]+)", Uploads.commit),
)
ASKED = (Uploads.commit,)  # what reads the query
