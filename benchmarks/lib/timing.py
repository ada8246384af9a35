"""Clocks, and interleaved rounds: other load on the machine then slows all candidates alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

Name = TypeVar("Name")
Measured = TypeVar("Measured")


def elapsed(work: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> float:
    """Return the seconds that a call takes."""
    start = clock()
    work()
    return clock() - start


def interleaved(candidates: Mapping[Name, Callable[[], Measured]], rounds: int) -> dict[Name, list[Measured]]:
    """Measure every candidate once in each round; return the measurements of each, by round."""
    turns = [{name: measure() for name, measure in candidates.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in candidates}


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the ratios within each round."""
    return median(a / b for a, b in zip(over, under, strict=True))
