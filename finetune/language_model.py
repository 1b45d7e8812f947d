"""A language model for beam search from a text or from transcripts: `python -m finetune.language_model`."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.language_model import (
    BEGIN,
    END,
    NEVER,
    SPACE,
    UNKNOWN,
    LanguageModel,
    Words,
    write_language_model,
)

EXAMPLES = """\
  python -m finetune.language_model book.txt runs/words.arpa --model runs/recogniser
  python -m finetune.language_model recordings runs/words.arpa --model runs/recogniser --order 2
  python -m finetune.language_model book.txt runs/characters.arpa --model runs/recogniser --characters \\
      --order 6"""
# Discounts where a text is too small for its own (KenLM: --discount_fallback).
FALLBACK = (0.5, 1.0, 1.5)


def estimate(sentences: Iterable[Sequence[str]], order: int, *, of_characters: bool = False) -> LanguageModel:
    """An n-gram model with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3).

    Args:
        sentences: words (or characters) of each.
        order: the longest n-gram.
        of_characters: what the words are.
    """
    counts = _adjusted_counts(_raw_counts(sentences, order), order)
    vocabulary = {gram[0] for gram in counts[0]} | {UNKNOWN}
    grams: dict[Words, tuple[float, float]] = {}
    lower: dict[Words, float] = {(): 1 / len(vocabulary)}  # below single words all are alike
    for length in range(1, order + 1):
        table, lost = _interpolated(counts[length - 1], lower)
        if length == 1:
            table[(UNKNOWN,)] = lost[()] * lower[()]
        # What a context gives to shorter n-grams stands beside the n-gram that is this context.
        for context, weight in lost.items():
            if context:
                probability = grams[context][0] if context in grams else NEVER
                grams[context] = (probability, math.log10(weight) if weight > 0 else NEVER)
        grams |= {gram: (math.log10(probability), 0.0) for gram, probability in table.items()}
        lower = table
    return LanguageModel(order, grams, of_characters)


def _raw_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Words]]:
    counts: list[Counter[Words]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = (BEGIN, *sentence, END)
        for length in range(1, order + 1):
            # The beginning alone is never predicted.
            first = 1 if length == 1 else 0
            counts[length - 1].update(
                words[start : start + length] for start in range(first, len(words) - length + 1)
            )
    return counts


def _adjusted_counts(raw: list[Counter[Words]], order: int) -> list[Counter[Words]]:
    """Shorter n-grams count once for each word seen before them; where a sentence begins, as they are."""
    adjusted = []
    for length in range(1, order):
        before = Counter(gram[1:] for gram in raw[length])
        begins = {gram: count for gram, count in raw[length - 1].items() if gram[0] == BEGIN}
        adjusted.append(before | Counter(begins))
    return [*adjusted, raw[order - 1]]


def _interpolated(
    counts: Counter[Words], lower: dict[Words, float]
) -> tuple[dict[Words, float], dict[Words, float]]:
    """Probabilities of one length from those one shorter, and what each context leaves to the latter."""
    discounts = _discounts(counts)
    total: dict[Words, int] = defaultdict(int)
    lost: dict[Words, float] = defaultdict(float)
    for gram, count in counts.items():
        total[gram[:-1]] += count
        lost[gram[:-1]] += discounts[min(count, 3) - 1]
    weights = {context: mass / total[context] for context, mass in lost.items()}
    probabilities = {}
    for gram, count in counts.items():
        context = gram[:-1]
        own = (count - discounts[min(count, 3) - 1]) / total[context]
        probabilities[gram] = own + weights[context] * lower[gram[1:] if len(gram) > 1 else ()]
    return probabilities, weights


def _discounts(counts: Counter[Words]) -> tuple[float, float, float]:
    """What is taken off n-grams that were seen once, twice, and more often."""
    seen = Counter(min(count, 5) for count in counts.values())
    if not all(seen[times] for times in (1, 2, 3, 4)):
        return FALLBACK
    share = seen[1] / (seen[1] + 2 * seen[2])
    first, second, third = (
        times - (times + 1) * share * seen[times + 1] / seen[times] for times in (1, 2, 3)
    )
    found = (first, second, third)
    usual = all(0 < discount < times for times, discount in enumerate(found, start=1))
    return found if usual and all(a <= b for a, b in pairwise(found)) else FALLBACK


@dataclass(frozen=True)
class Built:
    """What came out.

    Attributes:
        path: the ARPA file.
        sentences: learned from.
        words: (or characters) learned from.
        grams: how many n-grams there are of each length.
        perplexity: of the very same text, which flatters it.
    """

    path: Path
    sentences: int
    words: int
    grams: list[int]
    perplexity: float


def build(
    source: str,
    output: str | Path,
    *,
    model: str,
    order: int = 3,
    characters: bool = False,
    split: str = "train",
) -> Built:
    """Learn a language model and write it as an ARPA file.

    Args:
        source: a text file with a sentence a line, or speech data, whose transcripts are taken.
        output: the new file.
        model: the recogniser that it is for: the text gets the same normal form.
        order: the longest n-gram.
        characters: learn characters in place of words.
        split: whose transcripts.

    Raises:
        UserError: there is no text, or the output is there already.
    """
    path = Path(output)
    if order < 1:
        raise UserError(f"--order {order}; give a number from 1")
    if path.exists():
        raise UserError(f"{path} exists already; give the name of a new file")
    sentences = _sentences(source, model, split, characters=characters)
    found = estimate(sentences, order, of_characters=characters)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_language_model(found, partial)
        partial.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another file") from error
    finally:
        partial.unlink(missing_ok=True)
    lengths = Counter(map(len, found.grams))
    return Built(
        path,
        len(sentences),
        sum(map(len, sentences)),
        [lengths[length] for length in range(1, order + 1)],
        found.perplexity(sentences),
    )


def _sentences(source: str, model: str, split: str, *, characters: bool) -> list[list[str]]:
    """What a recogniser would write for each line or transcript, in words or characters."""
    from transformers import AutoTokenizer

    from hf_distilhubert.loading import load
    from hf_distilhubert.text_rules import read_text_rules

    rules = read_text_rules(model, load(AutoTokenizer, model))
    texts = [rules(text) for text in _texts(source, split)]
    if not any(texts):
        raise UserError(f"{source}: there is no text in it to learn from")
    if characters:
        return [[SPACE if character == " " else character for character in text] for text in texts if text]
    return [text.split() for text in texts if text]


def _texts(source: str, split: str) -> list[str]:
    from hf_distilhubert.speech_data import load_clips

    if Path(source).suffix.lower() != ".txt":
        return [str(clip.text) for clip in load_clips(source, split, need_text=True).clips]
    try:
        return Path(source).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"cannot read {source}: {reason}; give a text file, a sentence a line") from error


def main() -> None:
    """Read the command line, build, say what came out."""
    parser = argument_parser(
        "python -m finetune.language_model", "Learn an n-gram language model for beam search.", EXAMPLES
    )
    parser.add_argument("source", help="a .txt file, a sentence a line, or speech data: its transcripts")
    parser.add_argument("output", help="the new file, in ARPA format")
    parser.add_argument("--model", required=True, help="the recogniser it is for; texts get its normal form")
    parser.add_argument("--order", type=int, default=3, help="the longest n-gram (default: 3)")
    parser.add_argument("--characters", action="store_true", help="learn characters in place of words")
    parser.add_argument("--split", default="train", help="of speech data (default: train)")
    result = build(**vars(parser.parse_args()))
    sizes = ", ".join(f"{count:,} of {length}" for length, count in enumerate(result.grams, start=1))
    print(
        f"{result.path}: from {result.sentences:,} sentences with {result.words:,} words or characters; "
        f"n-grams: {sizes}; perplexity on the same text {result.perplexity:.1f}"
    )


if __name__ == "__main__":
    run_command(main)
