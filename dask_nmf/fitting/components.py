"""Normalisation of components, and their order by weight; W H does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import dask
import numpy as np

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.types import Array, Orientation

if TYPE_CHECKING:  # workers need it only for arrays that are Dask's
    import dask.array as da

POWERS = {"l1": 1, "l2": 2}


class Arrangement(NamedTuple):
    """A new order of the components, and their scales."""

    order: Array  # indices of the old components, the heaviest first, (k,)
    left: Array  # multipliers of the left factor, in the new order, (k,)
    right: Array  # multipliers of the right factor, in the new order, (k,)

    def of_left(self, left: Array) -> Array:
        """Return rows of the left factor, (rows, k), in the new order and scale."""
        return np.asarray(left[:, self.order] * self.left.astype(left.dtype))

    def of_right(self, right: Array) -> Array:
        """Return the right factor, (k, n), in the new order and scale."""
        return np.asarray(right[self.order] * self.right.astype(right.dtype)[:, None])


def arrange(left: Array, right: Array, orientation: Orientation) -> Arrangement:
    """Return the arrangement with rows of H of norm 1, in the order of falling norms of W.

    ``left`` and ``right`` are the norms of the components in both factors, (k,). A component that is zero
    keeps its scale, and comes last.
    """
    _, of_h = orientation.turn((left, right))
    order = np.argsort(-left * right, kind="stable")
    by = np.where(of_h > 0, of_h, 1.0)[order]
    return Arrangement(order, *orientation.turn((by, 1 / by)))


def norms_of(factor: Array, how: str) -> Array:
    """Return Σ |x| (l1) or Σ x² (l2) of each component of a factor (rows, k), (k,), float64."""
    return np.asarray((factor.astype(np.float64) ** POWERS[how]).sum(axis=0))


def with_unit_rows(h: Array, how: str) -> Array:
    """Return H (k, n) with rows of norm 1, in the old order; zero rows stay zero."""
    norms = norms_of(h.T, how) ** (1 / POWERS[how])
    return np.asarray(h / np.where(norms > 0, norms, 1)[:, None], h.dtype)


class Moved(NamedTuple):
    """A factor that is read from one store, and written to another after a change."""

    source: FactorStore  # by rows, (rows, k)
    target: FactorStore
    edges: Sequence[int]  # of the pieces of rows that are read and written at once

    @property
    def pieces(self) -> Iterator[tuple[int, int]]:
        """The spans of rows of the pieces."""
        return pairwise(self.edges)

    def rewrite(self, change: Callable[[Array], Array]) -> FactorStore:
        """Write the factor, changed piece by piece, to its target, and return the target."""
        for piece in self.pieces:
            self.target.write(piece[0], change(self.source.read(*piece)))
        return self.target


def arranged(
    left: da.Array | Moved, right: Array | Moved, how: str, orientation: Orientation
) -> tuple[da.Array | FactorStore, Array | FactorStore]:
    """Return both factors normalised and in order; ``how`` is the norm, "l1" or "l2".

    A factor stays in (distributed) memory, or is written piece by piece to its target, which is returned.

    Parameters
    ----------
    left : (rows, k).
    right : (k, columns), or transposed if it is moved.
    """
    root = 1 / POWERS[how]
    order = arrange(_norms(left, how) ** root, _norms(right, how) ** root, orientation)
    return (
        left.rewrite(order.of_left)
        if isinstance(left, Moved)
        else left.map_blocks(order.of_left, dtype=left.dtype),
        right.rewrite(lambda piece: order.of_right(piece.T).T)
        if isinstance(right, Moved)
        else order.of_right(right),
    )


def _norms(factor: da.Array | Array | Moved, how: str) -> Array:
    """Return `norms_of` a left factor in (distributed) memory, a right one in memory, or a moved one."""
    if isinstance(factor, Moved):
        return np.asarray(sum(norms_of(factor.source.read(*piece), how) for piece in factor.pieces))
    if isinstance(factor, np.ndarray):
        return norms_of(factor.T, how)
    parts = [dask.delayed(norms_of)(block, how) for block in factor.to_delayed().ravel()]
    return np.asarray(sum(compute_watched(parts)))
