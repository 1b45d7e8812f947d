"""The Hub's leaderboards: `.eval_results/*.yaml`, one file a data set.

The Hub takes such a file only for a data set that is registered as a benchmark, and by the name that the data
set itself gives to the task (in its `eval.yaml`). No stage knows that name, so a person has to say it; from
then on the value follows the score at every rendering. (https://huggingface.co/docs/hub/eval-results)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hf_distilhubert.errors import UserError, one_line
from model_card.facts import Facts, hub_data_set
from model_card.files import replace
from model_card.wording import rounded_up

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

FOLDER = ".eval_results"
BENCHMARK = re.compile(r"([\w.-]+/[\w.-]+):([^:\s]+)(?::([^:\s]+))?")
NOTES = "word error rate in percent, less is better; split {}"


def entries(facts: Facts, benchmarks: Sequence[str]) -> list[EvalResultEntry]:
    """What goes to leaderboards: what was asked for, and what an earlier rendering wrote, as measured now.

    Args:
        facts: of the folder.
        benchmarks: `OWNER/NAME:TASK[:SPLIT]`; the split may be left out where only one was scored.

    Raises:
        UserError: one is no such name, or there is no (or more than one) score of it.
    """
    found = [_entry(facts, name) for name in benchmarks]
    known = {(entry.dataset_id, entry.task_id) for entry in found}
    for data_set, task, split in _earlier(facts.folder):
        score = facts.scores.get(split, {})
        if (data_set, task) not in known and hub_data_set(score.get("data")) == data_set and "wer" in score:
            found.append(_of(data_set, task, split, score["wer"]))
    return found


def _entry(facts: Facts, benchmark: str) -> EvalResultEntry:
    match = BENCHMARK.fullmatch(benchmark)
    if match is None:
        raise UserError(
            f"the benchmark {benchmark!r} is none; write OWNER/NAME:TASK or OWNER/NAME:TASK:SPLIT"
        )
    data_set, task, wanted = match.groups()
    splits = [
        split
        for split, score in facts.scores.items()
        if hub_data_set(score.get("data")) == data_set and "wer" in score and wanted in (None, split)
    ]
    if len(splits) != 1:
        scored = f"scores of it: {', '.join(splits)}" if splits else "there is no score of it"
        raise UserError(
            f"the benchmark {benchmark!r} needs one score of hub:{data_set}; {scored}; "
            "run finetune.score on it, or name the split"
        )
    return _of(data_set, task, splits[0], facts.scores[splits[0]]["wer"])


def _of(data_set: str, task: str, split: str, wer: float) -> EvalResultEntry:
    from huggingface_hub import EvalResultEntry

    value = float(rounded_up(100 * wer, 2))
    return EvalResultEntry(dataset_id=data_set, task_id=task, value=value, notes=NOTES.format(split))


def _earlier(folder: Path) -> Iterable[tuple[str, str, str]]:
    """Data set, task and split of the entries that a rendering wrote; others have other notes."""
    from huggingface_hub import parse_eval_result_entries

    for path in sorted((folder / FOLDER).glob("*.yaml")):
        try:
            parsed = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")) or [])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise UserError(
                f"{path} holds no results as the Hub has them ({one_line(error, 100)}); "
                "mend it or take it away"
            ) from error
        for entry in parsed:
            ours = re.fullmatch(re.escape(NOTES).replace(re.escape("{}"), "(.+)"), str(entry.notes))
            if ours:
                yield str(entry.dataset_id), str(entry.task_id), ours[1]


def write_entries(folder: Path, found: Iterable[EvalResultEntry]) -> None:
    """Write one file for each data set; those of other data sets stay."""
    from huggingface_hub import eval_result_entries_to_yaml

    by_data_set: dict[str, list[EvalResultEntry]] = {}
    for entry in found:
        by_data_set.setdefault(entry.dataset_id, []).append(entry)
    for data_set, members in by_data_set.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        text = yaml.safe_dump(eval_result_entries_to_yaml(members), sort_keys=False, allow_unicode=True)
        path = folder / FOLDER / f"{data_set.replace('/', '--')}.yaml"
        replace(path, lambda new, text=text: new.write_text(text, encoding="utf-8"))  # type: ignore[misc]
