"""Components of several runs of one rank, matched with each other by an assignment problem.

Stability is the mean cosine of matched components. Nothing here clusters components, or chooses among
solutions by silhouettes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import nan
from typing import NamedTuple

import numpy as np
import scipy  # which imports a part at its first use, so that commands start sooner

from dask_nmf.types import Array

ROUNDING = 1e-9  # sums of cosines whose difference is smaller are alike


class Matching(NamedTuple):
    """Components of a run, by the components of another run that they are matched with.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import match_components
    >>> h = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> match_components(h, 5 * h[::-1]).components
    array([1, 0])
    """

    components: Array  # component of the run for each one of the other run, (k,)
    cosines: Array  # of each pair, (k,)


class Pairs(NamedTuple):
    """Components of two runs, which may have different numbers of them, in pairs."""

    first: Array  # components of the first run, (pairs,)
    second: Array  # their matches in the second run, (pairs,)
    cosines: Array  # of each pair, (pairs,)


class Stability(NamedTuple):
    """The stability of the components of several runs of one rank.

    Attributes
    ----------
    stability : mean cosine of matched components over all pairs of runs; NaN for a single run.
    components : the consensus components, (k, n), float64: those of the medoid run, as they are.
    component_stability : mean cosine of each consensus component with its matches in the other runs, (k,).
    medoid : number of the run whose components match those of the other runs best.
    matches : component of each run that is matched with each consensus component, (runs, k).
    order : numbers of the runs by rising loss; runs whose loss is NaN come last.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import match_runs
    >>> h = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> stability = match_runs([h, h[::-1]], losses=[0.2, 0.1])
    >>> stability.components.shape, stability.order
    ((2, 3), array([1, 0]))
    """

    stability: float
    components: Array
    component_stability: Array
    medoid: int
    matches: Array
    order: Array


def match_components(h: Array, other: Array) -> Matching:
    """Return the matching of components that has the largest sum of cosines, from H (k, n) of two runs.

    A component of zeros has a cosine of 0 with every other one.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import match_components
    >>> h = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> match_components(h, h[::-1]).cosines.round(3)
    array([1., 1.])
    """
    return _match(_unit_rows(h), _unit_rows(other))


def pair_components(h: Array, other: Array) -> Pairs:
    """Return as many pairs of components of two runs as the smaller one has, from H (k, n) of each run.

    They are the assignment with the largest sum of cosines; each component is in one pair at most.
    """
    cosines = np.clip(_unit_rows(h) @ _unit_rows(other).T, 0, 1)
    first, second = scipy.optimize.linear_sum_assignment(cosines, maximize=True)
    return Pairs(first, second, cosines[first, second])


def match_runs(runs: Sequence[Array], losses: Sequence[float]) -> Stability:
    """Return the stability of components across runs of one rank, and consensus components.

    The consensus components are those of one run, the medoid: its rows fit V together. A mean of matched rows
    is of no run; where a component does not occur in a run, something is matched with it all the same, and a
    mean would blend the two. Among runs that match the others alike, the one with the least loss is taken.

    Parameters
    ----------
    runs : H (k, n) of each run.
    losses : the loss of each run, for the order of the runs.

    Raises
    ------
    ValueError
        If there is no run, or their shapes differ, or there is not one loss for each.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import match_runs
    >>> h = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> round(match_runs([h, 2 * h[::-1]], losses=[0.1, 0.1]).stability, 3)
    1.0
    """
    shapes = {np.shape(h) for h in runs}
    if len(shapes) != 1 or len(losses) != len(runs) or len(min(shapes)) != 2:
        raise ValueError(
            f"there are H of shapes {sorted(shapes)} for {len(runs)} runs, and {len(losses)} losses; give "
            "one H (k, n) of the same shape, and one loss, for each run, and at least one run"
        )
    order = np.argsort(np.asarray(losses, np.float64), kind="stable")
    units = [_unit_rows(h) for h in runs]
    likeness = _likeness(units)
    sums = likeness.sum(axis=1)[order]
    medoid = int(order[(sums >= sums.max() - ROUNDING).argmax()])
    matched = [_match(unit, units[medoid]) for unit in units]
    others = [matching.cosines for run, matching in enumerate(matched) if run != medoid]
    k = len(units[0])
    return Stability(
        float(likeness.sum() / (len(runs) * (len(runs) - 1))) if others else nan,
        np.asarray(runs[medoid], np.float64),
        np.mean(others, axis=0) if others else np.full(k, nan),
        medoid,
        np.array([matching.components for matching in matched]),
        order,
    )


def _likeness(units: Sequence[Array]) -> Array:
    """Return the mean cosine of matched components of each pair of runs, (runs, runs), 0 on the diagonal."""
    likeness = np.zeros((len(units), len(units)))
    for run, other in combinations(range(len(units)), 2):
        likeness[run, other] = likeness[other, run] = _match(units[run], units[other]).cosines.mean()
    return likeness


def _match(unit: Array, other: Array) -> Matching:
    cosines = np.clip(other @ unit.T, 0, 1)
    rows, columns = scipy.optimize.linear_sum_assignment(cosines, maximize=True)
    return Matching(columns, cosines[rows, columns])


def _unit_rows(h: Array) -> Array:
    """Return the rows of H (k, n) divided by their norms, float64; rows of zeros stay zero."""
    rows = np.asarray(h, np.float64)
    largest = rows.max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1)  # so that no square underflows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1))
