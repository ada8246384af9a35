"""Numbers that stand below each other in a table, with equal digits, so that they can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable

UNKNOWN = "–"
MORE_DECIMALS = 2  # that a column may have for its least number, beyond those of its largest
MOST_DECIMALS = 7  # of a column; smaller numbers are written with an exponent
LARGEST_WHOLE = 1e15  # numbers below it that are all whole are counts


def column(values: Iterable[float | None], digits: int = 4) -> list[str]:
    """Return the numbers of a column for people; a dash for one that is unknown.

    All have as many decimals as the least one needs for ``digits`` significant digits. If these are more than
    seven, or more than two above those of the largest, each number has ``digits`` significant digits of its
    own.
    """
    numbers = [math.nan if value is None else float(value) for value in values]
    known = [abs(value) for value in numbers if math.isfinite(value)]
    sizes = [value for value in known if value > 0]
    if all(value.is_integer() and value < LARGEST_WHOLE for value in known):
        decimals: int | None = 0
    else:
        least, most = (_decimals(size, digits) for size in (min(sizes), max(sizes)))
        alike = least - most <= MORE_DECIMALS and least <= MOST_DECIMALS
        decimals = max(least, 0) if alike else None
    return [_text(value, decimals, digits) for value in numbers]


def percents(shares: Iterable[float | None], digits: int = 3) -> list[str]:
    """Return the shares of a column as per cent; a dash for one that is unknown."""
    texts = column((None if share is None else 100 * float(share) for share in shares), digits)
    return [text if text == UNKNOWN else f"{text} %" for text in texts]


def seconds(values: Iterable[float]) -> list[str]:
    """Return the seconds of a column, to a thousandth of a second."""
    return [f"{value:,.3f}" for value in values]


def _decimals(size: float, digits: int) -> int:
    """Return the decimals that a number > 0 needs for some significant digits; less than 0 if none."""
    return digits - 1 - math.floor(math.log10(size))


def _text(value: float, decimals: int | None, digits: int) -> str:
    """Return a number with some decimals, or if they are None with its own significant digits."""
    if math.isnan(value):
        return UNKNOWN
    if decimals is None and (value == 0 or 10**digits <= abs(value) < LARGEST_WHOLE):
        decimals = 0
    return f"{value:#,.{digits}g}".removesuffix(".") if decimals is None else f"{value:,.{decimals}f}"
