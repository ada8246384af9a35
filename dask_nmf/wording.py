"""Numbers of things in sentences."""

from __future__ import annotations

from typing import Any


def counted(number: Any, noun: str, form: str = "") -> str:
    """Return a number with its noun in the singular or the plural: "1 panel", "2 passes", "5 entries".

    Parameters
    ----------
    form : the format of the number, such as "," to group its digits.
    """
    if str(number) == "1":
        return f"1 {noun}"
    stem, end = (noun[:-1], "ies") if noun.endswith("y") else (noun, "es" if noun.endswith("s") else "s")
    return f"{number:{form}} {stem}{end}"
