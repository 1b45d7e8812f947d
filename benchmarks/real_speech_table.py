"""The table of `benchmarks.real_speech`, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.probe_tasks import Task

LOSSES = {"before": "loss before", "after": "loss after"}


def table(rows: Mapping[str, Sequence[Mapping[str, Any]]], tasks: Sequence[Task]) -> str:
    """Accuracies in per cent and held-out losses: means over the seeds, with the lowest and the highest.

    Args:
        rows: the figures of each seed, by the name of the line: `num_parameters`, `probes` (a `ProbeResult`'s
            fields by task) and, of students, `before` and `after`.
        tasks: what the probes were asked.
    """
    header = ["", "parameters", *LOSSES.values(), *(task.name for task in tasks)]
    facts = [
        ["tells", *(task.kind for task in tasks)],
        ["test clips", *(str(task.test_clips) for task in tasks)],
        ["chance", *(f"{100 * task.chance:.1f}" for task in tasks)],
    ]
    cells = [
        header,
        ["---", *["--:"] * (len(header) - 1)],
        *([name, "", "", "", *values] for name, *values in facts),
        *([name, *_figures(runs, tasks)] for name, runs in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _figures(runs: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> list[str]:
    losses = [_spread([run[key] for run in runs if key in run], 3) for key in LOSSES]
    accuracies = [[100 * run["probes"][task.name]["accuracy"] for run in runs] for task in tasks]
    return [f"{runs[0]['num_parameters']:,}", *losses, *(_spread(values, 1) for values in accuracies)]


def _spread(values: Sequence[float], digits: int) -> str:
    """`mean (lowest-highest)`; the mean alone where all are equal, a dash where there are none."""
    if not values:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low}-{high})"
