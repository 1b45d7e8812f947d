"""The page of `distilhubert demo`: what its server gives away, and to whom."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ENVIRONMENT
from exports import SOURCE

from hf_distilhubert.demo import CDN, PACKAGE, PAGE, VERSION, open_demo
from hf_distilhubert.errors import UserError
from hf_distilhubert.web_server import is_own_name

GRAPH = "onnx/model.onnx"
NEEDED = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def make_export(folder: Path, kind: str = "hubert", **changes: object) -> Path:
    """What the server looks at in an exported folder."""
    metadata = {"frame_stride": "320", "vocabulary": "[]"}
    said = {"model": "numbers", "format": "onnx", "file": GRAPH, "bytes": 3, "metadata": metadata} | changes
    (folder / "onnx").mkdir(parents=True)
    (folder / GRAPH).write_bytes(b"abc")
    (folder / "export.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    for name in NEEDED:
        (folder / name).write_text("{}")
    return folder


def make_package(folder: Path) -> Path:
    for file in (
        f"{PACKAGE}/dist/transformers.min.js",
        "onnxruntime-web/dist/a.wasm",
        "onnxruntime-web/dist/a.mjs",
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("1")
    return folder


@contextmanager
def served(model: Path, package: Path | None) -> Iterator[int]:
    """The port of a page that answers."""
    with open_demo(model, port=0, transformers_js=package) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(
    port: int, target: str, method: str = "GET", hosts: tuple[str, ...] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send the target as it stands, which most clients would tidy up first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, target, skip_host=True)
    for host in (f"127.0.0.1:{port}",) if hosts is None else hosts:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("site")
    model, package = make_export(folder / "model"), make_package(folder / "node_modules")
    (folder / "secret").write_text("secret")
    (package / "link").symlink_to(folder / "secret")
    (package / "out").symlink_to(folder)
    (package / "circle").symlink_to(package / "circle")
    with served(model, package) as port:
        yield port, folder


@pytest.mark.parametrize(
    ("target", "kind", "size"),
    [
        ("/", "text/html; charset=utf-8", (PAGE / "index.html").stat().st_size),
        ("/app.js?1", "text/javascript; charset=utf-8", (PAGE / "app.js").stat().st_size),
        ("/style.css", "text/css; charset=utf-8", (PAGE / "style.css").stat().st_size),
        ("/model/onnx/model.onnx", "application/octet-stream", 3),
        ("/model/config.json", "application/json", 24),
        ("/npm/onnxruntime-web/dist/a.wasm", "application/wasm", 1),
        ("/npm/onnxruntime-web/dist/a.mjs", "text/javascript; charset=utf-8", 1),
    ],
)
def test_page_model_and_package_are_served_with_their_types(site, target, kind, size):
    status, headers, body = ask(site[0], target)
    assert (status, headers["Content-Type"], len(body)) == (200, kind, size)
    status, headers, body = ask(site[0], target, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/model/../secret",
        "/model/%2e%2e/secret",
        "/model/onnx/..%2f..%2f..%2fsecret",
        "/npm/%2E%2E/secret",
        "/npm/..\\secret",
        "/npm/FOLDER/secret",
        "/npm/%2fFOLDER/secret",
        "/npm/link",
        "/npm/out/secret",
        "/npm/circle",
        "/npm/%00",
        "/model",
        "/npm",
        "/../demo.py",
        "/model/export.json",
        "//[",
        "http://[/x",
        "secret",
    ],
)
def test_nothing_else_is_served(site, target):
    port, folder = site
    status, _, body = ask(port, target.replace("FOLDER", str(folder)))
    assert status == 404
    assert b"Not Found" in body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (("127.0.0.1:PORT",), 200),
        (("LOCALHOST:PORT",), 200),
        (("evil.example",), 421),
        (("evil.example:PORT",), 421),
        (("localhost",), 421),
        (("localhost:1",), 421),
        (("localhost.evil.example:PORT",), 421),
        (("localhost:PORT", "evil.example"), 421),
        ((), 421),
    ],
    ids=str,
)
def test_only_who_calls_this_machine_by_its_own_name_is_answered(site, hosts, status, method):
    port, _ = site
    assert ask(port, "/", method, tuple(host.replace("PORT", str(port)) for host in hosts))[0] == status


def test_the_port_of_http_may_be_left_out():
    assert is_own_name("localhost", 80)
    assert is_own_name("127.0.0.1:80", 80)
    assert not is_own_name("evil.example", 80)


@pytest.mark.parametrize(
    ("error", "status"), [(PermissionError("locked"), 404), (BrokenPipeError("hung up"), None)], ids=repr
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_locked_file_and_a_browser_that_hangs_up_leave_the_terminal_quiet(
    site, monkeypatch, capsys, method, error, status
):
    def fail(*_arguments, **_options):
        raise error

    if status is None:
        monkeypatch.setattr("hf_distilhubert.web_server.Handler.end_headers", fail)
        with pytest.raises(http.client.RemoteDisconnected):
            ask(site[0], "/app.js", method)
    else:
        monkeypatch.setattr(Path, "open", fail)
        assert ask(site[0], "/app.js", method)[0] == status
    assert capsys.readouterr().err == ""


def test_the_page_may_speak_to_nobody_else(site, tmp_path):
    policy = ask(site[0], "/")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "http" not in policy
    with served(make_export(tmp_path / "model"), None) as port:
        assert set(re.findall(r"https?://[^ ;]+", ask(port, "/")[1]["Content-Security-Policy"])) == {CDN}
        settings = json.loads(ask(port, "/settings.json")[2])
    assert settings["library"] == f"{CDN}/npm/{PACKAGE}@{VERSION}/dist/transformers.min.js"
    assert json.loads((SOURCE / "package.json").read_text())["dependencies"] == {PACKAGE: VERSION}


def test_only_this_machine_is_answered(tmp_path):
    with open_demo(make_export(tmp_path / "model"), port=0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_missing_package_and_a_port_that_is_taken_are_said(site, tmp_path):
    port, folder = site
    with pytest.raises(UserError, match=f"npm install {PACKAGE}@{VERSION}, and give the folder node_modules"):
        open_demo(folder / "model", port=0, transformers_js=tmp_path)
    for number in (port, 65_536):
        with pytest.raises(UserError, match=f"port {number} cannot be had: .*; give another with --port"):
            open_demo(folder / "model", port=number)


@pytest.mark.usefixtures("ctrl_c")
def test_the_command_says_where_and_ends_in_peace(tmp_path):
    arguments = [sys.executable, "-m", "hf_distilhubert", "demo", "--port", "0", "--model"]
    process = subprocess.Popen(
        [*arguments, make_export(tmp_path / "model")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    address = re.match(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert ask(int(address[1]), "/settings.json")[0] == 200
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
