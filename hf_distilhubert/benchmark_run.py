"""The measuring itself: sound, models and ways are made ready, take turns, and are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, HubertConfig, HubertModel

from hf_distilhubert.audio import SAMPLING_RATE, Waveform
from hf_distilhubert.benchmark import BenchmarkResult, BenchmarkSettings, Machine, WayFigures
from hf_distilhubert.benchmark_costs import multiply_adds_per_second
from hf_distilhubert.benchmark_memory import extra_memory
from hf_distilhubert.benchmark_speech import BenchmarkSpeech, benchmark_speech
from hf_distilhubert.benchmark_timing import Timing, take_turns
from hf_distilhubert.benchmark_ways import BATCH, Run, Way, export_for, ways_for
from hf_distilhubert.errors import UserError
from hf_distilhubert.loading import load, load_model, quiet_transformers
from hf_distilhubert.machine import cores, processor
from hf_distilhubert.provenance import short_name
from hf_distilhubert.shapes import student_shape
from hf_distilhubert.students import student_config

PAPER_LAYERS = (4, 8, 12)


def run(settings: BenchmarkSettings) -> BenchmarkResult:
    """See `benchmark.benchmark`."""
    with tempfile.TemporaryDirectory() as scratch, _threads(settings.threads):
        # 1. What is measured, and on what.
        source, teacher = _models(settings, Path(scratch))
        ways, left_out = ways_for(source, settings.against, teacher)
        speech = benchmark_speech(settings.data, list(settings.seconds), settings.mixed_clips)
        if _normalises(source):
            speech = speech.normalised()
        ways = export_for(ways, Path(scratch))
        runs = _built(ways, settings.threads, speech, left_out)
        ways = [way for way in ways if way.name in runs]

        # 2. Times in turns, then errors and memory.
        works = list(_works(speech))
        times = {work.name: _measure(work, ways, runs, settings.rounds) for work in works}
        reference = Way("reference", "hf", source).build(settings.threads, [])
        figures = []
        for way in tqdm(ways, desc="errors and memory", unit="way", disable=None):
            figures.append(
                WayFigures(
                    name=way.name,
                    same_model=way.same_model,
                    **_sizes(source if way.same_model else way.source),
                    file_bytes=_file_bytes(Path(way.source)),
                    times={work.name: found for work in works if (found := times[work.name].get(way.name))},
                    audio={work.name: work.seconds for work in works},
                    extra_memory=extra_memory(way, settings.threads, speech.longest, speech.calibration),
                    deviations=_deviations(way, runs[way.name], reference, works),
                )
            )
    return BenchmarkResult(
        model=str(short_name(settings.model))
        if settings.model
        else f"random weights, {settings.shape} sizes",
        machine=_machine(settings.threads),
        speech=speech.name,
        rounds=settings.rounds,
        memory_seconds=max(speech.clips),
        ways=figures,
        left_out=left_out,
    )


def _models(settings: BenchmarkSettings, folder: Path) -> tuple[str, str]:
    """Where the model and the peer `teacher` are; what has random weights is made first."""
    source, teacher = str(settings.model or folder / "student"), str(folder / "teacher")
    base = HubertConfig()
    if settings.model is None:
        _save_random(student_config(base, PAPER_LAYERS, student_shape(settings.shape, base)), source)
    if "teacher" in settings.against:
        _save_random(base, teacher)
    kind = load(AutoConfig, source).model_type
    if kind != "hubert":
        raise UserError(f"{source} holds a model of type {kind}; give one of type hubert")
    return source, teacher


def _save_random(config: HubertConfig, folder: str) -> None:
    torch.manual_seed(0)
    with quiet_transformers():
        HubertModel(config).save_pretrained(folder)


def _normalises(source: str) -> bool:
    """Whether the model's feature extractor, if there is one, brings sound to unit variance."""
    try:
        return bool(getattr(load(AutoFeatureExtractor, source), "do_normalize", False))
    except UserError:
        return False


def _built(
    ways: Sequence[Way], threads: int, speech: BenchmarkSpeech, left_out: dict[str, str]
) -> dict[str, Run]:
    """Every way, made ready; optional ones that do not run here are left out by name."""
    runs = {}
    for way in ways:
        try:
            runs[way.name] = way.build(threads, speech.calibration)
        except UserError as error:
            if not way.optional:
                raise
            left_out[way.name] = str(error)
    return runs


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        name: of it.
        parts: lists of clips; see `take_turns`.
        batch: whether it is the mixed batch.
    """

    name: str
    parts: list[list[Waveform]]
    batch: bool = False

    @property
    def seconds(self) -> float:
        """Of sound in it."""
        return sum(len(clip) for part in self.parts for clip in part) / SAMPLING_RATE


def _works(speech: BenchmarkSpeech) -> Iterator[Work]:
    for seconds, clip in speech.clips.items():
        yield Work(f"{seconds:g} s", [[clip]])
    parts = [speech.mixed[at : at + BATCH] for at in range(0, len(speech.mixed), BATCH)]
    yield Work(f"{len(speech.mixed)} mixed", parts, batch=True)


def _measure(work: Work, ways: Sequence[Way], runs: dict[str, Run], rounds: int) -> dict[str, Timing]:
    """A batch is done in its padded parts, so `rounds` measurements take fewer rounds over all of it."""
    chosen = {way.name: runs[way.name] for way in ways if way.batches or not work.batch}
    rounds = -(-rounds // len(work.parts))
    warm_up = not work.batch
    total = len(chosen) * len(work.parts) * (rounds + warm_up)
    with tqdm(total=total, desc=work.name, unit="turn", leave=False, disable=None) as bar:
        return take_turns(chosen, work.parts, rounds, warm_up=warm_up, done=bar.update)


def _deviations(way: Way, run: Run, reference: Run, works: Sequence[Work]) -> dict[str, float]:
    """How far the worst clip of each work's first part is off from the same clip alone."""
    found = {}
    for work in works:
        if way.same_model and (way.batches or not work.batch):
            pairs = zip(run(work.parts[0]), work.parts[0], strict=True)
            found[work.name] = max(_off(frames, reference([clip])[0]) for frames, clip in pairs)
    return found


def _off(frames: Tensor, expected: Tensor) -> float:
    return float((frames - expected).norm() / expected.norm())


def _sizes(source: str) -> dict[str, Any]:
    model = load_model(AutoModel, source)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds_per_second": multiply_adds_per_second(model.config),
    }


def _file_bytes(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    files = [*path.glob("*.safetensors"), *path.glob("*.bin")] if path.is_dir() else []
    return sum(file.stat().st_size for file in files) or None


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _machine(threads: int) -> Machine:
    return Machine(processor(), cores(), threads, torch.__version__)
