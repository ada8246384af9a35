"""Normalisation of components, and their order by weight; W H does not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.types import Array

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


def arrange(left: Array, right: Array, transposed: bool) -> Arrangement:
    """Return the arrangement with rows of H of norm 1, in the order of falling norms of W.

    ``left`` and ``right`` are the norms of the components in both factors, (k,). A component that is zero
    keeps its scale, and comes last.
    """
    of_h = left if transposed else right
    order = np.argsort(-left * right, kind="stable")
    by = np.where(of_h > 0, of_h, 1.0)[order]
    return Arrangement(order, 1 / by if transposed else by, by if transposed else 1 / by)


def norms_of(factor: Array, how: str) -> Array:
    """Return Σ |x| (l1) or Σ x² (l2) of each component of a factor (rows, k), (k,), float64."""
    return np.asarray((factor.astype(np.float64) ** POWERS[how]).sum(axis=0))


def with_unit_rows(h: Array, how: str) -> Array:
    """Return H (k, n) with rows of norm 1, in the old order; zero rows stay zero."""
    norms = norms_of(h.T, how) ** (1 / POWERS[how])
    return np.asarray(h / np.where(norms > 0, norms, 1)[:, None], h.dtype)


class Moved(NamedTuple):
    """A factor that is read from one store, and written to another after a change."""

    source: FactorStore
    target: FactorStore


def arranged(
    left: da.Array | Moved, edges: Sequence[int], right: Array, how: str, transposed: bool
) -> tuple[da.Array | FactorStore, Array]:
    """Return both factors normalised and in order; ``how`` is the norm, "l1" or "l2".

    The left factor stays in (distributed) memory, or is written to the target store, which is returned.
    """
    if isinstance(left, da.Array):
        parts = [dask.delayed(norms_of)(block, how) for block in left.to_delayed().ravel()]
        found = _arrangement(sum(compute_watched(parts)), right, how, transposed)
        return left.map_blocks(found.of_left, dtype=left.dtype), found.of_right(right)
    found = _arrangement(_norms_at(left.source, edges, how), right, how, transposed)
    _rewrite(left, edges, found.of_left)
    return left.target, found.of_right(right)


def arrange_pieces(
    left: tuple[Moved, Sequence[int]], right: tuple[Moved, Sequence[int]], how: str, transposed: bool
) -> None:
    """Normalise and order both factors in a run, piece by piece: none is ever whole in memory.

    Each factor is stored by rows, and comes with the edges of its pieces.
    """
    root = 1 / POWERS[how]
    of_left, of_right = (_norms_at(factor.source, edges, how) ** root for factor, edges in (left, right))
    found = arrange(of_left, of_right, transposed)
    _rewrite(*left, found.of_left)
    _rewrite(*right, lambda piece: found.of_right(piece.T).T)


def _norms_at(factor: FactorStore, edges: Sequence[int], how: str) -> Array:
    return np.asarray(sum(norms_of(factor.read(*piece), how) for piece in pairwise(edges)))


def _rewrite(factor: Moved, edges: Sequence[int], change: Callable[[Array], Array]) -> None:
    for piece in pairwise(edges):
        factor.target.write(piece[0], change(factor.source.read(*piece)))


def _arrangement(left: Array | int, right: Array, how: str, transposed: bool) -> Arrangement:
    root = 1 / POWERS[how]
    return arrange(np.asarray(left) ** root, norms_of(right.T, how) ** root, transposed)
