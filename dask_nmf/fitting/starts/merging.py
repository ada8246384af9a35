"""Merging of two components with the least loss, from sums alone (Guo & Holy 2025, arXiv 2408.09013).

The part w_i h_i + w_j h_j of W H has rank two. Where the columns of W have norm 1, the squares of its two
singular values are the eigenvalues of a 2 x 2 matrix of ``c = w_i · w_j`` and ``Q = H Hᵀ``. The merged
component keeps the larger value, and the square of the smaller one is lost.
"""

from __future__ import annotations

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


def merge_down(h: Array, gram: Array, rank: int) -> Array:
    """Return H (rank, n), float64, after merging the cheapest pair until ``rank`` components are left."""
    h, gram = h.astype(np.float64), gram.astype(np.float64)
    while len(h) > rank:
        cheapest = np.unravel_index(np.argmin(merge_costs(h, gram)), gram.shape)
        h, gram = merge(h, gram, *(int(index) for index in cheapest))
    return h
