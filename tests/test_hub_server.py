"""The real client pushes to the Hub of the tests, and loads from it what it pushed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from conftest import ROOT, save_recogniser
from hub_server import SAME_LOGITS, TOKEN, HubServer

PUSH = """
import json, sys
from huggingface_hub import HfApi
folder, repository = sys.argv[1:3]
api = HfApi()
url = api.create_repo(repository, exist_ok=True, private=True)
wanted = {"repo_id": url.repo_id, "folder_path": folder, "ignore_patterns": ["*.bin"]}
commits = [api.upload_folder(**wanted).oid for _ in range(2)]
print(json.dumps({"who": api.whoami()["name"], "repository": url.repo_id, "commits": commits}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / "hub").mkdir()
    with HubServer(tmp_path / "hub") as server:
        yield server


def run(
    code: str, *arguments: object, hub: HubServer, home: Path, **changed: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=hub.environment(home) | changed,
        capture_output=True,
        text=True,
    )


def test_what_the_real_client_pushes_it_loads_again_with_the_same_logits(hub, tmp_path):
    folder = save_recogniser(tmp_path / "recogniser")
    (folder / "README.md").write_text("---\nlanguage: en\n---\n\n# A recogniser\n")
    (folder / "scores" / "test").mkdir(parents=True)
    (folder / "scores" / "test" / "results.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    pushed = run(PUSH, folder, "someone/recogniser", hub=hub, home=tmp_path / "home")
    assert pushed.returncode == 0, pushed.stderr
    said = json.loads(pushed.stdout)
    assert (said["who"], said["repository"]) == ("someone", "someone/recogniser")
    # The second time nothing has changed: nothing is sent, and there is no second commit.
    assert said["commits"][0] == said["commits"][1]
    assert len(hub.uploads.summaries) == 1
    assert sum(request.startswith("PUT") for request in hub.requests) == 1

    there = hub.root / "someone" / "recogniser"
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == names - {
        Path("training_args.bin")
    }
    pulled = run(SAME_LOGITS, folder, "someone/recogniser", hub=hub, home=tmp_path / "another-home")
    assert pulled.returncode == 0, pulled.stderr


def ask(hub: HubServer, method: str, path: str, body: object, *, token: str = TOKEN) -> tuple[int, dict]:
    """Status and answer of a request that the client would not make."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"}
    request = Request(hub.address + path, content, headers, method=method)  # noqa: S310 (a server of our own)
    try:
        with urlopen(request) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def lines(*values: object) -> bytes:
    return b"\n".join(json.dumps(value).encode() for value in values)


def test_a_commit_is_made_whole_or_not_at_all(hub):
    assert ask(hub, "POST", "/api/repos/create", {"name": "model"})[0] == 200
    header = {"key": "header", "value": {"summary": "first"}}
    good = {"key": "file", "value": {"path": "a.txt", "content": "YQ==", "encoding": "base64"}}
    absent = {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}
    outside = {"key": "file", "value": {"path": "../c.txt", "content": "YQ=="}}
    commit = "/api/models/someone/model/commit/main"
    for bad, message in ((absent, "never sent"), (outside, "cannot be a path")):
        status, answer = ask(hub, "POST", commit, lines(header, good, bad))
        assert (status, message in answer["error"]) == (400, True)
        assert list((hub.root / "someone" / "model").iterdir()) == []
    status, answer = ask(hub, "POST", commit, lines(header, good))
    assert (status, (hub.root / "someone" / "model" / "a.txt").read_text()) == (200, "a")
    # Who has not seen that commit may not go over it.
    late = {"key": "header", "value": {"summary": "second", "parentCommit": "0" * 40}}
    assert ask(hub, "POST", commit, lines(late, good))[0] == 412
    current = {"key": "header", "value": {"summary": "second", "parentCommit": answer["commitOid"]}}
    gone = {"key": "deletedFile", "value": {"path": "a.txt"}}
    assert ask(hub, "POST", commit, lines(current, gone))[0] == 200
    assert hub.uploads.summaries == ["first", "second"]
    assert not (hub.root / "someone" / "model" / "a.txt").exists()


def test_a_large_file_that_is_not_what_its_hash_says_is_refused(hub):
    oid = hashlib.sha256(b"whole").hexdigest()
    assert ask(hub, "PUT", f"/lfs/upload/{oid}", b"who")[0] == 400
    assert ask(hub, "POST", f"/lfs/verify/{oid}", {"oid": oid, "size": 5})[0] == 404
    assert ask(hub, "PUT", f"/lfs/upload/{oid}", b"whole")[0] == 200
    assert ask(hub, "POST", f"/lfs/verify/{oid}", {"oid": oid, "size": 5})[0] == 200
    assert ask(hub, "POST", f"/lfs/verify/{oid}", {"oid": oid, "size": 4})[0] == 404


def test_who_has_no_token_and_what_is_not_there_is_refused(hub, tmp_path):
    assert ask(hub, "POST", "/api/repos/create", {"name": "model"}, token="another")[0] == 401
    assert not list(hub.root.iterdir())
    assert ask(hub, "POST", "/api/repos/create", {"name": "model"})[0] == 200
    assert ask(hub, "POST", "/api/repos/create", {"name": "model"})[0] == 409
    assert ask(hub, "POST", "/api/models/someone/absent/commit/main", b"")[0] == 404
    assert ask(hub, "POST", "/api/models/someone/model/commit/other", b"")[0] == 404
    damaged = {"content": "---\na: [\n---\n", "repoType": "model"}
    assert ask(hub, "POST", "/api/validate-yaml", damaged)[0] == 400


def test_branches_are_made_listed_and_taken_away_and_a_repository_too(hub):
    assert ask(hub, "POST", "/api/repos/create", {"name": "model", "visibility": "private"})[0] == 200
    (hub.root / "someone" / "model" / "a.txt").write_text("a")
    model = "/api/models/someone/model"
    assert ask(hub, "POST", f"{model}/branch/dev", {})[0] == 200
    assert ask(hub, "POST", f"{model}/branch/dev", {})[0] == 409
    assert ask(hub, "POST", f"{model}/branch/refs%2Fpr%2F1", {})[0] == 400
    branches = ask(hub, "GET", f"{model}/refs", b"")[1]["branches"]
    assert {branch["name"] for branch in branches} == {"main", "dev"}
    # A new branch stands at the commit that it was made from.
    assert len({branch["targetCommit"] for branch in branches}) == 1
    status, about = ask(hub, "GET", f"{model}/revision/dev", b"")
    assert (status, about["private"], about["siblings"]) == (200, True, [{"rfilename": "a.txt"}])
    assert ask(hub, "DELETE", f"{model}/branch/dev", b"")[0] == 200
    assert ask(hub, "GET", f"{model}/revision/dev", b"")[0] == 404
    assert ask(hub, "DELETE", "/api/repos/delete", {"name": "model", "organization": "someone"})[0] == 200
    assert ask(hub, "GET", model, b"")[0] == 404
