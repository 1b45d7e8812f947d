"""What becomes of the characters of the transcripts, said before training begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from finetune.recogniser import Recogniser
from finetune.vocabulary import unknown_characters
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.tokens import characters_of, pieces_of

NAMED = 8  # characters in a line that says something of each
SHOWN = 100  # characters in the line of the vocabulary
RARE = 3  # times: what is seen less often is hardly learned
AROUND = 12  # characters of a transcript on each side of an example


def text_report(
    rules: TextRules, written: Sequence[str], texts: Sequence[str], recogniser: Recogniser
) -> list[str]:
    """Lines on what the rules take out, what the vocabulary lacks, and what is too rare to be learned.

    Args:
        rules: make `texts` of `written`.
        written: transcripts as they stand in the data.
        texts: the same in normal form.
        recogniser: what is trained on them.
    """
    tokenizer, new = recogniser.processor.tokenizer, recogniser.new_head
    known = sorted(characters_of(tokenizer) - {" "})
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    # What cannot be seen is written as Python writes it.
    shown = " ".join(c if c.isprintable() else repr(c) for c in known[:SHOWN])
    lines = [f"text: {rules}; {len(known)} characters: {shown}{more}"]
    removed = removed_characters(rules, written)
    if removed:
        lines.append(f"not in that text: {listed(removed, written)}")
    unknown = unknown_characters(texts, tokenizer)
    if unknown:
        remedy = "" if new else "; --new_head true gives them tokens"
        lines.append(f"unknown, learned as {tokenizer.unk_token}: {listed(unknown, texts)}{remedy}")
    counts = Counter(piece for text in texts for piece in pieces_of(tokenizer, text))
    rare = {character: counts[character] for character in known if 0 < counts[character] < RARE}
    if new and rare:
        lines.append(f"rare: {listed(rare, texts)}; --min_count {RARE} gives them no tokens")
    return lines


def removed_characters(rules: TextRules, written: Sequence[str]) -> dict[str, int]:
    """Characters other than white space that the rules take out of a word, most frequent first."""
    counts = Counter(character for text in written for character in text if not character.isspace())
    return {
        character: count
        for character, count in counts.most_common()
        if rules(f"a{character}a").lower() in {"aa", "a a"}
    }


def listed(counts: Mapping[str, int], texts: Sequence[str]) -> str:
    """Characters with their counts and an example of each."""
    named = list(counts.items())[:NAMED]
    parts = [
        f"{character!r} {count} {_times(count)} ({_example(character, texts)})" for character, count in named
    ]
    rest = list(counts.values())[NAMED:]
    return ", ".join(parts) + (f", and {len(rest)} others, {sum(rest)} {_times(sum(rest))}" if rest else "")


def _times(count: int) -> str:
    return "time" if count == 1 else "times"


def _example(character: str, texts: Sequence[str]) -> str:
    """Where a character is first found, with what stands around it."""
    text = next((text for text in texts if character in text), "")
    place = text.find(character)
    start, end = max(place - AROUND, 0), place + AROUND + 1
    return f"{'…' if start else ''}{text[start:end]!r}{'…' if end < len(text) else ''}"
