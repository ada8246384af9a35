"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which gets an "s" unless there is one: "1 panel", "3 panels"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
