"""A push sends what others can load and nobody has to hide; what is wrong with a folder is said in one go."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Server, python, save_recogniser, save_teacher
from hub_server import SAME_LOGITS, HubServer
from safetensors.torch import load_file, save_file

from hf_distilhubert.errors import UserError
from model_card.body import usage
from model_card.checks import NotReadyError
from model_card.facts import read_facts
from model_card.public import for_the_hub
from model_card.push import Pushed, push
from model_card.render import render
from model_card.selection import select

CARD = "---\nlicense: apache-2.0\ndata_license: cc-by-4.0\nlanguage: en\n---\n\n# A recogniser\n"
AGAIN = """
import sys, warnings
from model_card.push import push
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    push(sys.argv[1], sys.argv[2], private=True)
print(*(warning.message for warning in said))
"""


@pytest.fixture(scope="module")
def _recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_recogniser(tmp_path_factory.mktemp("made") / "recogniser")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def recogniser(_recogniser: Path, tmp_path: Path) -> Path:
    """A whole folder with its card, to be spoilt."""
    return Path(shutil.copytree(_recogniser, tmp_path / "recogniser"))


def dry(folder: Path, repo_id: str = "someone/model") -> Pushed:
    return push(folder, repo_id, dry_run=True)


def findings(folder: Path) -> list[str]:
    with pytest.raises(NotReadyError) as refusal:
        dry(folder)
    assert str(refusal.value).startswith("nothing was sent: ")
    return refusal.value.findings


# ----- what is sent ---------------------------------------------------------------------------------------


def test_a_folder_is_pushed_once_and_pulled_by_stock_classes_with_the_same_logits(
    hub_and_processes: tuple[HubServer, Server], recogniser: Path, tmp_path: Path
) -> None:
    hub, server = hub_and_processes
    (recogniser / "training_args.bin").write_bytes(b"\x80\x02a pickle")
    command = ("-m", "model_card.push", recogniser, "someone/pushed", "--private")
    said, before = python(*command, server=server), len(hub.uploads.summaries)
    assert "left out  training_args.bin (a pickle or an archive, which can hold code)" in said
    assert re.search(r"^http.*/someone/pushed/commit/[0-9a-f]{40}$", said, flags=re.MULTILINE)
    assert "someone/pushed" in hub.uploads.private
    there = hub.root / "someone" / "pushed"
    sent = {path.name: path.read_bytes() for path in recogniser.iterdir() if path.suffix != ".bin"}
    assert {path.name: path.read_bytes() for path in there.rglob("*") if path.is_file()} == sent

    asked = len(hub.requests)
    assert "someone/pushed holds these files already" in python(*command, server=server)
    assert len(hub.uploads.summaries) == before
    assert not any(request.startswith("PUT") for request in hub.requests[asked:])
    assert python("-c", AGAIN, recogniser, "someone/pushed", server=server).strip() == ""
    (there / "model-00001-of-00002.safetensors").write_bytes(b"of an earlier push")
    said = python("-c", AGAIN, recogniser, "someone/pushed", server=server)
    assert "keeps 1 file that the folder does not have (model-00001-of-00002.safetensors)" in said
    # Another cache, so that nothing is there already.
    python(
        "-c", SAME_LOGITS, recogniser, "someone/pushed", server=server, HF_HOME=str(tmp_path / "another-home")
    )


def test_branch_and_pull_request_leave_the_main_branch_alone(
    hub_and_processes: tuple[HubServer, Server], recogniser: Path
) -> None:
    hub, server = hub_and_processes
    command = ("-m", "model_card.push", recogniser, "someone/branched")
    python(*command, server=server)
    there = hub.root / "someone" / "branched"
    main = {path.name: path.read_bytes() for path in there.iterdir()}
    (recogniser / "README.md").write_text(CARD + "More.\n")
    python(*command, "--revision", "dev", server=server)
    said = python(*command, "--pull_request", server=server)
    assert said.rstrip().endswith("/someone/branched/discussions/1")
    # The same change is not proposed twice.
    assert python(*command, "--pull_request", server=server) == said
    assert {path.name: path.read_bytes() for path in there.iterdir()} == main
    for revision in ("branched@dev", "branched@refs/pr/1"):
        assert (there.parent / revision / "README.md").read_text() == CARD + "More.\n"
        assert (there.parent / revision / "model.safetensors").read_bytes() == main["model.safetensors"]
    assert len(hub.uploads.requests) == 1


REFUSED = """
import sys
from hf_distilhubert.errors import UserError
from model_card.push import push

for name, options, wanted in (
    ("someone/data", {}, "is a data set on the Hub; choose another name"),
    ("someone/public", {"private": True}, "is there and public; make it private"),
    ("someone/else/where", {}, "cannot be a repository"),
):
    try:
        push(sys.argv[1], name, **options)
    except UserError as error:
        assert wanted in str(error), error
    else:
        raise AssertionError(name)
"""


def test_a_data_set_of_that_name_and_a_public_repository_are_refused(
    hub_and_processes: tuple[HubServer, Server], recogniser: Path
) -> None:
    hub, server = hub_and_processes
    for name in ("datasets/someone/data", "someone/public"):
        (hub.root / name).mkdir(parents=True)
    before = len(hub.uploads.summaries)
    python("-c", REFUSED, recogniser, server=server)
    assert len(hub.uploads.summaries) == before
    assert not (hub.root / "someone" / "data").exists()


def test_a_dry_run_lists_every_file_with_its_size_and_needs_no_network(recogniser: Path) -> None:
    for name in ("checkpoint-10/model.safetensors", ".cache/x", "runs/events.out.tfevents.1.host", "a.lock"):
        (recogniser / name).parent.mkdir(exist_ok=True)
        (recogniser / name).write_bytes(b"x")
    (recogniser / "optimizer.pt").write_bytes(b"x")
    (recogniser / "weights.dat").write_bytes(b"\x80\x04pickle")
    (recogniser / ".eval_results").mkdir()
    (recogniser / ".eval_results" / "test.yaml").write_text("a: 1\n")
    (recogniser / "link").symlink_to(recogniser.parent)
    said = python("-m", "model_card.push", recogniser, "someone/model", "--dry_run")
    lines = [line.split(maxsplit=1) for line in said.splitlines() if re.match(r" *[\d,]+  ", line)]
    listed = {name: int(size.replace(",", "")) for size, name in lines[:-1]}
    wanted = {path.name: path.stat().st_size for path in recogniser.glob("*.json")}
    wanted |= {name: (recogniser / name).stat().st_size for name in ("README.md", "model.safetensors")}
    assert listed == wanted | {".eval_results/test.yaml": 5}
    left = [line.partition("left out  ")[2] for line in said.splitlines() if "left out" in line]
    assert {re.split(r" \(", line)[0] for line in left} == {
        *("checkpoint-10/", ".cache/", "runs/events.out.tfevents.1.host", "a.lock"),
        *("optimizer.pt", "weights.dat", "link/"),
    }
    assert said.rstrip().endswith("the folder is ready")


def test_the_weights_of_openvino_are_no_pickle(tmp_path: Path) -> None:
    for name in ("openvino_model.xml", "openvino_model.bin", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"weights")
    selection = select(tmp_path)
    assert [file.name for file in selection.files] == ["openvino_model.bin", "openvino_model.xml"]


# ----- what is looked at before ---------------------------------------------------------------------------


def test_a_student_without_a_tokenizer_is_ready(tmp_path: Path) -> None:
    folder = save_teacher(tmp_path / "student")
    (folder / "README.md").write_text(CARD)
    assert {file.name for file in dry(folder).files} >= {"model.safetensors", "preprocessor_config.json"}


def test_an_exported_model_is_ready_as_long_as_its_graph_runs(
    exported: tuple[Path, Path, Any], tmp_path
) -> None:
    folder = Path(shutil.copytree(exported[1], tmp_path / "onnx"))
    (folder / "README.md").write_text(CARD)
    assert "onnx/model.onnx" in {file.name for file in dry(folder).files}
    (folder / "preprocessor_config.json").unlink()
    graph = folder / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1_000])
    missing, broken = findings(folder)
    assert missing.startswith("there is no preprocessor_config.json")
    assert broken.startswith("onnx/model.onnx does not open")


def test_everything_that_is_wrong_is_said_in_one_go(
    recogniser: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(recogniser / "model.safetensors")
    tensors["lm_head.bias"][0] = torch.nan
    save_file(tensors, recogniser / "model.safetensors", metadata={"format": "pt"})
    (recogniser / "README.md").write_text("---\nlicense: mit\n---\nWritten in /home/someone/models.\n")
    (recogniser / "mine.yaml").write_text("data: /data/speech/train\nmodel: ../student\n")
    (recogniser / "notes.txt").write_text("ask me@somewhere.org\nwith hf_" + "a1B2" * 8 + "\n")
    found = findings(recogniser)
    assert [line.split(" ")[0].rstrip(":") for line in found] == [
        *("model.safetensors", "README.md", "README.md:4", "mine.yaml:1", "notes.txt:1", "notes.txt:2")
    ]
    for line, part in zip(
        found,
        ("lm_head.bias", "(data_license)", "/home/someone/models", "/data/speech/train", "me@", "token"),
        strict=True,
    ):
        assert part in line
    assert "a1B2" not in "".join(found)


def test_the_command_ends_with_2_and_a_line_for_each_thing(recogniser: Path) -> None:
    (recogniser / "README.md").unlink()
    (recogniser / "a.txt").write_text("in /srv/data/x\n")
    code = "import runpy, sys; sys.argv = ['push', sys.argv[1], 'a/b', '--dry_run']\n"
    code += "try: runpy.run_module('model_card.push', run_name='__main__')\n"
    code += "except SystemExit as end: print('status', end.code)\nsys.stderr.flush()"
    said = python("-c", "import sys; sys.stderr = sys.stdout\n" + code, recogniser)
    *_, card, path, error, status = said.splitlines()
    assert card.startswith("there is no card, README.md: write one with python -m model_card.render")
    assert path == "a.txt:1 names the absolute path '/srv/data/x': take it out"
    assert error.startswith("error: nothing was sent: ")
    assert "2 things to mend" in error
    assert status == "status 2"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "there are no weights in safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "model.safetensors is damaged"),
        (lambda f: (f / "config.json").unlink(), "cannot load AutoConfig"),
        (lambda f: (f / "processor_config.json").write_text("{"), "cannot load AutoProcessor"),
        (lambda f: (f / "README.md").write_text("---\na: [\n---\n"), "README.md has no valid metadata"),
        (lambda f: (f / "README.md").write_text("# None\n"), "does not state the licence of the weights"),
    ],
    ids=["no weights", "damaged weights", "no config", "damaged processor", "broken YAML", "no metadata"],
)
def test_a_folder_that_others_cannot_use_is_refused(spoil: Any, said: str, recogniser: Path) -> None:
    spoil(recogniser)
    assert any(said in line for line in findings(recogniser))


def test_a_part_of_a_model_is_refused(recogniser: Path) -> None:
    tensors = load_file(recogniser / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, recogniser / "model.safetensors", metadata={"format": "pt"})
    assert any("1 weights are missing" in line for line in findings(recogniser))


def test_a_model_that_stock_classes_do_not_know_is_sent_with_a_warning(recogniser: Path) -> None:
    from hf_distilhubert.layer_sum import HubertLayerSumConfig, HubertLayerSumForCTC

    config = json.loads((recogniser / "config.json").read_text())
    model = HubertLayerSumForCTC(HubertLayerSumConfig(**{**config, "model_type": "hubert-layer-sum"}))
    model.save_pretrained(recogniser)
    with pytest.warns(UserWarning, match="stock Transformers refuses"):
        assert dry(recogniser).files


# ----- what is said otherwise there, or stays ----------------------------------------------------------


def test_what_scoring_writes_can_be_sent_and_a_page_that_plays_files_stays(
    recogniser: Path, numbers: Path
) -> None:
    from finetune.score import score

    score(str(recogniser), str(numbers))
    dropped = {left.name: left.reason for left in dry(recogniser).left_out}
    assert "--embed_audio" in dropped["scores/test/report.html"]
    page = recogniser / "scores" / "test" / "report.html"
    # Of clips that are no files here, as those of a hub: data set.
    page.write_text("<td>what nobody else should read</td>")
    assert "scores/test/report.html" in {left.name for left in dry(recogniser).left_out}
    score(str(recogniser), str(numbers), embed_audio=2, overwrite=True)
    pushed = dry(recogniser)
    sent = {file.name for file in pushed.files}
    assert {"scores/test/report.html", "scores/test/results.json"} <= sent
    assert "scores/test/utterances.csv" in {left.name for left in pushed.left_out}


def test_the_card_is_sent_with_code_for_its_repository_and_settings_without_folders_of_here(
    recogniser: Path, tmp_path: Path
) -> None:
    (recogniser / "README.md").unlink()
    render(recogniser, license="apache-2.0", data_license="cc-by-4.0")
    with (recogniser / "README.md").open("a") as card:
        card.write('My own words on "recogniser".\n')
    settings = {"data": "/data/my clips, all", "model": "someone/teacher", "seed": 3, "eval_steps": None}
    (recogniser / "finetune.yaml").write_text(yaml.safe_dump(settings))
    before = {path.name: path.read_bytes() for path in recogniser.iterdir()}

    files = {file.name: file for file in for_the_hub(recogniser, "someone/small", tmp_path).files}
    card_here, card_there = before["README.md"].decode(), files["README.md"].path.read_text()
    assert card_there == card_here.replace('model="recogniser"', 'model="someone/small"').replace(
        "`recogniser` is this folder, or the name of its repository on the Hub.\n", ""
    )
    assert 'model="someone/small"' in card_there
    told = yaml.safe_load(files["finetune.yaml"].path.read_text())
    assert told == settings | {"data": "my clips, all"}
    assert {name for name, file in files.items() if file.note} == {"README.md", "finetune.yaml"}
    assert {path.name: path.read_bytes() for path in recogniser.iterdir()} == before
    dry(recogniser)  # with the folder's name in it, it would be refused


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_the_card_of_an_export_fetches_its_file_from_the_repository(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "hubert", "architectures": ["HubertForCTC"]}')
    file = f"{kind}/model.{'xml' if kind == 'openvino' else 'onnx'}"
    (tmp_path / "export.json").write_text(json.dumps({"format": kind, "file": file}))
    code = usage(read_facts(tmp_path), "someone/small")
    assert "from huggingface_hub import snapshot_download\n" in code
    assert f'(snapshot_download("someone/small") + "/{file}"' in code


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        dry(tmp_path / "absent")
