"""The page of `distilhubert demo`: which models it takes, and what a browser writes down on it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import PROGRAM, Page, open_page
from exports import transformers_js
from test_web_server import GRAPH, NEEDED, ask, make_export, served

from hf_distilhubert import Transcriber
from hf_distilhubert.audio import read_audio
from hf_distilhubert.demo import open_demo
from hf_distilhubert.errors import UserError

# ----- the model ------------------------------------------------------------------------------------------


def in_cache(folder: Path) -> Path:
    """The same as the Hub's cache has it: links into a folder of blobs, whose names say nothing."""
    snapshot = folder.parent / "cache" / "snapshots" / "0123abc"
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(file for file in sorted(folder.rglob("*")) if file.is_file()):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file.rename(blobs / str(number)), link.parent))
    return snapshot


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "openvino"}, "is for openvino, but a browser runs onnx or onnx-int8"),
        ({"metadata": {"frame_stride": "320"}}, "no CTC head, so it writes no text; export a recogniser"),
        ({"kind": "data2vec-audio"}, "of type 'data2vec-audio', which transformers.js does not know"),
        ({"file": "/etc/passwd"}, "names '/etc/passwd' in place of onnx/model.onnx; export the model again"),
        ({"format": "onnx-int8"}, "names 'onnx/model.onnx' in place of onnx/model_quantized.onnx"),
        ({"metadata": None}, "is no whole export"),
        ({"model": ["numbers"]}, "is no whole export"),
        ({"bytes": "3"}, "is no whole export"),
        ({"bytes": True}, "is no whole export"),
        ({"bytes": 0}, "is said to have 0 bytes"),
        ({"metadata": {"frame_stride": float("inf"), "vocabulary": "[]"}}, "is no whole export"),
        ({"metadata": {"frame_stride": "0", "vocabulary": "[]"}}, "a stride of 0; export the model again"),
    ],
    ids=str,
)
def test_an_export_that_no_browser_can_run_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_demo(make_export(tmp_path / "model", **changes), port=0)


@pytest.mark.parametrize("name", [*NEEDED, GRAPH])
def test_a_missing_file_is_named(tmp_path, name):
    (make_export(tmp_path / "model") / name).unlink()
    with pytest.raises(UserError, match=f"lacks {name}; export the model again"):
        open_demo(tmp_path / "model", port=0)


def test_an_export_in_the_hubs_cache_is_served(tmp_path):
    snapshot = in_cache(make_export(tmp_path / "model"))
    (snapshot / "other.json").symlink_to("../../blobs/0")
    with served(snapshot, None) as port:
        for name in ("config.json", *NEEDED, GRAPH):
            status, headers, body = ask(port, f"/model/{name}")
            assert (status, body) == (200, (snapshot / name).read_bytes())
            assert headers["Content-Type"].endswith("json" if name.endswith("json") else "octet-stream")
        for other in ("other.json", "../../blobs/0", "%2e%2e/%2e%2e/blobs/0"):
            assert ask(port, f"/model/{other}")[0] == 404


def test_a_link_to_elsewhere_is_refused(tmp_path):
    model = make_export(tmp_path / "model")
    (model / "tokenizer.json").rename(tmp_path / "secret")
    (model / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"tokenizer\.json is a link out of the folder; give"):
        open_demo(model, port=0)


def test_a_folder_that_is_no_export_gets_the_command_that_makes_one(tmp_path):
    with pytest.raises(UserError, match=f"distilhubert export --model {tmp_path} --output"):
        open_demo(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        open_demo(tmp_path / "nowhere")
    make_export(tmp_path / "broken")
    for text in ("{", "[" * 100_000):
        (tmp_path / "broken" / "export.json").write_text(text)
        with pytest.raises(UserError, match=r"export\.json cannot be read .*; export the model again"):
            open_demo(tmp_path / "broken")


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
    sound, other = read_audio(clip), np.random.default_rng(0).uniform(-0.1, 0.1, len(read_audio(clip)))
    soundfile.write(tmp_path / "both.wav", np.stack([2 * sound - other, other], 1), 16_000, subtype="FLOAT")
    give(page, tmp_path / "both.wav")
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
