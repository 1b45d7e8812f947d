"""What was measured: errors on each split and on its parts, size and speed against other ways and models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model_card.facts import Facts
from model_card.wording import (
    NOT_MEASURED,
    cell,
    code,
    count,
    counted,
    error_rate,
    given,
    listing,
    megabytes,
    millions,
    percent,
    rounded_down,
    rounded_up,
    signed,
)

ERROR_KINDS = ("substitutions", "deletions", "insertions")
SHORT, MOST = 12, 60  # rows of a table that is shown at once, and of any table
CLOCKS = {"cpu": "CPU time", "wall": "time by the clock"}
# Ways that `distilhubert benchmark` has names of its own for.
WAYS = {
    "hf": "Transformers, in padded batches of 8",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
}
LEAST = 1.0  # times as fast; below it a way is the slower one


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading.

    Attributes:
        title: what it is about.
        head: names of its columns; the first is aligned to the left, the others to the right.
        rows: its cells, safe in Markdown.
        rest: how many rows were left out.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    rest: int = 0

    @property
    def long(self) -> bool:
        """Whether a reader has to open it."""
        return len(self.rows) > SHORT

    def __str__(self) -> str:
        lines = ["| " + " | ".join(row) + " |" for row in (self.head, *self.rows)]
        return "\n".join([lines[0], "|---|" + "--:|" * (len(self.head) - 1), *lines[1:]])


def error_line(split: str, score: Mapping[str, Any]) -> str:
    """Kinds of word errors of a split, its normal form, and how the time was taken; empty without any."""
    kinds = listing(*(f"{count(score[kind])} {kind}" for kind in ERROR_KINDS if kind in score))
    device = score.get("device", "cpu")
    threads = given(score, "threads", lambda n: f"timed on {counted(n, 'thread')}")
    facts = listing(
        kinds,
        given(score, "decoding", lambda way: f"{cell(way)} decoding".replace("search decoding", "search")),
        given(score, "text", lambda rules: f"texts normalised by {code(rules)}"),
        threads if device == "cpu" else f"timed on {code(device)}",
    )
    return f"- {code(score.get('split', split))}: {facts}." if facts else ""


def against_line(split: str, score: Mapping[str, Any]) -> str:
    """This model against another one on the same utterances; empty where that was not asked for."""
    other = score.get("against", {})
    if not {"model", "difference", "wer", "other_wer"} <= other.keys():
        return ""
    ends = other.get("interval", [])
    interval = ""
    if len(ends) == 2:
        interval = f" [{signed(100 * ends[0], 1, down=True)}, {signed(100 * ends[1], 1)}]"
    test = given(other, "p_value", lambda p: f", p = {rounded_up(p, 3)}" if p >= 0.001 else ", p < 0.001")
    rates = f"WER {percent(other['wer'])} and {percent(other['other_wer'])}"
    return (
        f"- {code(score.get('split', split))}, against {code(other['model'])}:"
        f" {rates} on the same {counted(other.get('utterances', 0), 'utterance')}, a"
        f" difference of {signed(100 * other['difference'], 1)} points{interval}{test}."
    )


def resampled(facts: Facts) -> str:
    """What the intervals draw; empty where there are none."""
    drawn = {str(score.get("resampled", "utterances")) for score in facts.scores.values() if _spread(score)}
    return " or ".join(sorted(cell(name) for name in drawn))


def _spread(score: Mapping[str, Any]) -> bool:
    return any(len(score.get(f"{key}_interval", [])) == 2 for key in ("wer", "cer"))


def groups(facts: Facts) -> Iterator[Table]:
    """Error rates of the parts of each split; of very many parts those with the most words."""
    for split, score in facts.scores.items():
        for column, rates in score.get("groups", {}).items():
            names = list(rates)
            if len(names) > MOST:
                largest = sorted(names, key=lambda name: -rates[name].get("words", 0))[:MOST]
                names = [name for name in names if name in set(largest)]
            title = f"{code(score.get('split', split))} by {cell(column)}"
            head = ["", "Utterances", "Words", "WER", "CER"]
            rows = [_group(name, rates[name]) for name in names]
            if rows:
                yield Table(title, head, rows, len(rates) - len(rows))


def _group(name: str, rates: Mapping[str, Any]) -> list[str]:
    numbers = [count(rates.get(key)) for key in ("utterances", "words")]
    return [code(name), *numbers, *(error_rate(rates, key) for key in ("wer", "cer"))]


def machine_line(facts: Facts) -> str:
    """Where and on what the ways were measured, and of which model where that has another name."""
    benchmark = facts.benchmark
    machine = benchmark.get("machine", {})
    return listing(
        given(machine, "processor", code),
        given(machine, "cores", lambda n: counted(n, "core")),
        given(machine, "threads", lambda n: f"{counted(n, 'thread')} used"),
        given(machine, "torch", lambda version: f"torch {cell(version)}"),
        given(benchmark, "speech", lambda name: f"on {cell(name)}"),
        given(benchmark, "rounds", lambda n: f"medians of at least {counted(n, 'turn')}"),
        given(
            benchmark, "model", lambda name: "" if name == facts.name else f"the model called {code(name)}"
        ),
    )


def sizes(benchmark: Mapping[str, Any]) -> Table:
    """Parameters, work, file and memory of each way."""
    memory = given(benchmark, "memory_seconds", lambda seconds: f" for {seconds:g} s")
    head = ["", "Parameters", "Multiply-adds per second of sound", "File", f"Memory on top{memory}"]
    rows = [
        [
            way_name(way),
            millions(way.get("parameters")),
            given(way, "multiply_adds_per_second", lambda n: f"{rounded_up(n / 1e9, 2)} G") or NOT_MEASURED,
            megabytes(way.get("file_bytes")),
            megabytes(way.get("extra_memory")),
        ]
        for way in benchmark.get("ways", [])
    ]
    return Table("Size", head, rows)


def speeds(benchmark: Mapping[str, Any]) -> Table:
    """Real-time factors of each way, by the clock that the benchmark chose."""
    ways = benchmark.get("ways", [])
    clock = str(benchmark.get("clock", "wall"))
    works = list(dict.fromkeys(work for way in ways for work in way.get("times", {})))
    rows = [[way_name(way), *(_real_time(way, work, clock) for work in works)] for way in ways]
    return Table(CLOCKS.get(clock, clock), ["", *(cell(work) for work in works)], rows if works else [])


def _real_time(way: Mapping[str, Any], work: str, clock: str) -> str:
    taken = way.get("times", {}).get(work, {}).get(clock)
    audio = way.get("audio", {}).get(work)
    return NOT_MEASURED if taken is None or not audio else rounded_up(taken / audio, 4)


def way_name(way: Mapping[str, Any]) -> str:
    """The benchmark's name for a way, in words where it is short; a folder may have the same name."""
    name = str(way.get("name", "not named"))
    return f"{code(name)}, {WAYS[name]}" if name in WAYS and way.get("same_model") else code(name)


def ratios(benchmark: Mapping[str, Any]) -> Iterator[str]:
    """How our ways compare with other models: the range over all lengths of clips and both clocks."""
    others = {str(way.get("name")) for way in benchmark.get("ways", []) if way.get("same_model") is False}
    for own, peers in benchmark.get("ratios", {}).items():
        for peer, works in peers.items():
            found = [work[clock] for work in works.values() for clock in ("wall", "cpu") if clock in work]
            if peer in others and found:
                least, most = (rounded_down(end, 1) for end in (min(found), max(found)))
                doubtful = not all(work.get("believed", True) for work in works.values())
                remarks = listing(
                    "" if min(found) >= LEAST else "below 1 it is slower",
                    "the clocks disagree" if doubtful else "",
                )
                yield (
                    f"{code(own)} is {least} to {most} times as fast as {code(peer)}"
                    f"{f' ({remarks})' if remarks else ''}."
                )
