"""The result of taking rows out of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forgotten:
    """The result of `forget`.

    Attributes
    ----------
    rows : how many rows were taken out
    left : how many rows are left
    already : whether they had been taken out before, so that nothing was done
    polished : whether one pass over the rows that are left has refreshed W and H
    relative_error : of the rows that are left
    """

    rows: int
    left: int
    already: bool
    polished: bool
    relative_error: float
