"""The squared error: the loss of H from sums, and least squares in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.linalg.gram_matrices import Gram, GroupedGram
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.types import Array, Block


class SquaredError:
    """A mixin with the loss ‖V − W H‖², for solvers that use normal equations."""

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        return row_sums.block_sums(v, w, h if exact else None)

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        return row_sums.residual(v, w, h)


def loss_of_h(sumsq: float, totals: Sums, before: Array, h: Array) -> float:
    """Return ‖V − W h‖² from the sums of W, whose residual, if they have one, belongs to ``before``."""
    if np.isnan(totals.residual):
        return row_sums.expanded_loss(sumsq, totals, h)
    step = (h - before).astype(np.float64)
    slope = gram_matrices.apply_gram((h + before).T.astype(np.float64), totals.gram).T - 2 * totals.num
    return totals.residual + float(np.vdot(step, slope))


IN_ONE_GO = 4096  # rows of Hᵀ below which threads do not pay


def in_threads(solve: Callable[[Any, Any], Array], num: Array, gram: Gram) -> Array:
    """Return the results of ``solve`` for parts of the rows of ``num``, (rows, k), computed in threads.

    ``gram`` is one Gram matrix for all rows, one for each row, packed, or one for each group of rows.
    """
    rows, k = num.shape
    if rows <= IN_ONE_GO:
        return solve(slice(None), gram)
    count = CPU_COUNT
    if isinstance(gram, GroupedGram):
        with ThreadPoolExecutor(count) as pool:
            return gram.solve(num, solve, pool.map)
    cuts = np.linspace(0, rows, 4 * count + 1, dtype=int)
    slices = [slice(*pair) for pair in pairwise(cuts.tolist())]
    grams = (gram if gram_matrices.is_shared_gram(gram, k) else gram[some] for some in slices)
    with ThreadPoolExecutor(count) as pool:
        return np.concatenate(list(pool.map(solve, slices, grams)))


def refit_rows(start: Array, num: Array, gram: Gram, tol: float) -> Array:
    """Return `least_squares.refit` of the rows, (rows, k), shared among threads of this process."""
    return in_threads(lambda some, own: least_squares.refit(start[some], num[some], own, tol), num, gram)


def solve_rows(num: Array, gram: Gram) -> Array:
    """Return `least_squares.solve_exactly` of the rows, (rows, k), shared among threads of this process."""
    return in_threads(lambda some, own: least_squares.solve_exactly(num[some], own), num, gram)
