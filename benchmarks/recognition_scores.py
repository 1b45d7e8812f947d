"""The scores of `benchmarks.recognition`, and its tables in Markdown.

The language model is made of a set's training transcripts; its kind and weights are those of the lowest WER
on the validation split. With it, the test split is heard once, as was chosen there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.language_model import build
from finetune.score import score
from hf_distilhubert.provenance import write_json

if TYPE_CHECKING:
    from benchmarks.recognition import Steps

# Characters in a row may write words that no training transcript has.
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "words": {"order": 3},
    "characters": {"order": 6, "characters": True},
}
WEIGHTS, BONUSES = (0.3, 0.7, 1.5), (0.0, 1.5)
WIDTH = 16  # a quarter of the usual one, for the time that so many searches take
SURE = 0.05  # the paired test sees a difference below this


class Search(NamedTuple):
    """A beam search.

    Attributes:
        kind: of the language model.
        weight: of the language model.
        bonus: for each of its words or characters.
    """

    kind: str
    weight: float
    bonus: float

    @property
    def name(self) -> str:
        """As files and the table have it."""
        return f"{self.kind}-{self.weight:g}-{self.bonus:g}"


def searches() -> Iterator[Search]:
    """All that are tried on a validation split."""
    return (Search(*values) for values in product(LANGUAGE_MODELS, WEIGHTS, BONUSES))


def best(tried: Mapping[Search, tuple[float, float]]) -> Search:
    """The search of the lowest WER; of those that are level, of the lowest CER, and else the first."""
    return min(tried, key=lambda search: tried[search])


def score_set(steps: Steps, name: str, data: Path, models: Mapping[str, Path]) -> None:
    """Score both models greedily, then the distilled one with a language model.

    Args:
        steps: keeps what is done.
        name: of the set.
        data: its folder.
        models: the two recognisers, `undistilled` and `distilled`.
    """
    scores, model = steps.folder / "scores", str(models["distilled"])
    greedy = scores / f"{name}-undistilled"
    steps.once(greedy, lambda: score(str(models["undistilled"]), str(data), output_dir=greedy))
    folder = scores / f"{name}-distilled"
    steps.once(folder, lambda: score(model, str(data), output_dir=folder, against=greedy))
    chosen = steps.folder / f"{name}-search.json"
    steps.once(chosen, lambda: write_json(chosen, choose(steps.folder, name, data, model)))
    search = Search(*read(chosen)["chosen"])
    searched = scores / f"{name}-searched"
    steps.once(searched, lambda: _search(steps.folder, name, data, model, search, "test", searched))


def choose(out: Path, name: str, data: Path, model: str) -> dict[str, Any]:
    """Try every search on the validation split."""
    tried = {}
    for search in searches():
        folder = out / "validation" / f"{name}-{search.name}"
        if not folder.exists():
            _search(out, name, data, model, search, "validation", folder)
        found = read(folder / "results.json")
        tried[search] = (found["wer"], found["cer"])
        print(f"{name}, {search.name}: WER {found['wer']:.1%}, CER {found['cer']:.1%}", flush=True)
    return {"chosen": best(tried), "tried": list(tried.items())}


def _search(out: Path, name: str, data: Path, model: str, search: Search, split: str, folder: Path) -> None:
    decoder = _decoder(out / f"{name}-{search.kind}.arpa", data, model, search)
    score(model, str(data), split=split, output_dir=folder, decoder=decoder)


def _decoder(arpa: Path, data: Path, model: str, search: Search) -> Callable[[Any], Any]:
    from hf_distilhubert.beam_decoder import beam_decoder

    if not arpa.exists():
        build(str(data), arpa, model=model, **LANGUAGE_MODELS[search.kind])
    return beam_decoder(language_model=arpa, weight=search.weight, bonus=search.bonus, width=WIDTH)


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def figures_of(out: Path, name: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """What the tables show of a set."""
    kept = ("wer", "wer_interval", "cer", "cer_interval", "words", "utterances", "resampled", "against")
    scores = {
        kind: {key: found[key] for key in kept}
        for kind in ("undistilled", "distilled", "searched")
        for found in [read(out / "scores" / f"{name}-{kind}" / "results.json")]
    }
    hours = read(models["distilled"] / "results.json")["train_hours"]
    return {"hours": hours, "search": read(out / f"{name}-search.json")["chosen"], **scores}


def tables(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Word error rates with the paired tests, then character error rates; both in per cent.

    Args:
        sets: what `figures_of` found, by name.
    """
    return "\n\n".join((_words(sets), _characters(sets)))


def _words(sets: Mapping[str, Mapping[str, Any]]) -> str:
    header = ["WER in %", "training", "test words", "undistilled", "distilled", "distilled less undistilled"]
    header += ["distilled + language model", "which one", "language model less greedy"]
    lines = [
        [
            name,
            f"{60 * found['hours']:.0f} min",
            f"{found['distilled']['words']:,}",
            _rate(found["undistilled"], "wer"),
            _rate(found["distilled"], "wer"),
            _difference(found["distilled"]["against"]),
            _rate(found["searched"], "wer"),
            Search(*found["search"]).name,
            _difference(found["searched"]["against"]),
        ]
        for name, found in sets.items()
    ]
    return _markdown(header, lines)


def _characters(sets: Mapping[str, Mapping[str, Any]]) -> str:
    kinds = ("undistilled", "distilled", "searched")
    lines = [[name, *(_rate(found[kind], "cer") for kind in kinds)] for name, found in sets.items()]
    return _markdown(["CER in %", "undistilled", "distilled", "distilled + language model"], lines)


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---", *["--:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rate(found: Mapping[str, Any], name: str) -> str:
    """`9.0 [6.3, 12.0]`; the rate alone where no spread was seen."""
    interval = found[f"{name}_interval"]
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * found[name]:.1f}{ends}"


def _difference(against: Mapping[str, Any]) -> str:
    """Points, their interval and the p-value; in bold where the paired test sees a difference."""
    points, p_value = f"{100 * against['difference']:+.1f}", against["p_value"]
    interval = against["interval"]
    if interval is not None:
        points += f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
    text = f"{points}, p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'}"
    return f"**{text}**" if p_value < SURE else text
