"""A benchmark as tables in Markdown, as `benchmark.json`, and as a figure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hf_distilhubert.benchmark import BenchmarkResult, WayFigures
from hf_distilhubert.benchmark_timing import AGREEMENT, ratio
from hf_distilhubert.benchmark_ways import BATCH, FAST
from hf_distilhubert.errors import UserError
from hf_distilhubert.provenance import write_json

CLOCKS = {"cpu": "CPU time", "wall": "wall time"}


def tables(result: BenchmarkResult) -> str:
    """Everything as text."""
    machine, threads = result.machine, result.machine.threads
    lines = [
        f"{result.model}; {machine.processor}, {machine.cores} cores, torch {machine.torch}, "
        f"{threads} thread{'s' if threads > 1 else ''}; {result.speech}; in turns, medians of at least "
        f"{result.rounds} turns (of a batch, over all its parts), {CLOCKS[result.clock]}",
        "",
        *_sizes(result),
        "",
        *_speeds(result),
        "",
        *_errors(result),
    ]
    ratios = list(_ratios(result))
    if ratios:
        other = "wall" if result.clock == "cpu" else "cpu"
        lines += [
            "",
            *ratios,
            "",
            f"Ratios in {CLOCKS[result.clock]} ({CLOCKS[other]}); ? where the clocks differ by over "
            f"{AGREEMENT:.0%}. Peers pad batches of {BATCH}.",
        ]
    if result.left_out:
        lines += ["", "left out: " + "; ".join(f"{name} ({why})" for name, why in result.left_out.items())]
    return "\n".join(lines)


def _sizes(result: BenchmarkResult) -> list[str]:
    memory = f"memory for {result.memory_seconds:g} s (MB)"
    head = ("", "parameters", "multiply-adds per second", "file (MB)", memory)
    rows = [
        (
            way.name,
            f"{way.parameters:,}",
            f"{way.multiply_adds_per_second / 1e9:.2f} G",
            "-" if way.file_bytes is None else f"{way.file_bytes / 1e6:.1f}",
            "-" if way.extra_memory is None else f"{way.extra_memory / 1e6:.0f}",
        )
        for way in result.ways
    ]
    return _markdown(head, rows)


def _speeds(result: BenchmarkResult) -> list[str]:
    """Real-time factors."""
    works = list(result.ways[0].times)
    rows = [
        (
            way.name,
            *(
                f"{way.real_time_factor(work, result.clock):.4f}" if work in way.times else "-"
                for work in works
            ),
        )
        for way in result.ways
    ]
    return _markdown(("real-time factor", *works), rows)


def _errors(result: BenchmarkResult) -> list[str]:
    works = list(result.ways[0].times)
    rows = [
        (way.name, *(f"{way.deviations[work]:.1e}" if work in way.deviations else "-" for work in works))
        for way in result.ways
        if way.same_model
    ]
    return _markdown(("off from HubertModel", *works), rows)


def _ratios(result: BenchmarkResult) -> Iterator[str]:
    works = list(result.ways[0].times)
    own = [way for way in result.ways if way.name in FAST]
    peers = [way for way in result.ways if way.name not in FAST]
    rows = [
        (
            f"{way.name} against {peer.name}",
            *(_ratio(result, peer, way, work) for work in works),
            _memory(peer, way),
        )
        for peer in peers
        for way in own
    ]
    if rows:
        yield from _markdown(("times as fast", *works, "memory, share"), rows)


def _ratio(result: BenchmarkResult, peer: WayFigures, own: WayFigures, work: str) -> str:
    if work not in peer.times:
        return "-"
    found = ratio(peer.times[work], own.times[work])
    first, second = (found.cpu, found.wall) if result.clock == "cpu" else (found.wall, found.cpu)
    return f"{first:.2f} ({second:.2f})" + ("" if found.believed else "?")


def _memory(peer: WayFigures, own: WayFigures) -> str:
    if peer.extra_memory is None or own.extra_memory is None:
        return "-"
    return f"{own.extra_memory / peer.extra_memory:.2f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in (head, *rows)]
    return [lines[0], "|---|" + "--:|" * (len(head) - 1), *lines[1:]]


def as_json(result: BenchmarkResult) -> dict[str, object]:
    """The figures, with the ratios of the model's own ways to each peer, by both clocks."""
    own = [way for way in result.ways if way.name in FAST]
    peers = [way for way in result.ways if way.name not in FAST]
    ratios = {
        way.name: {
            peer.name: {
                work: asdict(found := ratio(peer.times[work], way.times[work])) | {"believed": found.believed}
                for work in peer.times
            }
            for peer in peers
        }
        for way in own
    }
    return {"stage": "benchmark", **asdict(result), "clock": result.clock, "ratios": ratios}


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be one, before anything is measured.

    Raises:
        UserError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder")


def write(result: BenchmarkResult, folder: Path) -> None:
    """Write `benchmark.json` and `figures/speed.png`, in place of earlier ones.

    Raises:
        UserError: the folder cannot be written.
    """
    from hf_distilhubert.benchmark_figure import draw_speed

    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        # Beside the folder's own files, so that a rename is enough.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".benchmark") as scratch:
            found = as_json(result)
            draw_speed(found, Path(scratch) / "speed.png")
            write_json(Path(scratch) / "benchmark.json", found)
            (Path(scratch) / "speed.png").replace(folder / "figures" / "speed.png")
            (Path(scratch) / "benchmark.json").replace(folder / "benchmark.json")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another --output") from error
