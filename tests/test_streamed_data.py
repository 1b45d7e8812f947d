"""Streamed speech: the same batches from wherever it starts, in every layout; bad clips are passed over."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from conftest import RUNS, python, save_teacher
from crashes import Crash, at_step, crash
from stopped_runs import SETTINGS, outcome

from hf_distilhubert import UserError, streamed_steps, training
from hf_distilhubert.batches import ByBudget, ByCount
from hf_distilhubert.clip_lists import LocalStream
from hf_distilhubert.distill import distill
from hf_distilhubert.errors import run_command
from hf_distilhubert.hub_data import HubStream
from hf_distilhubert.streamed_steps import Place, StreamedSteps

CUTS = [
    pytest.param(ByCount(4), id="by-count"),
    pytest.param(ByBudget(12_000, 3_000, 100, 2), id="by-budget"),
]


@pytest.fixture
def noises(tmp_path):
    """A folder of 29 clips, each its own length, and one that is no audio."""
    folder = tmp_path / "noises"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(29):
        samples = generator.uniform(-0.1, 0.1, 401 + 100 * number)
        soundfile.write(folder / f"{number:02}.wav", samples, 16_000)
    (folder / "page.wav").write_text("<html>")
    return folder


def write_repository(folder: Path, clips: list[Path]) -> None:
    """Three parquet files, of ten clips or fewer in row groups of four."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        rows = [
            {"audio": {"bytes": clip.read_bytes(), "path": clip.name}} for clip in clips[number * 10 :][:10]
        ]
        path = folder / f"train-{number:05}-of-00003.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)


@pytest.fixture
def hub(noises, tmp_path, monkeypatch):
    """`hub:someone/noises` is the same clips."""
    import datasets
    import huggingface_hub

    write_repository(tmp_path / "repository", sorted(noises.iterdir()))
    files, load = sorted(map(str, (tmp_path / "repository").iterdir())), datasets.load_dataset
    revision = type("Info", (), {"sha": "0123456789"})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_: revision)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_, revision, streaming: load("parquet", data_files={"train": files}, streaming=streaming),
    )
    return "hub:someone/noises"


@pytest.fixture
def stream(request, noises, monkeypatch):
    """Makes a new stream of the clips: of those in the folder, or of those on the Hub."""
    monkeypatch.setattr(streamed_steps, "POOL", 8)
    if request.param == "local":
        return lambda: LocalStream(str(noises), None, seed=3)
    name = request.getfixturevalue("hub")
    return lambda: HubStream(name, "train", seed=3)


def collate(waveforms) -> dict[str, list[bytes]]:
    return {"waveforms": [waveform.tobytes() for waveform in waveforms]}


def steps(stream, cut, count, place=None, threads=1) -> list[streamed_steps.Step]:
    return list(StreamedSteps(stream, "noises", cut, 2, collate, 3_000, 0, threads, place or Place(), count))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", ["local", "hub"], indirect=True)
def test_a_stream_goes_on_from_every_step_with_the_same_batches_bit_for_bit(stream, cut):
    whole = steps(stream(), cut, 14)
    assert whole[-1].place.epoch == 1
    for number, step in enumerate(whole[:-1], start=1):
        place = Place(**json.loads(json.dumps(asdict(step.place))))
        assert steps(stream(), cut, 14 - number, place, threads=3) == whole[number:]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", ["local", "hub"], indirect=True)
def test_every_epoch_of_a_stream_holds_every_clip_that_can_be_used(stream, cut):
    found = steps(stream(), cut, 40)
    orders = []
    for epoch in range(2):
        batches = [
            [len(waveform) // 4 for batch in step.batches for waveform in batch["waveforms"]]
            for step in found
            if step.place.epoch == epoch
        ]
        heard = Counter(chain(*batches))
        assert heard.keys() == {min(401 + 100 * number, 3_000) for number in range(29)}
        assert heard.total() - 29 < cut.multiple
        assert all(len(batch) % cut.multiple == 0 for batch in batches)
        orders.append(batches)
    assert orders[0] != orders[1]
    last = [step.place.samples for step in found if step.place.epoch == 0][-1]
    assert last == sum(401 + 100 * number for number in range(29)) == found[-1].place.samples
    assert {clip.reason[-70:] for step in found for clip in step.skipped} == {
        "cannot be decoded (Format not recognised.); give WAV, FLAC, Ogg, Opus or MP3"[-70:]
    }


@pytest.mark.parametrize("stream", ["local", "hub"], indirect=True)
def test_order_and_crops_are_others_in_every_epoch_and_for_every_clip(stream, monkeypatch):
    asked, drawn = [], []

    class Recorded(type(stream())):
        def rows(self, epoch, state):
            for row in super().rows(epoch, state):
                asked.append((epoch, row.clip_id))
                yield row

    def crop(waveform, max_samples, generator):
        drawn.append(int(generator.integers(2**62)))
        return waveform[:max_samples]

    monkeypatch.setattr(streamed_steps, "crop", crop)
    source = stream()
    source.__class__ = Recorded
    steps(source, ByCount(4), 20)
    orders = [[name for number, name in asked if number == epoch] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    assert len(set(drawn)) == len(drawn) > 60


@pytest.fixture
def config(config):
    """Settings for a folder `student`, of streamed speech."""
    return partial(config, streaming=True)


def test_a_streamed_run_that_crashed_goes_on_bit_for_bit_with_any_number_of_workers(config, tmp_path):
    alone = distill(config(output_dir=str(tmp_path / "alone"), accumulation=2))
    with at_step(7, crash), pytest.raises(Crash):
        distill(config(accumulation=2, num_workers=2))
    assert distill(config(accumulation=2, num_workers=2)).run.final == alone.run.final
    assert outcome(tmp_path / "student") == outcome(tmp_path / "alone")
    results = outcome(tmp_path / "alone")["results"]
    files = (tmp_path / "spoken" / "train").iterdir()
    assert results["audio_hours"] == round(sum(soundfile.info(file).duration for file in files) / 3_600, 4)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({}, id="listed"),
        pytest.param({"streaming": "true", "num_workers": 1}, id="streamed"),
    ],
)
def test_two_processes_learn_the_same_as_one_from_batches_of_varying_size(tmp_path, spoken, layout):
    # A layer norm front end: a group norm over time would hear how much its batch is padded.
    teacher = save_teacher(tmp_path / "teacher", do_stable_layer_norm=True, feat_extract_norm="layer")
    lines = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        flags = {"teacher": teacher, "data": spoken, "output_dir": folder, "precision": "fp32"}
        flags |= SETTINGS | {"batch_seconds": 3.2, "max_samples": 16_000, "logging_steps": 1, "max_steps": 5}
        flags |= {"save_steps": 0, "eval_steps": 0} | layout | {"accumulation": 2 // processes}
        words = []
        for flag, value in flags.items():
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
        answer = RUNS.ask(flags=words, output=str(tmp_path / "output"), processes=processes)
        assert set(answer["statuses"]) == {0}, answer["printed"]
        lines.append([json.loads(line) for line in (folder / "log.jsonl").open()])
    for one, two in zip(*lines, strict=True):
        one, two = one.get("held_out", one), two.get("held_out", two)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["l1"] == pytest.approx(one["l1"], rel=1e-5)


@pytest.fixture
def mixed(speech_dir, tmp_path):
    """700 good clips (links to one), and all that is broken among them; the names of what cannot be used."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    soundfile.write(folder / "0.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4_000), 16_000)
    for number in range(1, 700):
        os.link(folder / "0.wav", folder / f"{number}.wav")
    shutil.copytree(speech_dir / "broken" / "audio", folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_broken_clips_among_good_ones_are_skipped_counted_and_listed(config, mixed, streaming):
    changes = {"data": str(mixed), "max_steps": 20, "batch_size": 40, "max_samples": 800, "save_steps": 0}
    result = distill(config(streaming=streaming, **changes))
    listed = [json.loads(line) for line in (result.folder / "skipped.jsonl").read_text().splitlines()]
    names = [entry["clip_id"] for entry in listed]
    for name in (
        "truncated_40pct.flac",
        "zero_byte.wav",
        "nan_few.wav",
        "clip_399_samples.wav",
        "html_renamed.flac",
    ):
        assert name in names
    for name in ("0.wav", "long_5min.flac", "clip_400_samples.wav", "speech.opus", "UPPERCASE.FLAC"):
        assert name not in names
    assert len(names) == len(set(names)) == outcome(result.folder)["results"]["skipped"]


@pytest.mark.parametrize("streaming", [False, True])
def test_too_many_broken_clips_stop_a_run_before_training(
    config, speech_dir, tmp_path, capsys, monkeypatch, streaming
):
    monkeypatch.setattr(training, "_step", None)
    monkeypatch.setattr("hf_distilhubert.distillation_run.held_out_loss", None)
    settings = config(streaming=streaming, data=str(speech_dir / "broken" / "audio"), train_split="all")
    with pytest.raises(SystemExit) as end:
        run_command(lambda: distill(settings))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be used, over the allowed 5%" in line
    assert not (tmp_path / "student.checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_seconds": 0.0}, "batch_seconds is 0.0"),
        (
            {"batch_seconds": 0.2, "accumulation": 2},
            "2 batches each; give at least 0.375, or a lower max_samples",
        ),
        ({"cache_targets": "cache"}, "cache_targets needs the list of clips, which streaming lacks"),
        ({"data": "absent"}, "there is no data at absent"),
        ({"train_split": "dev"}, "no clips in split 'dev'"),
    ],
)
def test_what_cannot_be_streamed_or_cut_is_refused_in_one_line(config, tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        distill(config(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "student.checkpoints").exists()


RUN = """
import sys
from functools import partial
from pathlib import Path
from hf_distilhubert import DistillConfig, training
from hf_distilhubert.distill import distill
from stopped_runs import SETTINGS, outcome

teacher, folder = sys.argv[1], Path(sys.argv[2])

def run(name, num_workers):
    distill(DistillConfig(**SETTINGS | {
        "teacher": teacher, "data": "hub:someone/noises", "output_dir": str(folder / name),
        "streaming": True, "num_workers": num_workers,
    }))

run("alone", 0)
step = training._step
training._step = lambda *given: step(*given) if given[-1].step < 7 else 1 / 0
try:
    run("stopped", 1)
except ZeroDivisionError:
    training._step = step
run("stopped", 1)
assert outcome(folder / "stopped") == outcome(folder / "alone")
"""


@pytest.mark.slow
def test_a_data_set_on_the_hub_is_streamed_by_the_real_client(hub_and_processes, noises, tmp_path):
    hub, server = hub_and_processes
    teacher = save_teacher(tmp_path / "teacher")
    (noises / "page.wav").unlink()
    files = hub.root / "datasets" / "someone" / "noises"
    write_repository(files, sorted(noises.iterdir()))
    shutil.copyfile(files / "train-00000-of-00003.parquet", files / "validation-00000-of-00001.parquet")
    said = python("-c", RUN, teacher, tmp_path, server=server)
    assert "streamed, 3 files, revision" in said
    assert "going on from" in said
    assert not list(Path(server.environment["HF_HOME"]).rglob("someone___noises/**/*.arrow"))
    assert '"held_out"' in (tmp_path / "alone" / "log.jsonl").read_text()
