"""The entries of a dense block that are held out, and the squared error of W H in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_nmf.kernels.blocks.groups import Groups
from dask_nmf.kernels.blocks.holes.cleared import SortedColumns
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array


@dataclass(frozen=True)
class HeldEntries:
    """The entries of a dense block that are held out, row by row, and in each row by groups of columns."""

    values: Array  # (entries,)
    groups: Groups  # by which the other entries count
    columns: SortedColumns

    @property
    def row_weight(self) -> Array:
        """The number of entries of each row, (r,), float64."""
        return self.groups.complement().row_weight

    def squared_error(self, w: Array, h: Array) -> float:
        """Return Σ (v − w h)² over the entries, float64; w is (r, k), h (k, n)."""
        columns, rule = h.T[self.columns.order], (self.columns.edges, self.groups.counts)
        return float(_squared_error(self.values, self.groups.rows, *rule, np.ascontiguousarray(w), columns))


@compiled(fastmath={"contract", "reassoc"})
def _squared_error(values: Array, rows: Array, edges: Array, counts: Array, w: Array, h: Array) -> float:
    """Return the squared error of entries, with Hᵀ in the order of the columns."""
    k, total, at = w.shape[1], 0.0, 0
    own = np.zeros(k)
    for i in range(len(rows)):
        for t in range(k):
            own[t] = w[i, t]
        for group in range(len(edges) - 1):
            if counts[rows[i], group]:
                continue
            for p in range(edges[group], edges[group + 1]):
                rest, column = np.float64(values[at]), h[p]
                for t in range(k):
                    rest -= own[t] * np.float64(column[t])
                total += rest * rest
                at += 1
    return total
