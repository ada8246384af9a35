"""Sums over the rows of W, from one read of it in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_nmf.quality.clusters import UNEXPLAINED, largest_components
from dask_nmf.types import Array

STRIP = 1 << 15  # rows that are processed at once
MOST_ENTRIES = 300_000_000  # of W that are read; a larger W is sampled
SURVEYED = 1_000_000  # entries of W, about, of which the distribution is taken
TOP_ROWS = 5  # rows of a component that are named


@dataclass
class WeightSums:
    """Sums over rows of W, of its entries times the norms of their components: parts of W H.

    Attributes
    ----------
    norms : (k,) the Euclidean norms of the rows of H.
    rows : number of rows that were read.
    gram : (k, k), Σ_i p_is p_it.
    sums : (k,), Σ_i p_it.
    zeros : (k,), number of rows without the component.
    leading : (k + 1,), number of rows in which the component is the largest; the last: rows of zeros.
    top_values, top_rows : (k, TOP_ROWS) the largest entries of W by component, and their rows; 0 and
        -1 where a component has fewer entries above 0.
    samples : parts of evenly spaced rows, of which distributions are taken.
    """

    norms: Array
    rows: int = 0
    gram: Array = field(init=False)
    sums: Array = field(init=False)
    zeros: Array = field(init=False)
    leading: Array = field(init=False)
    top_values: Array = field(init=False)
    top_rows: Array = field(init=False)
    samples: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        k = len(self.norms)
        self.gram, self.sums = np.zeros((k, k)), np.zeros(k)
        self.zeros, self.leading = np.zeros(k, np.int64), np.zeros(k + 1, np.int64)
        self.top_values, self.top_rows = np.zeros((k, TOP_ROWS)), np.full((k, TOP_ROWS), -1)

    def add(self, first: int, w: Array, survey: int) -> None:
        """Add rows of W (rows, k), which begin at row ``first``; each ``survey``-th is kept as a sample."""
        parts = w * self.norms  # in float64, in which the squares of V fit
        self.rows += len(w)
        self.gram += parts.T @ parts
        self.sums += parts.sum(axis=0)
        self.zeros += len(w) - np.count_nonzero(w, axis=0)
        leads = largest_components(parts, np.ones(len(self.norms)))
        self.leading += np.bincount(leads % (len(self.norms) + 1), minlength=len(self.norms) + 1)
        self._keep_top(first, w)
        self.samples.append(parts[::survey].copy())

    def _keep_top(self, first: int, w: Array) -> None:
        """Keep the largest entries of each component among those so far and new rows."""
        for component, column in enumerate(np.ascontiguousarray(w.T)):
            values, rows = self.top_values[component], self.top_rows[component]
            new = largest_places(column, TOP_ROWS, values[-1])
            values, rows = np.append(values, column[new]), np.append(rows, first + new)
            order = np.lexsort((rows, -values))[:TOP_ROWS]
            self.top_values[component], self.top_rows[component] = values[order], rows[order]

    @property
    def sample(self) -> Array:
        """The parts of the sampled rows, (rows, k)."""
        return np.concatenate(self.samples)

    @property
    def unexplained(self) -> int:
        """The number of rows in which no component occurs."""
        return int(self.leading[UNEXPLAINED])


def largest_places(values: Array, count: int, above: float = 0.0) -> Array:
    """Return the places of the largest values, at most ``count`` and only those above a bound, in any order.

    Values up to the bound are left out first: a partition of many equal values, such as zeros, is slow.
    """
    places = np.flatnonzero(values > above)
    if len(places) <= count:
        return places
    return places[np.argpartition(values[places], len(places) - count)[len(places) - count :]]


def scan_rows(w: Any, norms: Array) -> WeightSums:
    """Return the sums over the rows of W (m, k), an array of Zarr: evenly spaced rows of a very large one.

    Parameters
    ----------
    norms : (k,) the Euclidean norms of the rows of H.
    """
    sums = WeightSums(norms)
    survey = max(1, min(w.size, MOST_ENTRIES) // SURVEYED)
    for first, last in spans_of(w):
        rows = np.asarray(w[first:last])
        for start in range(0, len(rows), STRIP):
            sums.add(first + start, rows[start : start + STRIP], survey)
    return sums


def spans_of(w: Any) -> Iterator[tuple[int, int]]:
    """Yield the spans of rows that are read: whole chunks, so that none is decoded twice."""
    rows, unit = w.shape[0], w.chunks[0]
    height = -(-STRIP // unit) * unit
    count, most = -(-rows // height), max(1, MOST_ENTRIES // (height * w.shape[1]))
    for number in range(0, count, -(-count // most)):
        yield number * height, min((number + 1) * height, rows)
