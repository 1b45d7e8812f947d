"""The page of `distilhubert demo`: what its server gives away, and what a browser writes down on it."""

from __future__ import annotations

import difflib
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

import numpy as np
import pytest
import soundfile
from chromium import PROGRAM, Page, open_page
from conftest import ENVIRONMENT
from exports import SOURCE, transformers_js

from hf_distilhubert import Transcriber
from hf_distilhubert.audio import read_audio
from hf_distilhubert.demo import CDN, PACKAGE, PAGE, VERSION, open_demo
from hf_distilhubert.errors import UserError

GRAPH = "onnx/model.onnx"


def make_export(folder: Path, kind: str = "hubert", **changes: object) -> Path:
    """What the server looks at in an exported folder."""
    metadata = {"frame_stride": "320", "vocabulary": "[]"}
    said = {"model": "numbers", "format": "onnx", "file": GRAPH, "bytes": 3, "metadata": metadata} | changes
    (folder / "onnx").mkdir(parents=True)
    (folder / GRAPH).write_bytes(b"abc")
    (folder / "export.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
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


def ask(port: int, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Send the target as it stands, which most clients would tidy up first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, target)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("site")
    model, package = make_export(folder / "model"), make_package(folder / "node_modules")
    (folder / "secret").write_text("secret")
    (model / "link").symlink_to(folder / "secret")
    (model / "out").symlink_to(folder)
    (model / "circle").symlink_to(model / "circle")
    with served(model, package) as port:
        yield port, folder


# ----- the server -----------------------------------------------------------------------------------------


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
        "/model/..\\secret",
        "/model/FOLDER/secret",
        "/model/%2fFOLDER/secret",
        "/model/link",
        "/model/out/secret",
        "/model/circle",
        "/model/%00",
        "/model",
        "/../demo.py",
        "//[",
        "secret",
    ],
)
def test_nothing_else_is_served(site, target):
    port, folder = site
    status, _, body = ask(port, target.replace("FOLDER", str(folder)))
    assert status == 404
    assert b"Not Found" in body


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "openvino"}, "is for openvino, but a browser runs onnx or onnx-int8"),
        ({"metadata": {"frame_stride": "320"}}, "no CTC head, so it writes no text; export a recogniser"),
        ({"kind": "data2vec-audio"}, "of type 'data2vec-audio', which transformers.js does not know"),
        ({"file": "onnx/other.onnx"}, "lacks other.onnx; export the model again"),
        ({"metadata": None}, "is no whole export"),
    ],
    ids=str,
)
def test_an_export_that_no_browser_can_run_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_demo(make_export(tmp_path / "model", **changes), port=0)


def test_a_folder_that_is_no_export_gets_the_command_that_makes_one(tmp_path):
    with pytest.raises(UserError, match=f"distilhubert export --model {tmp_path} --output"):
        open_demo(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        open_demo(tmp_path / "nowhere")
    make_export(tmp_path / "broken")
    (tmp_path / "broken" / "export.json").write_text("{")
    with pytest.raises(UserError, match="export the model again"):
        open_demo(tmp_path / "broken")


def test_a_missing_package_and_a_port_that_is_taken_are_said(site, tmp_path):
    port, folder = site
    with pytest.raises(UserError, match=f"npm install {PACKAGE}@{VERSION}, and give the folder node_modules"):
        open_demo(folder / "model", port=0, transformers_js=tmp_path)
    for number in (port, 65_536):
        with pytest.raises(UserError, match=f"port {number} cannot be had: .*; give another with --port"):
            open_demo(folder / "model", port=number)


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


# ----- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(speech_dir: Path) -> Path:
    """Real speech, by a name without `..`, which Chromium would not open."""
    return sorted((speech_dir / "keywords" / "test").glob("*.flac"))[0].resolve()


@pytest.fixture(scope="module")
def page(exported, clip, pytestconfig, tmp_path_factory) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium or Chrome on PATH, so nobody opens the page")
    package = transformers_js(pytestconfig) / "node_modules"
    folder = tmp_path_factory.mktemp("browser")
    soundfile.write(folder / "microphone.wav", read_audio(clip), 16_000)
    with (
        served(exported[1], package) as port,
        open_page(folder / "profile", folder / "microphone.wav") as page,
    ):
        page.go_to(f"http://127.0.0.1:{port}/")
        page.wait_for("/Ready|Error/.test(document.body.innerText)")
        assert shown(page, "error") == ""
        yield page


def shown(page: Page, name: str) -> str:
    return page.value(f"document.querySelector('#{name}').textContent")


def give(page: Page, file: Path) -> None:
    """Choose a file, and wait for a text or a complaint."""
    page.value("document.querySelector('#file').click()")
    page.give("#file", file)
    page.wait_for("!document.querySelector('#file').disabled")


def test_the_page_writes_what_the_transcriber_writes(page, clip, exported):
    give(page, clip)
    [expected] = Transcriber(exported[0], device="cpu").transcribe_waveforms([read_audio(clip)])
    assert expected
    assert (shown(page, "text"), shown(page, "error")) == (expected, "")
    assert shown(page, "time").startswith(f"{len(read_audio(clip)) / 16_000:.1f} s of sound in ")
    assert shown(page, "model").startswith("recogniser, float32, ")


def test_channels_are_averaged(page, clip, exported, tmp_path):
    sound = read_audio(clip)
    soundfile.write(tmp_path / "left.wav", np.stack([2 * sound, 0 * sound], 1), 16_000, subtype="FLOAT")
    give(page, tmp_path / "left.wav")
    assert [shown(page, "text")] == Transcriber(exported[0], device="cpu").transcribe_waveforms([sound])


def test_a_recording_of_over_thirty_seconds_is_heard_in_windows_that_join(page, exported, tmp_path):
    # Two seconds again and again: each window has the statistics of the whole.
    piece = np.random.default_rng(0).uniform(-0.1, 0.1, 32_000)
    soundfile.write(tmp_path / "long.wav", np.tile(piece, 29), 16_000)
    give(page, tmp_path / "long.wav")
    transcriber = Transcriber(exported[0], device="cpu")
    [expected] = transcriber.transcribe_waveforms([read_audio(tmp_path / "long.wav")])
    text = shown(page, "text")
    assert abs(len(text) - len(expected)) <= 2
    assert difflib.SequenceMatcher(None, text, expected, autojunk=False).ratio() > 0.99


def test_the_microphone_is_heard(page):
    page.value("document.querySelector('#record').click()")
    page.wait_for("document.querySelector('#record').ariaPressed == 'true'")
    assert (shown(page, "record"), shown(page, "status")) == ("Stop", "Recording…")
    page.value("new Promise((done) => setTimeout(done, 1200))")
    page.value("document.querySelector('#record').click()")
    page.wait_for("document.querySelector('#time').textContent")
    assert float(shown(page, "time").split()[0]) > 0.5
    assert shown(page, "text") not in ("", "Nothing was understood.")
    assert shown(page, "record") == "Record"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (0, "Error: given.wav holds no sound that this browser can decode; give WAV, FLAC, MP3 or Ogg"),
        (399, "Error: 399 samples at 16 kHz are too short; a frame needs 400"),
    ],
)
def test_what_cannot_be_heard_is_said_in_a_line(page, tmp_path, samples, message):
    soundfile.write(tmp_path / "given.wav", np.zeros(samples), 16_000)
    if not samples:
        (tmp_path / "given.wav").write_text("no sound")
    give(page, tmp_path / "given.wav")
    assert (shown(page, "error"), shown(page, "text"), shown(page, "status")) == (message, "", "")


def test_the_page_can_be_used_without_seeing_it(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {node["role"]["value"]: node.get("name", {}).get("value") for node in nodes if "role" in node}
    assert {"button", "status", "alert", "main"} <= set(roles)
    names = {node.get("name", {}).get("value") for node in nodes}
    assert {"Record", "Text"} <= names
    assert any("choose a file" in name for name in names if name)
    assert page.value("document.querySelector('#text').ariaLive") == "polite"


def test_the_page_fits_narrow_screens_and_dark_rooms(page, tmp_path):
    grounds = []
    for scheme in ("light", "dark"):
        page.picture(tmp_path / f"{scheme}.png", width=320, scheme=scheme)
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        grounds.append(page.value("getComputedStyle(document.body).backgroundColor"))
    assert len(set(grounds)) == 2


def test_nothing_on_the_page_went_wrong(page):
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event["params"] for event in page.events if event["method"] in kinds] == []
