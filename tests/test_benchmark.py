"""`distilhubert benchmark` on tiny models: what it counts, how it measures, what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, save_recogniser, save_teacher
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertForCTC, HubertModel

from hf_distilhubert import benchmark_ways
from hf_distilhubert.benchmark import BenchmarkResult, BenchmarkSettings, benchmark, main
from hf_distilhubert.benchmark_costs import multiply_adds, multiply_adds_per_second
from hf_distilhubert.benchmark_memory import STATUS, growth
from hf_distilhubert.benchmark_report import tables, write
from hf_distilhubert.benchmark_run import run
from hf_distilhubert.benchmark_speech import benchmark_speech
from hf_distilhubert.benchmark_timing import Ratio, Timing, take_turns
from hf_distilhubert.benchmark_ways import Way
from hf_distilhubert.errors import UserError
from hf_distilhubert.students import student_config

SHORT: dict[str, Any] = {"seconds": (0.5, 1.0), "mixed_clips": 9, "rounds": 2}


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in a process of its own, which takes seconds to start."""
    monkeypatch.setattr("hf_distilhubert.benchmark_run.extra_memory", lambda *_: 1_000_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("model") / "student", num_hidden_layers=2)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, model: Path) -> BenchmarkResult:
    peer = save_teacher(tmp_path_factory.mktemp("peer") / "teacher", num_hidden_layers=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_distilhubert.benchmark_run.extra_memory", lambda *_: 1_000_000)
        return benchmark(BenchmarkSettings(model, ("hf", str(peer), "s3prl"), **SHORT))


@pytest.mark.parametrize("samples", [400, 16_000, 23_457])
@pytest.mark.parametrize(
    "shape", [{}, {"num_conv_pos_embeddings": 15, "conv_dim": (16,) * 6 + (24,), "num_hidden_layers": 1}]
)
def test_multiply_adds_are_those_that_a_profiler_counts(shape: dict[str, Any], samples: int) -> None:
    config = HubertConfig(**{"num_hidden_layers": 2} | TINY | shape, attn_implementation="eager")
    model = HubertModel(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randn(1, samples))
    assert 2 * multiply_adds(config, samples) == counter.get_total_flops()


def test_the_papers_student_has_less_than_half_of_its_teachers_multiply_adds() -> None:
    student, teacher = student_config(HubertConfig(), (4, 8, 12)), HubertConfig()
    assert multiply_adds_per_second(student) == pytest.approx(3.53e9, rel=1e-2)
    assert multiply_adds_per_second(teacher) == pytest.approx(7.64e9, rel=1e-2)


def test_ways_take_turns_and_another_one_begins_each_round() -> None:
    order: list[str] = []
    ways: dict[str, Callable[[int], object]] = {
        name: lambda part, name=name: order.append(f"{name}{part}") for name in "abc"
    }
    times = take_turns(ways, [1, 2], 2)
    assert "".join(order[-12:]) == "a1b1c1a2b2c2b1c1a1b2c2a2"
    assert len(order) == 3 * 6  # a round to warm up
    assert {timing.turns for timing in times.values()} == {4}


def test_a_parts_time_is_its_median_and_the_works_time_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([1.0, 10.0, 2.0, 20.0, 90.0, 30.0])  # two parts, three rounds
    clock = 0.0

    def work(_: int) -> None:
        nonlocal clock
        clock += next(taken)

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    monkeypatch.setattr("time.process_time", lambda: clock / 2)
    assert take_turns({"way": work}, [1, 2], 3, warm_up=False)["way"] == Timing(22.0, 11.0, 6)


def test_a_ratio_is_believed_when_both_clocks_agree() -> None:
    assert Ratio(wall=2.0, cpu=2.1).believed
    assert not Ratio(wall=2.0, cpu=2.4).believed


def test_clips_have_the_lengths_asked_for_and_int8_hears_others(spoken: Path) -> None:
    speech = benchmark_speech(spoken, [0.5, 30.0])
    assert [len(clip) for clip in speech.clips.values()] == [8_000, 480_000]
    assert len(speech.mixed) == 64
    lengths = [len(clip) / 16_000 for clip in speech.mixed]
    assert 0.5 <= min(lengths) < 2.0 < 13.0 < max(lengths) <= 15.0
    measured = np.concatenate([*speech.clips.values(), *speech.mixed]).tobytes()
    assert all(clip[100:200].tobytes() not in measured for clip in speech.calibration)
    again = benchmark_speech(spoken, [0.5, 30.0])
    assert np.array_equal(speech.mixed[5], again.mixed[5])


def test_the_fast_ways_are_close_in_any_batch_and_transformers_is_not(result: BenchmarkResult) -> None:
    off = {way.name: tuple(way.deviations.values()) for way in result.ways}
    assert list(result.ways[0].deviations) == ["0.5 s", "1 s", "9 mixed"]
    assert 0 < max(off["FastEncoder float32"]) < 1e-5
    assert 1e-5 < min(off["FastEncoder bfloat16"]) < max(off["FastEncoder bfloat16"]) < 5e-2
    assert 1e-5 < min(off["FastEncoder int8"]) < max(off["FastEncoder int8"]) < 0.5
    assert off["hf"][:2] == (0, 0)
    assert off["hf"][2] > 1e-3


def test_every_way_is_timed_and_another_model_is_only_timed(result: BenchmarkResult, model: Path) -> None:
    assert [way.name for way in result.ways] == [*benchmark_ways.FAST, "hf", "teacher"]
    *own, teacher = result.ways
    for way in own:
        assert list(way.times) == ["0.5 s", "1 s", "9 mixed"]
        assert way.times["9 mixed"].turns == 2
        assert way.real_time_factor("1 s", "cpu") > 0
    assert list(teacher.times) == ["0.5 s", "1 s"]
    assert teacher.deviations == {}
    parameters = HubertModel.from_pretrained(model).num_parameters()
    assert teacher.parameters > own[0].parameters == parameters
    assert own[0].file_bytes == (model / "model.safetensors").stat().st_size


def test_the_figures_lie_beside_the_weights(result: BenchmarkResult, model: Path) -> None:
    found = json.loads((model / "benchmark.json").read_text())
    assert found["machine"]["threads"] == 1
    assert found["speech"] == "noise"
    ratio = found["ratios"]["FastEncoder float32"]["hf"]["1 s"]
    assert ratio["cpu"] == pytest.approx(result.ways[3].times["1 s"].cpu / result.ways[0].times["1 s"].cpu)
    assert (model / "figures" / "speed.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(model.glob(".benchmark*"))
    HubertModel.from_pretrained(model)


def test_a_model_of_the_hub_whose_file_nobody_weighed_has_its_figure(
    result: BenchmarkResult, tmp_path: Path
) -> None:
    write(replace(result, ways=[replace(way, file_bytes=None) for way in result.ways]), tmp_path)
    assert (tmp_path / "figures" / "speed.png").is_file()
    assert json.loads((tmp_path / "benchmark.json").read_text())["ways"][0]["file_bytes"] is None


def test_the_tables_name_the_machine_the_sound_and_what_was_left_out(result: BenchmarkResult) -> None:
    text = tables(result)
    head = text.splitlines()[0]
    assert result.machine.processor in head
    assert "1 thread; noise" in head
    assert "CPU time" in head
    assert "left out: s3prl (s3prl not installed)" in text
    assert "| FastEncoder int8 against teacher |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("| Fast")} == {6, 5}


def test_a_ratio_that_the_clocks_disagree_on_is_marked(result: BenchmarkResult) -> None:
    stock = next(way for way in result.ways if way.name == "hf")
    before, stock.times["1 s"] = stock.times["1 s"], Timing(wall=3.0, cpu=1.0, turns=2)
    result.ways[0].times["1 s"], kept = Timing(wall=1.0, cpu=1.0, turns=2), result.ways[0].times["1 s"]
    assert "1.00 (3.00)?" in tables(result)
    stock.times["1 s"], result.ways[0].times["1 s"] = before, kept


def test_peers_that_are_not_installed_are_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(benchmark_ways, "find_spec", lambda _: None)
    ways, left_out = benchmark_ways.ways_for(str(model), ["onnx", "openvino", "hf"], "teacher")
    assert [way.name for way in ways] == [*benchmark_ways.FAST, "hf"]
    assert left_out["onnx"] == "onnx and onnxscript and onnxruntime not installed"
    assert "openvino" in left_out["openvino"]


def test_an_s3prl_that_does_not_run_is_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, no_processes: None, model: Path
) -> None:
    monkeypatch.setattr(benchmark_ways, "find_spec", lambda _: "found")
    result = run(BenchmarkSettings(model, ("s3prl",), seconds=(0.5,), mixed_clips=1, rounds=1))
    assert [way.name for way in result.ways] == list(benchmark_ways.FAST)
    assert result.left_out["s3prl"].startswith("S3PRL does not run here: ")


def test_exported_peers_give_what_the_model_gives_in_a_padded_batch_too(exported: Any) -> None:
    pytest.importorskip("openvino")
    recogniser, folder, _ = exported
    noise = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    clips = [noise, noise[:7_000]]
    alone = Way("hf", "hf", str(recogniser)).build(1, [])
    with torch.no_grad():
        head = HubertForCTC.from_pretrained(recogniser).lm_head
        expected = [head(alone([clip])[0]) for clip in clips]
    for kind, tolerance in (("onnx", 1e-5), ("openvino", 5e-2)):
        found = Way(kind, kind, str(folder / "onnx" / "model.onnx")).build(1, [])(clips)
        for logits, right in zip(found, expected, strict=True):
            assert (logits - right).norm() / right.norm() < tolerance


@pytest.mark.skipif(not STATUS.exists(), reason="memory is counted on Linux")
def test_memory_is_what_a_clip_adds_at_its_peak(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> Callable[[Any], object]:
        np.ones(20_000_000)  # a model may need more to load than to run
        return lambda clips: [np.ones(100 * len(clips[0])).sum()]  # 8 bytes each, gone again

    monkeypatch.setitem(benchmark_ways.BUILDERS, "hf", build)
    clip = np.zeros(80_000, dtype=np.float32)
    assert growth(Way("hf", "hf", str(model)), 1, clip, []) == pytest.approx(64e6, rel=0.1)


@pytest.mark.usefixtures("no_processes")
def test_without_a_model_it_has_random_weights_of_a_named_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_distilhubert.benchmark_run.HubertConfig", lambda: HubertConfig(**TINY))
    short = ["--seconds", "0.5", "--mixed_clips", "2", "--rounds", "1"]
    result = main([*short, "--against", "teacher", "--output", str(tmp_path / "out")])
    assert result.model == "random weights, paper sizes"
    assert result.ways[-1].parameters > result.ways[0].parameters
    assert "FastEncoder float32" in capsys.readouterr().out
    assert (tmp_path / "out" / "benchmark.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--against", "tensorrt"], "there is no peer 'tensorrt'; give one of hf, onnx"),
        (["--model", "./nowhere"], "there is no folder ./nowhere"),
        (["--against", "./nowhere"], "there is no folder ./nowhere"),
        (["--data", "./nowhere"], "nowhere"),
        (["--seconds", "0"], "give lengths from 0.1 to 3600"),
        (["--rounds", "0"], "rounds is 0; give 1 or more"),
        (["--threads", "many"], "invalid int value"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], complaint: str, model: Path, tmp_path: Path
) -> None:
    given = ["--model", str(model), "--output", str(tmp_path / "out"), *arguments]
    with pytest.raises(UserError, match=complaint) as raised:
        main(given)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config(**{"num_hidden_layers": 1} | TINY)).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="of type wav2vec2; give one of type hubert"):
        run(BenchmarkSettings(tmp_path / "other"))


def test_a_recogniser_hears_sound_as_its_feature_extractor_hands_it_on(
    monkeypatch: pytest.MonkeyPatch, no_processes: None, tmp_path: Path, spoken: Path
) -> None:
    heard: list[Any] = []

    def build(*_: object) -> benchmark_ways.Run:
        return lambda clips: heard.extend(clips) or [torch.zeros(1, 1)] * len(clips)

    monkeypatch.setitem(benchmark_ways.BUILDERS, "fast", build)
    recogniser = save_recogniser(tmp_path / "recogniser")
    result = run(BenchmarkSettings(recogniser, data=spoken, **SHORT | {"rounds": 1}))
    assert result.speech == "real speech (spoken)"
    assert len(heard) > 9
    assert all(clip.std() == pytest.approx(1, abs=1e-3) for clip in heard)


def test_int8_is_compared_with_float32_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import int8_quality

    recogniser = save_recogniser(tmp_path / "recogniser")
    arguments = ["--splits", "validation", "test", "--choices", "2"]
    monkeypatch.setattr("sys.argv", ["", "--model", str(recogniser), "--data", str(spoken), *arguments])
    int8_quality.main()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("8 clips, 8 words")
    assert [line.partition(":")[0] for line in lines] == ["bfloat16", "int8", "int8"]
    assert all(0 < float(line.split("logits off by ")[1].split(",")[0]) < 0.03 for line in lines)
