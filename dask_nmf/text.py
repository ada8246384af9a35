"""Text of others, as it may be shown."""

from __future__ import annotations


def visible(text: object) -> str:
    """Text in one line that steers no terminal and forges no line of a log.

    Control characters, line ends, marks that turn the direction of writing and bytes that are no text are
    shown by the escapes that Python has for them: names of files and what a run says of itself may hold any.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))
