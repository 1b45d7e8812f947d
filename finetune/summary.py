"""A score in a few lines, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.against import Difference
    from finetune.comparison import Score
    from finetune.groups import Rates

SHOWN = 10  # of each kind; the page and `results.json` have more


def print_score(result: Score) -> None:
    """Print the figures, the worst of each kind first and the whole last."""
    for column, groups in result.groups.items():
        worst = sorted(groups.items(), key=lambda item: -item[1].wer)[:SHOWN]
        for name, rates in worst:
            print(f"{column} {name}: {_rates(rates)} on {rates.utterances} utterances")
        if len(groups) > len(worst):
            print(f"{column}: {len(groups) - len(worst)} more in {result.folder / 'report.html'}")
    confused = result.word_confusions.substitutions[:SHOWN]
    if confused:
        print(
            "most confused:", ", ".join(f"{c.reference} as {c.hypothesis} {c.count} times" for c in confused)
        )
    if result.unknown_characters:
        counts = ", ".join(f"{char!r} {count} times" for char, count in result.unknown_characters.items())
        print(f"the vocabulary lacks characters of the references, which count as errors: {counts}")
    if result.skipped:
        print(f"{result.skipped} clips left out, see {result.folder / 'skipped.jsonl'}")
    print(
        f"{result.folder}: {_rates(result)} on {len(result.utterances)} utterances "
        f"({result.words} words: {result.substitutions} substituted, {result.deletions} deleted, "
        f"{result.insertions} inserted); real-time factor {result.real_time_factor:.3f} "
        f"on {f'{result.threads} threads' if result.device == 'cpu' else result.device}"
    )
    if result.against:
        _print_difference(result.against)
    print(f"intervals: 95 %, bootstrap of {result.resampled}; the page: {result.folder / 'report.html'}")


def _rates(rates: Score | Rates) -> str:
    words, characters = _between(rates.wer_interval), _between(rates.cer_interval)
    return f"WER {rates.wer:.1%}{words}, CER {rates.cer:.1%}{characters}"


def _between(interval: tuple[float, float] | None, sign: str = "") -> str:
    return "" if interval is None else f" ({100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f})"


def _print_difference(found: Difference) -> None:
    for where, clips in (("here", found.only_here), ("there", found.only_there)):
        if clips:
            names = ", ".join(clips[:SHOWN])
            print(f"{len(clips)} utterances only {where}, or with another reference: {names}", end="")
            print(", …" if len(clips) > SHOWN else "")
    print(
        f"against {found.model}: WER {100 * found.difference:+.1f} points{_between(found.interval, '+')}, "
        f"p = {found.p_value:.4f} ({found.wer:.1%} here, {found.other_wer:.1%} there, "
        f"{found.utterances} utterances in both)"
    )
