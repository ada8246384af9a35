"""Gram matrices: one for all rows of a factor, one for each row, or one for each group of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg import packed_grams
from dask_nmf.types import Array

Solve = Callable[[NDArray[np.intp], Array], Array]  # from some rows and their gram matrix (k, k) to (rows, k)


class GroupedGram(NamedTuple):
    """Gram matrices of groups of rows. They add if their groups are the same."""

    squares: Array  # (groups, k, k), float64
    groups: NDArray[np.int16]  # (rows,), the group of each row

    def __add__(self, other: Any) -> GroupedGram:
        return self._replace(squares=self.squares + other.squares)

    def __mul__(self, by: Any) -> GroupedGram:
        return self._replace(squares=self.squares * by)

    @property
    def order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows sorted by their groups, (rows,), and the edges of the groups, (groups + 1,)."""
        order = np.argsort(self.groups, kind="stable")
        return order, np.searchsorted(self.groups[order], np.arange(len(self.squares) + 1))

    def parts(self) -> list[tuple[NDArray[np.intp], Array]]:
        """Return the rows of each group that has some, and their gram matrix."""
        order, edges = self.order
        return [
            (order[edges[group] : edges[group + 1]], square)
            for group, square in enumerate(self.squares)
            if edges[group] < edges[group + 1]
        ]

    def solve(self, like: Array, solve: Solve, over: Callable[..., Iterable[Array]] = map) -> Array:
        """Return the results of ``solve`` for the rows of each group, (rows, k), in the dtype of ``like``.

        ``over`` calls it for all groups, as `map` does or the method of a pool.
        """
        out, parts = np.empty_like(like), self.parts()
        for (rows, _), found in zip(parts, over(solve, *zip(*parts, strict=True)), strict=True):
            out[rows] = found
        return out


Gram = Array | GroupedGram


def grouped_gram(
    factor: Array, columns: NDArray[np.int16], counts: NDArray[np.bool_], rows: NDArray[np.int16]
) -> GroupedGram:
    """Return ``Σ f_j f_jᵀ`` over the columns that count for each group of rows.

    Nothing is subtracted, so that nothing cancels.

    Parameters
    ----------
    factor : (n, k).
    columns : (n,), the group of each column.
    counts : (groups of rows, groups of columns), whether the columns of a group count.
    rows : (r,), the group of each row.
    """
    return gram_of_squares(squares_of_groups(factor, columns, counts.shape[1]), counts, rows)


def squares_of_groups(factor: Array, groups: NDArray[np.int16], number: int) -> Array:
    """Return ``Σ f_j f_jᵀ`` over the rows of a factor, (n, k), in each group, (number, k, k), float64."""
    return np.asarray(_squares(np.ascontiguousarray(factor), groups, number))


def gram_of_squares(squares: Array, counts: NDArray[np.bool_], rows: NDArray[np.int16]) -> GroupedGram:
    """Return `grouped_gram` from what `squares_of_groups` returns for the groups of columns."""
    of_rows = counts.astype(np.float64) @ squares.reshape(len(squares), -1)
    return GroupedGram(of_rows.reshape(len(counts), *squares.shape[1:]), rows)


@compiled(fastmath={"contract", "reassoc"})
def _squares(factor: Array, groups: Array, number: int) -> Array:
    """Return the sum of f fᵀ over the rows of each group, (number, k, k), float64."""
    k = factor.shape[1]
    out = np.zeros((number, k, k))
    wide = np.zeros(k)
    for i in range(len(factor)):
        square = out[groups[i]]
        for t in range(k):
            wide[t] = factor[i, t]
        for t in range(k):
            x, into = wide[t], square[t]
            for u in range(t + 1):
                into[u] += x * wide[u]
    for group in range(number):
        for t in range(k):
            for u in range(t):
                out[group, u, t] = out[group, t, u]
    return out


@compiled(fastmath={"contract", "reassoc"})
def multiply_rows(x: Array, squares: Array, groups: Array) -> Array:
    """Return each row of x, (rows, k), times the symmetric matrix of its group, (groups, k, k)."""
    rows, k = x.shape
    out = np.zeros((rows, k), x.dtype)
    for i in range(rows):
        square, into = squares[groups[i]], out[i]
        for t in range(k):
            factor = x[i, t]
            for u in range(k):
                into[u] += factor * square[t, u]
    return out


def is_shared_gram(gram: Gram, k: int) -> bool:
    """Return whether a gram matrix is shared by all rows."""
    return not isinstance(gram, GroupedGram) and gram.shape == (k, k)


def add_ridge(gram: Gram, k: int, weight: float | Array) -> Any:
    """Return gram with the L2 penalty ``weight``, one number or one a row, added to its diagonal."""
    if not np.any(weight):
        return gram
    if isinstance(gram, GroupedGram):
        of_group = np.zeros(len(gram.squares))
        of_group[gram.groups] = weight
        return gram._replace(squares=gram.squares + of_group[:, None, None] * np.eye(k))
    if is_shared_gram(gram, k):
        return np.asarray(gram + weight * np.eye(k, dtype=gram.dtype))
    heavier = gram.copy()
    heavier[:, packed_grams.packed_diagonal(k)] += np.reshape(weight, (-1, 1))
    return heavier


def apply_gram(x: Array, gram: Gram) -> Array:
    """Return ``x gram``, with one gram matrix for all rows, or one for each or for each group of rows."""
    if isinstance(gram, GroupedGram):
        squares = gram.squares.astype(x.dtype, copy=False)
        return np.asarray(multiply_rows(np.ascontiguousarray(x), squares, gram.groups))
    if is_shared_gram(gram, x.shape[1]):
        return np.asarray(x @ gram.astype(x.dtype, copy=False))
    return packed_grams.apply_packed_gram(gram, x).astype(x.dtype)
