"""Text of others and what a run says of itself, as a terminal may show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LISTED = 5  # numbers of a list, the last ones


def visible(text: object) -> str:
    """Text in one line that steers no terminal and forges no line of a log.

    Control characters, line ends, marks that turn the direction of writing and bytes that are no text are
    shown by the escapes that Python has for them: names of files and what a run says of itself may hold any.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def aligned(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each value, below each other; what is a mapping itself gets a line a value, too."""
    rows = list(_rows(found, ""))
    width = max((len(name) for name, _ in rows), default=0) + 2
    return [f"{name + ':':{width}}{shown}".rstrip() for name, shown in rows]


def _rows(found: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield indent + name, ""
            yield from _rows(value, indent + "  ")
        else:
            yield indent + name, _shown(name, value)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return str(value)
    if name == "shape":
        return " x ".join(map(str, value))
    return _listed(value)


def _listed(values: Sequence[Any]) -> str:
    """Return the last numbers of a list, and how many there are if that is not all."""
    shown = " ".join(_shown("", value) for value in values[-LISTED:]) or "-"
    return shown if len(values) <= LISTED else f"{shown}  (the last {LISTED} of {len(values)})"
