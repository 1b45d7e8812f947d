"""A checkpoint comes from this machine or from the Hub, asked with the real client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from hub_server import HubServer

from conversion.sources import EXAMPLE, checkpoint_file
from hf_distilhubert.errors import UserError

FETCH = """
import sys
from conversion.sources import checkpoint_file
from hf_distilhubert.errors import run_command
run_command(lambda: print(checkpoint_file(sys.argv[1])))
"""
CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("hub")
    for name, content in (
        ("someone/students/student.ckpt", CONTENT),
        ("someone/students/old/two words.ckpt", CONTENT[::-1]),
        ("someone/students@refs/pr/1/student.ckpt", CONTENT[:1_000]),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    with HubServer(root) as server:
        yield server


def fetch(hub: HubServer, home: Path, source: str, *, offline: bool = False) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a process that asks for a checkpoint."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, source],
        cwd=ROOT,
        env=hub.environment(home, offline=offline),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("hub:someone/students/student.ckpt", CONTENT),
        ("hub:someone/students/old/two words.ckpt@main", CONTENT[::-1]),
        ("hub:someone/students/student.ckpt@refs/pr/1", CONTENT[:1_000]),
    ],
)
def test_a_file_of_the_hub_arrives_byte_for_byte(
    source: str, content: bytes, hub: HubServer, tmp_path: Path
) -> None:
    status, path, errors = fetch(hub, tmp_path, source)
    assert (status, errors) == (0, "")
    assert Path(path).read_bytes() == content
    assert Path(path).is_relative_to(tmp_path)


def test_what_was_fetched_once_is_there_without_a_network(hub: HubServer, tmp_path: Path) -> None:
    source = "hub:someone/students/student.ckpt"
    online = fetch(hub, tmp_path, source)
    asked = len(hub.requests)
    assert fetch(hub, tmp_path, source, offline=True) == online
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub:someone/students/gone.ckpt", "someone/students has no file gone.ckpt at main; give"),
        (
            "hub:someone/nobody/student.ckpt",
            "there is no someone/nobody, or it is private; correct",
        ),
        ("hub:someone/students/student.ckpt@v9", "someone/students has no revision v9; give one of"),
        ("hub:some one/students/student.ckpt", "some one/students cannot be a repository; give OWNER/NAME"),
    ],
)
def test_what_the_hub_lacks_is_named_in_one_line(
    source: str, message: str, hub: HubServer, tmp_path: Path
) -> None:
    status, output, errors = fetch(hub, tmp_path, source)
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: cannot fetch {source}: {message}")
    assert errors.count("\n") == 1


def test_offline_without_the_file_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    asked = len(hub.requests)
    status, output, errors = fetch(hub, tmp_path, "hub:someone/students/student.ckpt", offline=True)
    assert (status, output) == (2, "")
    assert "HF_HUB_OFFLINE is set and the file is not in the cache; unset it" in errors
    assert errors.count("\n") == 1
    assert len(hub.requests) == asked


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("not in the cache") from ConnectionError("refused")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"the Hub cannot be reached \(refused\); check the connection"):
        checkpoint_file(EXAMPLE)


@pytest.mark.parametrize(
    "source",
    [
        "hub:",
        "hub:student.ckpt",
        "hub:a/b",
        "hub:a/b/",
        "hub:a//c",
        "hub:a/b/../c",
        "hub:a/b/c@",
        "hub:/a/b/c",
    ],
)
def test_a_malformed_name_is_told_the_right_form(source: str) -> None:
    with pytest.raises(
        UserError, match=f"names no file on the Hub; give hub:OWNER/NAME/FILE, such as {EXAMPLE}"
    ):
        checkpoint_file(source)


def test_a_path_stays_as_it_is() -> None:
    assert checkpoint_file("some/hub:file.ckpt") == Path("some/hub:file.ckpt")
    assert checkpoint_file(Path("/a/b.ckpt")) == Path("/a/b.ckpt")
