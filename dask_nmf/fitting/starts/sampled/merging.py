"""Merging of two components with the least loss, from sums alone (Guo & Holy 2025, arXiv 2408.09013).

The part w_i h_i + w_j h_j of W H has rank two. Where the columns of W have norm 1, the squares of its two
singular values are the eigenvalues of a 2 x 2 matrix of ``c = w_i · w_j`` and ``Q = H Hᵀ``. The merged
component keeps the larger value, and the square of the smaller one is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from dask_nmf.types import Array


def merge_costs(h: Array, gram: Array) -> Array:
    """Return by how much ‖V − W H‖² may grow if two components are merged, (k, k), from H and WᵀW.

    Entries on and below the diagonal are infinite.
    """
    lengths = np.sqrt(np.maximum(np.diag(gram), 0))
    by = np.where(lengths > 0, lengths, 1.0)
    cosines = np.clip(gram / np.outer(by, by), 0, 1)
    wide = h.astype(np.float64) * lengths[:, None]
    squares = wide @ wide.T
    own = np.diag(squares)
    half = (own[:, None] + own + 2 * cosines * squares) / 2
    determinant = np.maximum((1 - cosines**2) * (np.outer(own, own) - squares**2), 0)
    lost = determinant / np.maximum(
        half + np.sqrt(np.maximum(half**2 - determinant, 0)), np.finfo(float).tiny
    )
    return np.where(np.triu(np.ones(lost.shape, bool), 1), lost, np.inf)


def merge(h: Array, gram: Array, i: int, j: int) -> tuple[Array, Array]:
    """Return H (k − 1, n) and WᵀW, float64, with components i and j merged into the last one."""
    lengths = np.sqrt(np.maximum(np.diag(gram)[[i, j]], np.finfo(float).tiny))
    first, second = h[[i, j]].astype(np.float64) * lengths[:, None]
    c = float(np.clip(gram[i, j] / lengths.prod(), 0, 1))
    a, b, between = first @ first, second @ second, first @ second
    half = (a + b + 2 * c * between) / 2
    gap = np.sqrt(max(half**2 - max((1 - c**2) * (a * b - between**2), 0), 0))
    u, v = max(a - b + 2 * gap, 0.0), 2 * (between + c * b)
    u, v = (u, v) if u + v > 0 else (1.0, 1.0)
    length = np.sqrt(u * u + 2 * u * v * c + v * v)  # 0 if both components are, up to rounding
    u, v = np.array([u, v]) / (length if length > 0 else 1.0)
    row = (u + v * c) * first + (u * c + v) * second
    rest = [t for t in range(len(h)) if t not in (i, j)]
    move = np.zeros((len(h), len(rest) + 1))  # W → W move
    move[rest, np.arange(len(rest))] = 1
    move[[i, j], -1] = (u, v) / lengths
    return np.vstack([h[rest].astype(np.float64), row]), move.T @ gram @ move


class MergePath(NamedTuple):
    """Starts for several ranks that come from one fit, and what each merge on the way costs.

    Attributes
    ----------
    starts : H (rank, n), float64, by rank.
    costs : by the number of components that are left, by how much the merge that leaves them changes W H, as
        a squared error. A cost much above those of larger ranks says that components merge that differ.
    """

    starts: dict[int, Array]
    costs: dict[int, float]


def merge_path(h: Array, gram: Array, ranks: Collection[int]) -> MergePath:
    """Return starts for smaller ranks from one fit, by merging the cheapest pair time and again.

    The squared error of a merge is exact for W H. With it ‖V − W H‖ grows by at most its root, and
    ‖V − W H‖² by at most the cost itself if V − W H is orthogonal to the columns of W or to the rows of H, as
    after a fit whose factors have no zeros.

    Parameters
    ----------
    h : (k, n), a fitted H.
    gram : (k, k), WᵀW of the W that belongs to it.
    ranks : the ranks for which starts are wanted, from 1 to k.

    Raises
    ------
    ValueError
        If a rank is not from 1 to k.
    """
    if ranks and not 1 <= min(ranks) <= max(ranks) <= len(h):
        raise ValueError(f"ranks are {sorted(ranks)} and H has {len(h)} rows; give ranks from 1 to {len(h)}")
    h, gram = h.astype(np.float64), gram.astype(np.float64)
    starts, costs = {}, {}
    for rank in range(len(h), min(ranks, default=len(h)) - 1, -1):
        if rank < len(h):
            candidates = merge_costs(h, gram)
            i, j = np.unravel_index(np.argmin(candidates), candidates.shape)
            costs[rank] = float(candidates[i, j])
            h, gram = merge(h, gram, int(i), int(j))
        if rank in ranks:
            starts[rank] = h
    return MergePath(starts, costs)


def merge_down(h: Array, gram: Array, rank: int) -> Array:
    """Return H, float64, with at most ``rank`` components, after merging the cheapest pair time and again."""
    rank = min(rank, len(h))
    return merge_path(h, gram, (rank,)).starts[rank]
