"""The facts of a finished fit that a report needs: H, sums over W, and the measures of components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dask_nmf.kernels.summary.residual_sums import Residuals
from dask_nmf.quality.measures import sparseness
from dask_nmf.report.facts.names import Names
from dask_nmf.report.facts.weights import WeightSums, largest_places, scan_rows
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.types import Array

STRIP = 1 << 16  # columns that are processed at once
TOP_COLUMNS = 12  # columns of a component whose names are read
ALIKE = 0.9  # cosine of two components above which they are nearly alike
FAINT = 0.001  # share of the explained part below which a component hardly counts


@dataclass(frozen=True)
class FitFacts:
    """A finished fit, with what was measured of its factors.

    Attributes
    ----------
    stored : the result in its run.
    h : (k, n).
    weights : sums over the rows of W.
    names : of rows and columns.
    stderr : (k, n) standard errors of H; None if they are unknown.
    likeness : (k,) the mean cosine of each component with its bootstrap replicates; None if it is unknown.
    residuals : where W H differs from V; None if it is unknown.
    environments : the versions and workers that the passes had, as a run records them.
    """

    stored: StoredResult
    h: Array
    weights: WeightSums
    names: Names
    stderr: Array | None = None
    likeness: Array | None = None
    residuals: Residuals | None = None
    environments: Sequence[Mapping[str, Any]] = ()

    @property
    def record(self) -> dict[str, Any]:
        """The record of the result."""
        return self.stored.record

    @property
    def rank(self) -> int:
        """The number of components."""
        return len(self.h)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of V."""
        m, n = self.record["matrix"]["shape"]
        return m, n

    @property
    def squared(self) -> bool:
        """Whether the squared error was minimised, and not a divergence."""
        return self.stored.settings.beta == 2

    @property
    def relative_error(self) -> float | None:
        """The relative error; None if it is infinite, or V is 0."""
        loss, baseline = self.record["loss"], self.record["measures"]["baseline"]
        return None if loss is None or not baseline else float(np.sqrt(max(loss, 0.0) / baseline))

    @cached_property
    def h_cosines(self) -> Array:
        """The cosines of the rows of H, (k, k)."""
        return cosines(_gram(self.h, self.weights.norms))

    @cached_property
    def w_cosines(self) -> Array:
        """The cosines of the columns of W, (k, k)."""
        return cosines(self.weights.gram)

    @cached_property
    def shares(self) -> Array:
        """The share of each component in the part of V that is explained, (k,), which add up to 1.

        For the squared error that part is ‖W H‖² = Σ_st (WᵀW)_st (H Hᵀ)_st, of which a component has the
        terms of its row: at a solution ‖V‖² - ‖V - W H‖² = ‖W H‖². For a divergence it is the sum of W H.
        """
        if self.squared:
            parts = (self.weights.gram * self.h_cosines).sum(axis=1)
        else:
            norms = self.weights.norms
            parts = self.weights.sums * np.divide(
                self.h.sum(axis=1, dtype=np.float64), norms, out=np.zeros(len(norms)), where=norms > 0
            )
        total = parts.sum()
        return np.asarray(parts / total) if total > 0 else np.zeros(self.rank)

    @cached_property
    def h_sparseness(self) -> Array:
        """Hoyer's sparseness of the rows of H, (k,); NaN for rows of zeros."""
        return np.array([sparseness(row) for row in self.h])

    @cached_property
    def w_sparseness(self) -> Array:
        """Hoyer's sparseness of the columns of W, (k,); NaN for columns of zeros."""
        root, squares = np.sqrt(self.weights.rows), np.diagonal(self.weights.gram)
        if root <= 1:
            return np.full(self.rank, np.nan)
        ratio = np.divide(
            self.weights.sums, np.sqrt(squares), out=np.full(self.rank, np.nan), where=squares > 0
        )
        return np.asarray(np.clip((root - ratio) / (root - 1), 0, 1))

    @cached_property
    def dead(self) -> list[int]:
        """The components that are zero in W or in H."""
        return np.flatnonzero((self.weights.sums == 0) | (self.weights.norms == 0)).tolist()

    def alike(self) -> list[tuple[int, int, float]]:
        """Return the pairs of components whose H and W are both nearly alike, with the cosine of their H."""
        both = np.minimum(self.h_cosines, self.w_cosines)
        pairs = np.argwhere(np.triu(both > ALIKE, 1)).tolist()
        return [(one, other, float(self.h_cosines[one, other])) for one, other in pairs]

    def top_columns(self, component: int, count: int) -> list[int]:
        """Return the columns with the largest entries of a component that are not 0, the largest first."""
        return self._tops[component][:count]

    @cached_property
    def _tops(self) -> list[list[int]]:
        """The columns with the largest entries of each component, at most `TOP_COLUMNS`."""
        found = []
        for row in self.h:
            some = largest_places(row, TOP_COLUMNS)
            found.append(some[np.lexsort((some, -row[some]))].tolist())
        return found


def facts_of(stored: StoredResult, stderr: Array | None = None, likeness: Array | None = None) -> FitFacts:
    """Return the facts of a result: H is read whole, and W in parts."""
    h = stored.read("H")
    facts = FitFacts(stored, h, scan_rows(stored.array("W"), row_norms(h)), Names(), stderr, likeness)
    tops = [facts.top_columns(component, TOP_COLUMNS) for component in range(facts.rank)]
    rows = [row for row in facts.weights.top_rows.ravel().tolist() if row >= 0]
    columns = [column for top in tops for column in top]
    return replace(facts, names=Names(stored.labels).reading(rows, columns))


def row_norms(h: Array) -> Array:
    """Return the Euclidean norms of the rows of H (k, n), (k,), float64."""
    largest = np.maximum(h.max(axis=1, initial=0.0).astype(np.float64), np.finfo(np.float64).tiny)
    squares = np.zeros(len(h))
    for first in range(0, h.shape[1], STRIP):
        squares += ((h[:, first : first + STRIP] / largest[:, None]) ** 2).sum(axis=1)
    return np.asarray(largest * np.sqrt(squares))


def cosines(gram: Array) -> Array:
    """Return the cosines of vectors from their products, (k, k); 0 for vectors of zeros."""
    norms = np.sqrt(np.diagonal(gram))
    outer = np.outer(norms, norms)
    return np.divide(gram, outer, out=np.zeros_like(gram), where=outer > 0)


def _gram(h: Array, norms: Array) -> Array:
    """Return the products of the rows of H at norm 1, (k, k)."""
    by = np.where(norms > 0, norms, 1.0)[:, None]
    total = np.zeros((len(h), len(h)))
    for first in range(0, h.shape[1], STRIP):
        some = h[:, first : first + STRIP] / by
        total += some @ some.T
    return total
