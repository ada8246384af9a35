"""The columns, or rows, of V that matter most in each component of a result, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dask_nmf.quality.features import feature_score
from dask_nmf.results.sides import Side, sides_of
from dask_nmf.runs.run import Run
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

MEASURES = ("weight", "lift", "score")
Measure = Callable[[Array], Array]  # from shares, (lines, k), to values; −inf for what is not listed


@dataclass(frozen=True)
class Leading:
    """The lines of W, or of Hᵀ, that lead one component, best first.

    Attributes
    ----------
    numbers : of the columns or rows of V, counted from 0
    names : their names; None if V has none
    values : by which they are in order

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import top
    >>> result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store="run.zarr")
    >>> (leading,) = top("run.zarr", n=2)
    >>> leading.numbers, leading.values.round(3), leading.names
    (array([1, 0]), array([0.75, 0.25]), None)
    """

    numbers: Array
    names: Array | None
    values: Array


def top(run: str | Path | Location, n: int = 10, by: str = "weight", rows: bool = False) -> list[Leading]:
    """Return the best columns, or rows, of V in each component of a run, a list of k.

    W and H are read in pieces of 16 MiB; in memory stay the n best of each component.

    Parameters
    ----------
    run : path, URL or location of a run or of a selection of ranks.
    n : the most columns of a component.
    by : "weight": the share that a column has of its row of H, whose sum is 1.
        "lift": that share, over the share that the column has of W H as a whole; rare columns come first.
        "score": how specific a column is of one component, among the columns that are largest in that
        component, where rows of H have the sum 1 (Kim & Park, Bioinformatics 23:1495, 2007; see
        `dask_nmf.quality.features.feature_score`).
    rows : whether the rows of V are listed, by W, in place of its columns.

    Returns
    -------
    A `Leading` for each component: numbers, names and values of its lines, the best first.

    Raises
    ------
    ValueError
        If an argument is not one of these; if the run has no result yet.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import top
    >>> result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store="run-for-top.zarr")
    >>> top("run-for-top.zarr", n=1)[0].numbers
    array([1])
    """
    if by not in MEASURES:
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(MEASURES)}")
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n is {n!r}; it must be an integer ≥ 1")
    W, H = sides_of(Run.load_result(run))
    side, other = (W, H) if rows else (H, W)
    if by == "score" and side.rank == 1:
        raise ValueError("a score compares components, and the run has one; give by='weight' (--by weight)")
    totals = side.totals()
    found = _best(side, totals, _measure(by, totals, other), n)
    return [Leading(numbers, side.names_at(numbers), values) for numbers, values in found]


def _measure(by: str, totals: Array, other: Side) -> Measure:
    """Return the function that values lines by their shares of the components, (lines, k)."""
    if by == "weight":
        return lambda shares: np.where(shares > 0, shares, -np.inf)
    if by == "score":
        return _scores
    sizes = totals * other.totals()  # the sum of W H that is of each component
    return partial(_lifts, sizes / max(sizes.sum(), np.finfo(np.float64).tiny))


def _lifts(sizes: Array, shares: Array) -> Array:
    """Return the share of each component over the share of all; ``sizes`` are the components' shares."""
    overall = (shares @ sizes)[:, None]
    nothing, listed = np.full_like(shares, -np.inf), (shares > 0) & (overall > 0)
    return np.asarray(np.divide(shares, overall, out=nothing, where=listed))


def _scores(shares: Array) -> Array:
    """Return the feature score of each line in the component in which it is largest."""
    values = np.full_like(shares, -np.inf)
    owners, lines = shares.argmax(axis=1), np.arange(len(shares))
    scores = feature_score(shares.T)
    values[lines, owners] = np.where(np.isnan(scores), -np.inf, scores)
    return values


def _best(side: Side, totals: Array, measure: Measure, n: int) -> list[tuple[Array, Array]]:
    """Return the numbers and values of the n best lines of each component; the first wins a tie."""
    empty = np.empty(0, np.int64), np.empty(0)
    best = [empty] * side.rank
    units = np.where(totals > 0, totals, 1.0)
    for first, lines in side.pieces():
        values = measure(lines / units)
        numbers = np.arange(first, first + len(lines))
        best = [_merged(old, numbers, values[:, t], n) for t, old in enumerate(best)]
    return best


def _merged(old: tuple[Array, Array], numbers: Array, values: Array, n: int) -> tuple[Array, Array]:
    """Return the n best of two lists that are in the order of V where values are equal."""
    if len(values) > n:  # no more than these and their equals are sorted
        least = np.partition(values, len(values) - n)[len(values) - n]
        chosen = values >= least
        numbers, values = numbers[chosen], values[chosen]
    listed = values > -np.inf
    numbers, values = np.append(old[0], numbers[listed]), np.append(old[1], values[listed])
    order = np.argsort(-values, kind="stable")[:n]
    return numbers[order], values[order]
