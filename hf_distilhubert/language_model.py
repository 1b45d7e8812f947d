"""An n-gram language model of words or characters, read from a file in ARPA format."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hf_distilhubert.errors import UserError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "|"  # what a model of characters writes for the space, since spaces part the tokens of the format
CHARACTERS = "# characters"  # the first line of a model of characters that was written here
NEVER = -99.0  # log10 of a probability of nothing, as the format has it

Words = tuple[str, ...]


@dataclass(frozen=True)
class LanguageModel:
    """Probabilities of words (or characters) after those before them, with back-off (Katz 1987).

    Attributes:
        order: the longest n-gram.
        grams: log10 of the probability of the last of these words after the others, and of the weight with
            which shorter n-grams count where a longer one was never seen.
        of_characters: its words are characters.
    """

    order: int
    grams: Mapping[Words, tuple[float, float]]
    of_characters: bool

    @property
    def words(self) -> set[str]:
        """What it knows, without the marks of beginning, end and the unknown."""
        return {gram[0] for gram in self.grams if len(gram) == 1} - {BEGIN, END, UNKNOWN}

    def score(self, context: Words, word: str) -> float:
        """The natural logarithm of a word's probability after a context of any length."""
        if (word,) not in self.grams:
            word = UNKNOWN
        history = context[len(context) - self.order + 1 :] if len(context) >= self.order else context
        total = 0.0
        while True:
            found = self.grams.get((*history, word))
            if found is not None:
                return (total + found[0]) * math.log(10)
            if not history:
                return (total + NEVER) * math.log(10)
            total += self.grams.get(history, (0.0, 0.0))[1]
            history = history[1:]

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """How many equally likely words would surprise as much, the ends of sentences among them."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = (BEGIN, *sentence, END)
            total += sum(self.score(words[:place], words[place]) for place in range(1, len(words)))
            count += len(words) - 1
        return math.exp(-total / max(count, 1))


def read_language_model(path: str | Path) -> LanguageModel:
    """Read an ARPA file, such as `finetune.language_model` or KenLM's `lmplz` writes; also gzipped.

    Raises:
        UserError: there is no such file, or it is not in this format.
    """
    try:
        with _open(Path(path)) as file:
            said_so = file.readline().strip() == CHARACTERS
            grams = dict(_grams(file))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in ARPA format"
        raise UserError(
            f"cannot read the language model {path}: {reason}; build one with finetune.language_model"
        ) from error
    if (END,) not in grams or not any(len(gram) == 1 for gram in grams):
        raise UserError(f"{path} holds no language model in ARPA format; it has no {END}")
    grams.setdefault((UNKNOWN,), (NEVER, 0.0))
    words = [gram[0] for gram in grams if len(gram) == 1 and gram[0] not in (BEGIN, END, UNKNOWN)]
    if not words:
        raise UserError(f"{path} holds no words; build another with finetune.language_model")
    of_characters = said_so or (SPACE in words and all(len(word) == 1 for word in words))
    return LanguageModel(max(map(len, grams)), grams, of_characters)


def write_language_model(model: LanguageModel, path: Path) -> None:
    """Write an ARPA file."""
    by_order: list[list[Words]] = [[] for _ in range(model.order)]
    for gram in model.grams:
        by_order[len(gram) - 1].append(gram)
    with path.open("w", encoding="utf-8") as file:
        # What stands before the data is nothing to other tools.
        file.write(f"{CHARACTERS}\n" * model.of_characters + "\\data\\\n")
        file.writelines(f"ngram {order}={len(grams)}\n" for order, grams in enumerate(by_order, start=1))
        for order, grams in enumerate(by_order, start=1):
            file.write(f"\n\\{order}-grams:\n")
            for gram in sorted(grams):
                probability, back_off = model.grams[gram]
                rest = f"\t{back_off:.7g}" if order < model.order else ""
                file.write(f"{probability:.7g}\t{' '.join(gram)}{rest}\n")
        file.write("\n\\end\\\n")


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _grams(lines: IO[str]) -> Iterator[tuple[Words, tuple[float, float]]]:
    """The n-grams of an ARPA file.

    Raises:
        ValueError: a line is not of this format.
    """
    order = 0
    for line in lines:
        text = line.strip("\r\n")
        if text.startswith("\\"):
            order = int(text[1 : text.index("-")]) if text.endswith("-grams:") else 0
        elif order and text.strip():
            # Tools part the fields by tabs or by spaces.
            probability, *rest = text.split()
            if len(rest) not in (order, order + 1):
                raise ValueError(text)
            back_off = float(rest[order]) if len(rest) > order else 0.0
            if math.isnan(float(probability)) or math.isnan(back_off):
                raise ValueError(text)
            yield tuple(rest[:order]), (float(probability), back_off)
