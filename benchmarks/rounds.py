"""Several kinds of work in turn, so that what else the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

Kind = TypeVar("Kind")
Measured = TypeVar("Measured")


def elapsed(work: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds."""
    start = clock()
    work()
    return clock() - start


def in_turn(kinds: Mapping[Kind, Callable[[], Measured]], rounds: int) -> dict[Kind, list[Measured]]:
    """What each kind gives, round by round."""
    turns = [{name: measure() for name, measure in kinds.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in kinds}


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return median(a / b for a, b in zip(over, under, strict=True))
