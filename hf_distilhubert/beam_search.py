"""CTC prefix beam search with a language model and hot words (Hannun et al. 2014, arXiv 1408.2873)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from hf_distilhubert.language_model import BEGIN, END, SPACE, UNKNOWN, LanguageModel, Words

NOTHING = float("-inf")
LogProbabilities = npt.NDArray[np.floating]


@dataclass(frozen=True)
class BeamSettings:
    """How to search.

    Attributes:
        width: texts that are kept after each frame.
        language_model: of words or characters; None searches by sound alone.
        weight: of the language model's logarithm beside the sound's (alpha).
        bonus: for each word (or character) of the text, against a language model's liking for few (beta).
        unknown_penalty: for a word that the language model does not know.
        hot_words: words (or phrases) that are likely here, with the bonus for each.
        threshold: tokens whose logarithm lies further below the best one's are not followed.
    """

    width: int = 64
    language_model: LanguageModel | None = None
    weight: float = 0.5
    bonus: float = 1.0
    unknown_penalty: float = -10.0
    hot_words: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 7.0


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        text: the best one, without spaces around.
        tokens: what it is made of, a character each as a rule.
        frames: for each of them, the frame in which it begins.
        score: of sound, language model and hot words together, a natural logarithm.
    """

    text: str
    tokens: tuple[str, ...]
    frames: tuple[int, ...]
    score: float


class _Prefix:
    """A text begun, as its last character and what stands before it.

    Attributes:
        parent: the text without its last character; None for no text.
        character: the last one.
        frame: in which it begins.
        word: what is written since the last space.
        score: of the language model and the hot words, for all that is complete.
        pending: of the word that is not.
        context: what the language model has seen.
    """

    __slots__ = ("character", "context", "frame", "parent", "pending", "score", "word")

    def __init__(
        self, parent: _Prefix | None, character: str, frame: int, score: float, pending: float, context: Words
    ) -> None:
        self.parent, self.character, self.frame = parent, character, frame
        self.score, self.pending, self.context = score, pending, context
        self.word: str = "" if parent is None or character == " " else parent.word + character

    def tail(self, length: int) -> str:
        """The last characters of the text."""
        found: list[str] = []
        prefix: _Prefix | None = self
        while prefix is not None and len(found) < length:
            found.append(prefix.character)
            prefix = prefix.parent
        return "".join(reversed(found))

    def path(self) -> list[_Prefix]:
        """All characters, from the first on."""
        found: list[_Prefix] = []
        prefix: _Prefix = self
        while prefix.parent is not None:
            found.append(prefix)
            prefix = prefix.parent
        return found[::-1]


# Of a prefix: the logarithm of all its alignments that end in a blank, and that do not.
Beams = dict[_Prefix, list[float]]


class BeamSearch:
    """From the log-probabilities of a clip to its text; memory depends on the text, not on what was tried.

    Args:
        tokens: what each output writes, by its number: a character (or several), a space between words, or
            nothing (`""`, as for unknown characters), which is never taken.
        blank: number of the CTC blank.
        settings: how to search.
    """

    def __init__(self, tokens: Sequence[str], blank: int, settings: BeamSettings) -> None:
        self.tokens, self.blank, self.settings = list(tokens), blank, settings
        model = settings.language_model
        self._words = _beginnings(model.words) if model and not model.of_characters else None
        self._hot = {
            prefix: bonus * len(prefix) / len(word)
            for word, bonus in sorted(settings.hot_words.items(), key=lambda item: item[1])
            for prefix in _beginnings([word])
        }
        self._longest_hot = max(map(len, self._hot), default=0)
        # The same words come again and again while the search tries texts and drops them.
        self._told = lru_cache(maxsize=2**17)(partial(_tell, settings, model))

    def __call__(self, frames: Iterable[LogProbabilities]) -> Found:
        """The best text of frames, each `(token,)` natural logarithms of probabilities."""
        root = _Prefix(None, "", 0, 0.0, 0.0, (BEGIN,))
        beams: Beams = {root: [0.0, NOTHING]}
        for number, frame in enumerate(frames):
            beams = self._best(self._step(beams, frame, number))
        final = {prefix: _log_add(*scores) + self._ending(prefix) for prefix, scores in beams.items()}
        best = max(final, key=lambda prefix: final[prefix])
        path = best.path()
        if path and path[-1].character == " ":
            path.pop()
        tokens = tuple(prefix.character for prefix in path)
        starts = tuple(accumulate((prefix.frame for prefix in path), max))
        return Found("".join(tokens), tokens, starts, final[best])

    def _step(self, beams: Beams, frame: LogProbabilities, number: int) -> Beams:
        """Every text that the beams can become in one more frame."""
        found: Beams = {}
        longer = {(prefix.parent, prefix.character): prefix for prefix in beams}

        def add(prefix: _Prefix, place: int, value: float) -> None:
            scores = found.setdefault(prefix, [NOTHING, NOTHING])
            scores[place] = _log_add(scores[place], value)

        def extend(prefix: _Prefix, character: str, value: float) -> None:
            child = longer.get((prefix, character))
            if child is None:
                child = longer[prefix, character] = self._begin(prefix, character, number)
            elif child in beams and value > _log_add(*beams[child]) + float(frame.max()):
                child.frame = number  # likelier to begin here than to have begun before
            add(child, 1, value)

        tokens = [(self.tokens[token], float(frame[token])) for token in self._likely(frame)]
        blank = float(frame[self.blank])
        for prefix, (with_blank, without) in beams.items():
            both = _log_add(with_blank, without)
            add(prefix, 0, both + blank)
            for character, value in tokens:
                if character == " " and prefix.character in ("", " "):
                    add(prefix, 1, both + value)  # no space is written there
                elif character == prefix.character:
                    add(prefix, 1, without + value)
                    if with_blank > NOTHING:
                        extend(prefix, character, with_blank + value)
                else:
                    extend(prefix, character, both + value)
        return found

    def _likely(self, frame: LogProbabilities) -> list[int]:
        """The tokens that are worth following; the blank always is."""
        above = np.flatnonzero(frame >= frame.max() - self.settings.threshold)
        return [token for token in above.tolist() if token != self.blank and self.tokens[token]]

    def _best(self, found: Beams) -> Beams:
        if len(found) <= self.settings.width:
            return found
        ranked = sorted(
            found,
            key=lambda prefix: _log_add(*found[prefix]) + prefix.score + prefix.pending,
            reverse=True,
        )
        return {prefix: found[prefix] for prefix in ranked[: self.settings.width]}

    def _begin(self, prefix: _Prefix, character: str, frame: int) -> _Prefix:
        """A text with one more character: what does not depend on its sound."""
        model, score, context = self.settings.language_model, prefix.score, prefix.context
        if model and (model.of_characters or character == " "):
            for word in character.replace(" ", SPACE) if model.of_characters else (prefix.word,):
                told, context = self._told(context, word)
                score += told
        if character == " ":
            score += self._hot_bonus(prefix, self.settings.hot_words)
        begun = _Prefix(prefix, character, frame, score, 0.0, context)
        begun.pending = self._hot_bonus(begun, self._hot)
        if self._words is not None and begun.word and begun.word not in self._words:
            begun.pending += self.settings.unknown_penalty
        return begun

    def _hot_bonus(self, prefix: _Prefix, words: Mapping[str, float]) -> float:
        """For the longest of these words that a text ends in, after a space or its beginning."""
        if not words:
            return 0.0
        text = f" {prefix.tail(self._longest_hot + 1)}"
        endings = (text[place + 1 :] for place, character in enumerate(text) if character == " ")
        return next((words[ending] for ending in endings if ending in words), 0.0)

    def _ending(self, prefix: _Prefix) -> float:
        """What language model and hot words say to a text that ends here."""
        model, score, context = self.settings.language_model, prefix.score, prefix.context
        if prefix.character not in ("", " "):
            score += self._hot_bonus(prefix, self.settings.hot_words)
            if model is None or not model.of_characters:
                told, context = self._told(context, prefix.word)
                score += told
        return score + (self.settings.weight * model.score(context, END) if model else 0.0)


def _tell(
    settings: BeamSettings, model: LanguageModel | None, context: Words, word: str
) -> tuple[float, Words]:
    """What one more word (or character) adds to the score, and the context after it."""
    if model is None:
        return 0.0, context
    known = (word,) in model.grams
    score = settings.weight * model.score(context, word) + settings.bonus
    score += 0.0 if known else settings.unknown_penalty
    longer = (*context, word if known else UNKNOWN)
    return score, longer[max(0, len(longer) - model.order + 1) :]


def _beginnings(words: Iterable[str]) -> set[str]:
    """Every beginning of every word, the whole among them."""
    return {word[:length] for word in words for length in range(1, len(word) + 1)}


def _log_add(first: float, second: float) -> float:
    """The logarithm of a sum of two numbers that are given by theirs."""
    if first < second:
        first, second = second, first
    if second == NOTHING:
        return first
    return first + math.log1p(math.exp(second - first))
