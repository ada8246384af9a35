"""Text from outside, such as names of files and records of runs, made safe and readable for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LISTED = 5  # the last numbers of a list, which are shown


def escape_control(text: object) -> str:
    """Return a text in one line that cannot control a terminal or forge a line of a log.

    Control characters, line ends, marks that turn the direction of writing and bytes that are no text become
    the escapes that Python has for them. Names of files and records of runs may hold any of these.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def align_values(found: Mapping[str, Any]) -> list[str]:
    """Return one line for each value, with the values below each other; a nested mapping is indented."""
    rows = list(_rows(found, ""))
    width = max((len(name) for name, _ in rows), default=0) + 2
    return [f"{name + ':':{width}}{shown}".rstrip() for name, shown in rows]


def align_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose cells are below each other, to the right of their columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _rows(found: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield indent + name, ""
            yield from _rows(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[-1], Mapping):
            yield indent + name, f"the last of {len(value)}"
            yield from _rows(value[-1], indent + "  ")
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
    """Return the last numbers of a list, and their count if these are not all."""
    shown = " ".join(_shown("", value) for value in values[-LISTED:]) or "-"
    return shown if len(values) <= LISTED else f"{shown}  (the last {LISTED} of {len(values)})"
