"""Normal forms of texts: what a transcript looks like once only what can be heard is left of it."""

from __future__ import annotations

import re
import unicodedata

CASES = ("lower", "upper", "keep")
APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc`\u00b4\uff07", "'"))
# Punctuation that stands within words: full stop, Catalan's middle dot, Hebrew's geresh and gershayim,
# Armenian's marks of tone, quotation mark.
WITHIN_WORDS = frozenset('."\u00b7\u05f3\u05f4\u055a\u055b\u055c\u055d\u055e\u055f')
TATWEEL = "\u0640"  # draws an Arabic word out, and means nothing
VARIATION_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))
THOUSANDS, DECIMALS, ELLIPSIS = (
    re.compile(r"(?<=\d),(?=\d)"),
    re.compile(r"(?<=\d)\.(?=\d)"),
    re.compile(r"\.{2,}"),
)
# NFKC takes these vowels apart, which Thai and Lao are always written with.
SARA_AM = {"\u0e4d\u0e32": "\u0e33", "\u0ecd\u0eb2": "\u0eb3"}

SPOKEN = str.maketrans({"&": " and ", "%": " percent "})
LATIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h"}
LATIN |= {"ŧ": "t", "ŋ": "ng", "\u0138": "k", "\u0131": "i"}
LATIN |= {letter.upper(): plain.upper() for letter, plain in LATIN.items() if letter not in "ß\u0138\u0131"}
QUOTED_WORD, LONE_APOSTROPHE = re.compile(r"(?<!\S)'(\S+)'(?!\S)"), re.compile(r"(?<!\S)'+(?!\S)")


def plain(text: str, case: str = "keep") -> str:
    """The text as it is, with one space in place of any white space."""
    return " ".join(change_case(text, case).split())


def basic(text: str, case: str = "lower") -> str:
    """Letters, digits, combining marks and apostrophes of any language, and one space between words.

    NFKC; curly apostrophes are straightened. Dashes, slashes, symbols and most punctuation part words; full
    stops, quotation marks and brackets go ("U.S.A." is "usa", "1,100" is "1100", "3.14" is "3 14"), as do
    invisible characters, among them the joiners of Persian and Indic scripts.

    Scripts: combining marks stay (Devanagari's vowels, Arabic's and Hebrew's points, Thai's tones), but for
    those that no letter carries. Arabic's tatweel goes. Lower case makes one "i" of Turkish "İ", and also of
    its "I", which only `keep` leaves alone; "ß" is "SS" in upper case.

    Args:
        text: a transcript.
        case: `lower`, `upper`, or `keep` for as it is.
    """
    text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES))
    text = change_case(text, case).translate(APOSTROPHES)
    text = ELLIPSIS.sub(" ", DECIMALS.sub(" ", THOUSANDS.sub("", text)))
    kept = "".join(_kept(character) for character in text)
    # Once more, since what went may have stood between letters and accents that belong together.
    text = unicodedata.normalize("NFKC", kept)
    for parts, vowel in SARA_AM.items():
        text = text.replace(parts, vowel)
    return " ".join(filter(None, map(_without_loose_marks, text.split())))


def english(text: str, case: str = "lower") -> str:
    """`basic` in the letters of English: a to z and the apostrophe, as LibriSpeech is written.

    Accents are taken off ("naïve" is "naive"), "&" and "%" become words, apostrophes that quote a word or
    stand alone go. Digits stay, since they do not say how they are read: write "nineteen eighty four".

    Args:
        text: a transcript.
        case: `lower`, `upper`, or `keep` for as it is.
    """
    text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).translate(SPOKEN)
    text = unicodedata.normalize("NFD", basic(text, case))
    text = "".join(LATIN.get(character, character) for character in text)
    text = _without_accents(text)
    text = LONE_APOSTROPHE.sub("", QUOTED_WORD.sub(r"\1", text))
    return basic(text, case)


def change_case(text: str, case: str) -> str:
    """The text in `lower` or `upper` case, or as it is (`keep`)."""
    if case == "lower":
        # What "İ" leaves: a dot above a letter that has one.
        return text.lower().replace("i\u0307", "i")
    return text.upper() if case == "upper" else text


def _kept(character: str) -> str:
    """What stands for a character: itself, a space where it parts words, or nothing."""
    category = unicodedata.category(character)
    if character == "'" or (category[0] in "LN" and character != TATWEEL):
        return character
    if category in {"Mn", "Mc"}:
        return "" if character in VARIATION_SELECTORS else character
    parts_words = category in {"Pd", "Pc", "Po", "Sm", "Sc", "So"} and character not in WITHIN_WORDS
    return " " if parts_words or character.isspace() else ""


def _without_accents(text: str) -> str:
    """Letters a to z without their accents, whatever other marks stand between; others keep theirs."""
    letter, kept = "", []
    for character in text:
        if unicodedata.category(character)[0] != "M":
            letter = character
        elif letter.isascii() and "\u0300" <= character <= "\u036f":
            continue
        kept.append(character)
    return "".join(kept)


def _without_loose_marks(word: str) -> str:
    """A word without marks before its first letter or digit."""
    start = next(
        (i for i, character in enumerate(word) if unicodedata.category(character)[0] in "LN"), len(word)
    )
    return "".join(character for character in word[:start] if character == "'") + word[start:]
