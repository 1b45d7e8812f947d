"""Numbers and names as a card writes them; errors, sizes and speeds are rounded in no model's favour."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_distilhubert.errors import one_line

NOT_MEASURED = "not measured"


def rounded_up(value: float, digits: int) -> str:
    """A number with so many decimals, rounded up; the inner rounding only takes off the noise of floats."""
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:.{digits}f}"


def rounded_down(value: float, digits: int) -> str:
    """The same, rounded down."""
    return f"{math.floor(round(value * 10**digits, 6)) / 10**digits:.{digits}f}"


def signed(value: float, digits: int, *, down: bool = False) -> str:
    """`+1.2`, `-0.3`, rounded up or down."""
    text = rounded_down(value, digits) if down else rounded_up(value, digits)
    return text if text.startswith("-") else f"+{text}"


def percent(share: float | None) -> str:
    """0.1234 -> `12.4 %`."""
    return NOT_MEASURED if share is None else f"{rounded_up(100 * share, 1)} %"


def error_rate(entry: Mapping[str, Any], key: str) -> str:
    """`12.4 % [10.1, 15.0]`: the rate and its interval, which is rounded to the wider one."""
    ends = entry.get(f"{key}_interval", [])
    if key not in entry or len(ends) != 2:
        return percent(entry.get(key))
    low, high = (100 * end for end in ends)
    return f"{percent(entry[key])} [{rounded_down(low, 1)}, {rounded_up(high, 1)}]"


def millions(count: float | None) -> str:
    """1234567 -> `1.24 M`."""
    return NOT_MEASURED if count is None else f"{rounded_up(count / 1e6, 2)} M"


def megabytes(count: float | None) -> str:
    """1234567 -> `1.3 MB`."""
    return NOT_MEASURED if count is None else f"{rounded_up(count / 1e6, 1)} MB"


def factor(value: float | None) -> str:
    """0.01234 -> `0.013`."""
    return NOT_MEASURED if value is None else rounded_up(value, 3)


def scientific(value: float | None) -> str:
    """0.00000031234 -> `3.2e-07`: a difference is never told smaller than it is."""
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    digits = math.ceil(round(value / 10.0 ** (exponent - 1), 6))
    return f"{digits * 10.0 ** (exponent - 1):.1e}"


def count(value: float | None) -> str:
    """12345 -> `12,345`."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def counted(value: float, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{value:,.0f} {noun}" if value == 1 else f"{value:,.0f} {noun}s"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def cell(value: object) -> str:
    """Any text as it stands, safe inside Markdown and its tables."""
    return re.sub(r"([\\`*\[\]|<>])", r"\\\1", one_line(value))


def code(value: object) -> str:
    """Any text as a Markdown code span, safe inside tables too."""
    return f"`{one_line(value).replace('`', chr(39)).replace('|', '¦') or '?'}`"


def given(entry: Mapping[str, Any], key: str, form: Callable[[Any], str]) -> str:
    """`form(entry[key])`, or nothing where the stage did not say."""
    return form(entry[key]) if key in entry else ""


def listing(*parts: str) -> str:
    """The parts that say something, with commas."""
    return ", ".join(part for part in parts if part)


def series(values: Sequence[object]) -> str:
    """`4, 8 and 12`."""
    words = [f"{value}" for value in values]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
