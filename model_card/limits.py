"""What a model cannot do or was not tried on, as far as its folder tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_card.facts import Facts
from model_card.wording import cell, code, count, counted, duration, given, listing


def limitations(facts: Facts) -> list[str]:
    """One sentence or two per limit, each from a figure or a setting in the folder."""
    return [*_training_data(facts), *_measured(facts), *_output(facts), *_padding(facts)]


def _training_data(facts: Facts) -> Iterator[str]:
    tuned, distilled = facts.stage("finetune"), facts.stage("distill")
    speech = listing(
        given(tuned, "train_hours", lambda hours: duration(3600 * hours)),
        given(tuned, "train_clips", lambda n: counted(n, "clip")),
        given(tuned, "train_speakers", lambda n: counted(n, "speaker")),
    )
    if speech:
        yield (
            f"The transcribed speech it was trained on: {speech}."
            " Other voices, accents, rooms and words are new to it."
        )
    if "audio_hours" in distilled:
        yield f"Its teacher was imitated on {duration(3600 * distilled['audio_hours'])} of audio and no more."
    if any(_synthetic(entry) for entry in (*facts.stages, *facts.scores.values(), facts.comparison)):
        yield "The speech behind these figures is synthetic; they say little about recordings of people."


def _synthetic(entry: dict[str, Any]) -> bool:
    """Whether a stage says that its speech was spoken by a machine: a mark of its own, or the data's name."""
    return bool(entry.get("synthetic")) or "synthetic" in str(entry.get("data", "")).lower()


def _measured(facts: Facts) -> Iterator[str]:
    if not facts.recognises:
        return
    if not facts.scores:
        yield "Its error on speech that training did not see was not measured."
    for split, score in facts.scores.items():
        sample = listing(
            given(score, "utterances", lambda n: counted(n, "utterance")),
            given(score, "words", lambda n: counted(n, "word")),
            given(score, "speakers", lambda n: counted(n, "speaker")),
        )
        if sample:
            yield f"Its error on {code(split)} was measured on {sample}."
        if score.get("skipped"):
            skipped = counted(score["skipped"], "clip")
            yield f"The figures of {code(split)} leave out {skipped} that could not be scored."


def _output(facts: Facts) -> Iterator[str]:
    if not facts.recognises:
        yield "It gives features, not text; recognition takes fine-tuning."
        return
    vocabulary = facts.stage("finetune").get("vocabulary", [])
    symbols = [symbol for symbol in vocabulary if len(symbol) == 1 and symbol != "|"]
    if symbols:
        yield (
            f"It writes spaces and these {count(len(symbols))} characters, nothing else:"
            f" {' '.join(cell(symbol) for symbol in sorted(symbols))}."
        )
        yield from _missing_characters("".join(symbols))


def _missing_characters(symbols: str) -> Iterator[str]:
    missing = []
    if symbols.lower() != symbols.upper() and symbols in (symbols.lower(), symbols.upper()):
        missing.append("one case only")
    if not any(symbol.isdigit() for symbol in symbols):
        missing.append("no digits (numbers come out as words)")
    if not any(symbol in ".,?!" for symbol in symbols):
        missing.append("no punctuation marks")
    if missing:
        yield f"That is {listing(*missing)}."


def _padding(facts: Facts) -> Iterator[str]:
    if facts.config.get("feat_extract_norm") == "group":
        yield (
            "Its first layer normalises over the whole clip, padding included: a short clip in a padded batch"
            " comes out otherwise than alone."
        )
