"""Fine-tuning on a stream: exact after a kill, in every layout, with what cannot be used passed over."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from conftest import RUNS, TINY, python, save_recogniser
from stopped_runs import outcome

from finetune.arguments import CTCTrainingArguments
from finetune.settings import FinetuneConfig
from finetune.train import train
from hf_distilhubert import streamed_steps
from hf_distilhubert.errors import UserError
from hf_distilhubert.hub_data import HubStream

FLAGS = {
    "streaming": "true",
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "logging_steps": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "augment": "true",
    "spec_augment": "true",
    "use_cpu": "true",
    "bf16": "false",
}


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    file = tmp_path / "shape.json"
    file.write_text(json.dumps(TINY | {"num_hidden_layers": 2, "hidden_dropout": 0.1}))
    return file


@pytest.fixture
def run(spoken, shape, tmp_path, monkeypatch):
    """A streamed run in this process."""
    monkeypatch.setattr(streamed_steps, "POOL", 8)

    def call(name: str, **changes):
        ours = {"data": str(spoken), "from_scratch": str(shape), "streaming": True, "eval_split": "none"}
        theirs = {"output_dir": str(tmp_path / name), "max_steps": 4, "per_device_train_batch_size": 4}
        theirs |= {"logging_steps": 1, "use_cpu": True, "bf16": False}
        for field, value in changes.items():
            (ours if field in FinetuneConfig.__dataclass_fields__ else theirs)[field] = value
        return train(FinetuneConfig(**ours), CTCTrainingArguments(**theirs))

    return call


def add(folder: Path, name: str, text: str, samples: int) -> None:
    soundfile.write(folder / name, np.random.default_rng(1).uniform(-0.1, 0.1, samples), 16_000)
    with (folder / "metadata.csv").open("a", newline="") as file:
        file.write(f"{name},{text},,train\r\n")


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({}, id="whole"),
        pytest.param(
            {"dataloader_num_workers": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
            id="workers-and-parts",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"processes": 2, "per_device_train_batch_size": 2}, id="two-processes", marks=pytest.mark.slow
        ),
    ],
)
def test_a_streamed_run_that_was_killed_ends_bit_for_bit_as_if_left_alone(spoken, shape, tmp_path, layout):
    processes, layout = layout.get("processes", 1), {key: layout[key] for key in layout if key != "processes"}

    def call(name: str, stop: dict | None = None, **changes) -> dict:
        flags = {"data": spoken, "from_scratch": shape, "output_dir": tmp_path / name}
        flags |= FLAGS | layout | changes
        words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
        stop = stop and stop | {"number": signal.SIGKILL, "ranks": list(range(processes)), "delay": 0.0}
        request = {"flags": words, "output": str(tmp_path / "output"), "processes": processes, "stop": stop}
        return RUNS.ask(stage="finetune", **request)

    answers = [call("alone"), call("killed", {"event": "step", "count": 6})]
    answers.append(call("killed", {"event": "result", "count": 1}, resume_from_checkpoint="true"))
    answers.append(call("killed", resume_from_checkpoint="true"))
    statuses = [answer["statuses"][0] for answer in answers]
    assert statuses == [0, -signal.SIGKILL, -signal.SIGKILL, 0], answers
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "alone")


@pytest.mark.slow
def test_processes_and_parts_hear_what_one_process_hears(spoken, shape, tmp_path):
    shape.write_text(json.dumps(TINY | {"num_hidden_layers": 2}))
    logs = []
    for name, batch, parts, processes in (("one", 4, 1, 1), ("parts", 2, 2, 1), ("two", 2, 1, 2)):
        flags = {"data": spoken, "from_scratch": shape, "output_dir": tmp_path / name} | FLAGS
        flags |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": parts}
        flags |= {"logging_steps": 1, "max_steps": 4, "learning_rate": 1e-5, "save_strategy": "no"}
        words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
        answer = RUNS.ask(stage="finetune", flags=words, output=f"{tmp_path}/out", processes=processes)
        assert set(answer["statuses"]) == {0}, answer["printed"]
        lines = map(json.loads, (tmp_path / name / "log.jsonl").open())
        logs.append([line for line in lines if "loss" in line])
    for other in logs[1:]:
        for one, two in zip(logs[0], other, strict=True):
            assert [two["loss"], two["grad_norm"]] == pytest.approx([one["loss"], one["grad_norm"]], rel=1e-5)


def test_what_was_heard_is_counted_and_what_cannot_be_used_is_listed(run, spoken, capsys, monkeypatch):
    monkeypatch.setattr(streamed_steps, "POOL", 480)
    for number in range(60):
        add(spoken, f"train/more{number}.flac", "one two", 8_000)
    add(spoken, "train/short.flac", "eleven thousand seven hundred", 3_300)
    add(spoken, "train/signs.flac", "?!", 8_000)
    (spoken / "train" / "more0.flac").write_text("<html>")
    result = run("run", max_steps=20)
    listed = [json.loads(line) for line in (result.folder / "skipped.jsonl").read_text().splitlines()]
    assert {line["clip_id"]: line["reason"][-40:] for line in listed}.keys() == {
        "train/more0.flac",
        "train/short.flac",
        "train/signs.flac",
    }
    assert (result.train_clips, result.skipped) == (71, 3)
    log = [json.loads(line) for line in (result.folder / "log.jsonl").open()]
    assert [line["epoch"] for line in log] == [0.0] * 18 + [1.0] * 2
    assert "74 transcripts were read before" in capsys.readouterr().out


def test_too_many_unusable_clips_are_one_line(run, spoken, tmp_path):
    for number in range(3):
        add(spoken, f"train/short{number}.flac", "eleven thousand seven hundred", 3_300)
    with pytest.raises(UserError, match="3 of 15 clips cannot be used"):
        run("run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_steps": -1}, "needs --max_steps"),
        ({"save_strategy": "epoch"}, "--save_strategy epoch: a stream has no length"),
        ({"train_sampling_strategy": "random"}, "--train_sampling_strategy random needs the list of clips"),
    ],
)
def test_settings_that_need_a_list_of_clips_are_one_line(run, tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        run("run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def hub(spoken, tmp_path, monkeypatch):
    """`hub:someone/numbers`: the training clips with their texts, in two Parquet files."""
    import datasets
    import huggingface_hub

    files, load = write_repository(tmp_path / "repository", spoken), datasets.load_dataset
    revision = type("Info", (), {"sha": "0123456789"})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_: revision)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_, revision, **given: load("parquet", data_files={"train": list(map(str, files))}, **given),
    )
    return "hub:someone/numbers"


def write_repository(folder: Path, spoken: Path) -> list[Path]:
    folder.mkdir(parents=True)
    lines = (spoken / "metadata.csv").read_text().splitlines()[1:13]
    rows = []
    for line in lines:
        name, text, *_ = line.split(",")
        audio = {"bytes": (spoken / name).read_bytes(), "path": name}
        rows.append({"audio": audio, "transcription": f"{text.title()}!"})
    files = [folder / f"train-{number:05}-of-00002.parquet" for number in range(2)]
    for number, file in enumerate(files):
        table = pyarrow.Table.from_pylist(rows[6 * number :][:6])
        pyarrow.parquet.write_table(table, file, row_group_size=3)
    return files


def test_a_vocabulary_comes_from_the_text_column_alone(run, hub, monkeypatch):
    stream = HubStream(hub, "train", 0, need_text=True)
    assert sorted(stream.transcripts()) == sorted(["One!", "Two!", "Three!", "Four!"] * 3)
    result = run("run", data=hub)
    assert result.train_clips == 12
    vocabulary = json.loads((result.folder / "vocab.json").read_text())
    assert set(vocabulary) - {"<pad>", "<unk>", "|"} == set("onetwthrefu")


def test_without_one_a_recogniser_is_adapted_and_nothing_else(run, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(HubStream, "transcripts", lambda _: None)
    with pytest.raises(UserError, match="which only Parquet files give without their sound; adapt a recog"):
        run("refused", data=hub)
    model = save_recogniser(tmp_path / "recogniser")
    assert run("adapted", data=hub, from_scratch=None, model=str(model)).train_clips == 12
    assert "nothing read before" in capsys.readouterr().out


@pytest.mark.slow
def test_a_data_set_on_the_hub_is_streamed_by_the_real_client(hub_and_processes, spoken, shape, tmp_path):
    hub, server = hub_and_processes
    files = write_repository(hub.root / "datasets" / "someone" / "spoken", spoken)
    (files[0].parent / "validation-00000-of-00001.parquet").write_bytes(files[0].read_bytes())
    flags = {"data": "hub:someone/spoken", "from_scratch": shape, "output_dir": tmp_path / "run"} | FLAGS
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    said = python("-m", "finetune.train", *words, cwd=tmp_path, server=server)
    assert "streamed, 2 files, revision" in said
    assert "12 transcripts were read before" in said
    assert "evaluation on 6 clips" in said
    assert not list(Path(server.environment["HF_HOME"]).rglob("someone___spoken/**/*.arrow"))
