"""What a model cannot do or was not tried on, as far as its folder tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_card.facts import Facts
from model_card.wording import code, counted, duration, given, listing, signed


def limitations(facts: Facts) -> list[str]:
    """One sentence or two per limit, each from a figure or a setting in the folder."""
    return [*_training_data(facts), *_measured(facts), *_output(facts), *_export(facts), *_padding(facts)]


def _training_data(facts: Facts) -> Iterator[str]:
    tuned, distilled = facts.tuned, facts.stage("distill")
    speech = listing(
        given(tuned, "train_hours", lambda hours: duration(3600 * hours)),
        given(tuned, "train_clips", lambda n: counted(n, "clip")),
        given(tuned, "train_speakers", lambda n: counted(n, "speaker") if n else ""),
    )
    if speech:
        yield (
            f"The transcribed speech of its last training: {speech}."
            " It may do worse on other voices, accents, rooms and words."
        )
    if "audio_hours" in distilled:
        yield f"Its last distillation had {duration(3600 * distilled['audio_hours'])} of audio."
    if any(map(_synthetic, facts.stages)):
        yield "Some of the speech that it learned from is synthetic."
    if any(map(_synthetic, (*facts.scores.values(), facts.comparison))):
        yield "Some of its figures come from synthetic speech; they say little about recordings of people."


def _synthetic(entry: dict[str, Any]) -> bool:
    """Whether a stage says that its speech was spoken by a machine: a mark of its own, or the data's name."""
    return bool(entry.get("synthetic")) or "synthetic" in str(entry.get("data", "")).lower()


def _measured(facts: Facts) -> Iterator[str]:
    if not facts.recognises:
        return
    if not facts.scores and "cost" not in facts.export:
        since = " after that training" if "eval" in facts.tuned else ""
        yield f"Its error on speech that training did not see was not measured{since}."
    for split, score in facts.scores.items():
        sample = listing(
            given(score, "utterances", lambda n: counted(n, "utterance")),
            given(score, "words", lambda n: counted(n, "word")),
            given(score, "speakers", lambda n: counted(n, "speaker") if n else ""),
        )
        if sample:
            yield f"Its error on {code(split)} was measured on {sample}."
        if score.get("skipped"):
            skipped = counted(score["skipped"], "clip")
            yield f"The figures of {code(split)} leave out {skipped} that could not be scored."


def _output(facts: Facts) -> Iterator[str]:
    if not facts.recognises:
        yield "It gives features, not text; recognition takes fine-tuning."
    elif facts.untrained:
        yield "Its CTC head has learned nothing yet: until it is fine-tuned, it writes nonsense."
    elif symbols := characters(facts):
        yield from _missing_characters("".join(symbols))


def characters(facts: Facts) -> list[str]:
    """The symbols that a recogniser writes, in their order; the space and names of tokens are none."""
    return sorted(symbol for symbol in facts.vocabulary if len(symbol) == 1 and symbol not in "| ")


def _missing_characters(symbols: str) -> Iterator[str]:
    missing = []
    if symbols.lower() != symbols.upper() and symbols in (symbols.lower(), symbols.upper()):
        missing.append("one case only")
    if not any(symbol.isdigit() for symbol in symbols):
        missing.append("no digits (numbers come out as words)")
    if not any(symbol in ".,?!" for symbol in symbols):
        missing.append("no punctuation marks")
    if missing:
        yield f"What it writes has {listing(*missing)}."


def _export(facts: Facts) -> Iterator[str]:
    if not facts.export:
        return
    if not facts.export.get("format", "").endswith("int8"):
        return
    cost = facts.export.get("cost", {})
    points = cost.get("points", {})
    if "wer" in points:
        clips = given(cost, "clips", lambda n: f" on {counted(n, 'clip')}")
        yield f"8 bits change its WER by {signed(points['wer'], 2)} points{clips}."
    elif facts.recognises:
        yield "What 8 bits cost in words was not measured."
    yield (
        "Activations are rounded by the loudest value of a batch, so a clip's output depends a little on the"
        " clips beside it."
    )


def _padding(facts: Facts) -> Iterator[str]:
    # An exported file masks its padding.
    if facts.config.get("feat_extract_norm") == "group" and not facts.export:
        yield (
            "Its first layer normalises over the whole clip, padding included: a short clip in a padded batch"
            " comes out otherwise than alone."
        )
