"""Least squares and multiplicative updates of W and H on one block in memory.

Functions take rows of V as a NumPy array, a ``scipy.sparse.csr_array``, either of these as `ScaledBlock`,
`Cells` or a `HoledBlock` (if not every entry counts), and return NumPy arrays. Lower-case ``v (r, n)``,
``w (r, k)``, ``h (k, n)`` are one block; sums over blocks are float64. A gram matrix is shared by all rows,
(k, k), every row has its own, packed, or every group of rows has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from dask_nmf.kernels.blocks import masked, scaling
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.linalg import csr_products, householder, nnls, packed_grams
from dask_nmf.kernels.linalg.gram_matrices import (
    Gram,
    GroupedGram,
    add_ridge,
    apply_gram,
    is_shared_gram,
)
from dask_nmf.kernels.linalg.householder import PivotedQR
from dask_nmf.kernels.linalg.shared_gram import (
    clipped_lstsq_groups,
    descend,
    descend_groups,
    unit_inverses,
)
from dask_nmf.kernels.products.stacked import Multiplied, known_product, right_products
from dask_nmf.kernels.row_sums import CACHED_ROWS, float64_gram
from dask_nmf.types import Array, Block

SWEEPS = 500
MOST_SWEEPS = 40 * SWEEPS  # for a pass that needs a close solution: similar components converge slowly
RIDGE = 1e-13  # added to the unit diagonal in a guess: with less, the rounding of products would be magnified
NEAR, NEAR_SWEEPS = 0.1, 20  # tolerance and sweeps of the descent before an exact solution
CLOSE = 1e-6  # tolerance of a descent that ends at the rounding of float32, if components are well apart
WELL_APART = 0.1  # least pivot of normal equations whose components are well apart
DOUBTFUL = 1e-3  # a pivot below which normal equations cost digits that an answer needs


def row_weight(v: Block) -> Array:
    """Return how many entries of each row count, or the sum of their weights, (r,), float64."""
    v, _ = known_product(v)
    return v.row_weight if isinstance(v, Cells | HoledBlock) else np.full(v.shape[0], float(v.shape[1]))


def row_norms(x: Array) -> tuple[Array, Array]:
    """Return ‖x_i‖² and Σ_t x_it of each row, (rows,), float64."""
    return np.einsum("ij,ij->i", x, x, dtype=np.float64), x.sum(axis=1, dtype=np.float64)


def normal_equations(v: Block, h: Array, alpha: float = 0.0) -> tuple[Array, Gram]:
    """Return the normal equations for W of a block given H: V Hᵀ, (r, k), and gram matrices H Hᵀ.

    ``alpha`` is the L2 penalty of w for each entry of V that counts.
    """
    v, num = known_product(v, h)
    if isinstance(v, Cells):
        num, gram = masked.normal_equations(v, h.T)
        return num.astype(h.dtype), add_ridge(gram, len(h), alpha * v.row_weight)
    if isinstance(v, HoledBlock):
        num = v.product(h) if num is None else num
        return num, add_ridge(v.gram_of(h), len(h), alpha * v.row_weight)
    num = scaling.matmul(v, h.T) if num is None else num
    return num, add_ridge(h @ h.T, len(h), alpha * h.shape[1])


def with_right_products(blocks: Sequence[Block], factors: Sequence[Array]) -> list[Block]:
    """Return the block of each model with its V Hᵀ, which models share walks over V for.

    Parameters
    ----------
    blocks : V, dense, CSR or a `HoledBlock`, for each model the same one.
    factors : H, (k, n), of each model.
    """
    v = blocks[0]
    if isinstance(v, HoledBlock) and v.knows_product:
        return list(blocks)
    found = right_products(v.block if isinstance(v, HoledBlock) else v, factors)
    return [Multiplied(*parts) for parts in zip(blocks, factors, found, strict=True)]


def refit(start: Array, num: Array, gram: Gram, tol: float, sweeps: int = SWEEPS) -> Array:
    """Solve ``min_{x ≥ 0} ½⟨x G, x⟩ − ⟨num, x⟩`` for every row of x by cyclic coordinate descent.

    NMF is symmetric, so this serves both sides: W with (VHᵀ, HHᵀ), and Hᵀ with ((WᵀV)ᵀ, WᵀW).

    Parameters
    ----------
    start, num : (rows, k), same float dtype. ``start`` must be ≥ 0; it is not changed.
    gram : (k, k), symmetric positive semidefinite, or that of each row, or of groups. A component with
        ``gram[t, t] = 0`` is left alone.
    tol : a row is done when a sweep moves it less than ``tol`` times its first sweep, in the norm that
        weighs component t by ``gram[t, t]``, or less than rounding. Each row stops by itself, so the
        answer for a row does not depend on its neighbours.
    sweeps : most sweeps a row gets.

    Source: HALS, Cichocki & Phan 2009; repeated sweeps on fixed products, Gillis & Glineur 2012.
    """
    if isinstance(gram, GroupedGram):
        return descend_groups(start, num, gram, tol, sweeps)
    if not is_shared_gram(gram, start.shape[1]):
        return packed_grams.descend(start, num, gram, tol, sweeps)
    x = np.array(start, order="C")
    descend(
        x,
        np.ascontiguousarray(num, dtype=x.dtype),
        np.ascontiguousarray(gram, dtype=x.dtype),
        x.dtype.type(tol),
        sweeps,
    )
    return x


def clipped_lstsq(num: Array, gram: Gram) -> Array:
    """Return the least-squares solution of ``x gram = num`` clipped at zero, a start for `refit`.

    Components are scaled to a diagonal of 1, to which a ridge of the size of rounding is added.
    """
    trifle = max(RIDGE, float(np.finfo(num.dtype).eps))
    if isinstance(gram, GroupedGram):
        return clipped_lstsq_groups(num, gram, trifle)
    if not is_shared_gram(gram, num.shape[1]):
        return packed_grams.clipped_lstsq(num, gram, trifle)
    inverse, scale = unit_inverses(gram.astype(np.float64), trifle)
    narrow = scale.astype(num.dtype)
    x = (num * narrow) @ inverse.astype(num.dtype)
    x *= narrow
    return np.asarray(np.maximum(x, 0, out=x))


def solve(num: Array, gram: Gram, tol: float, sweeps: int = SWEEPS) -> Array:
    """Return the solution of `refit` from the start of `clipped_lstsq`."""
    return refit(clipped_lstsq(num, gram), num, gram, tol, sweeps)


def solve_w(
    v: Block, h: Array, tol: float, alpha: float = 0.0, lasso: float = 0.0, sweeps: int = SWEEPS
) -> Array:
    """Return W of a block given H, (r, k), over the entries that count.

    It is ``argmin_{w ≥ 0} ‖v − w h‖² + alpha Σ ‖w‖² + 2 lasso Σ |w|``, with both penalties for each entry
    of V that counts; ``tol`` and ``sweeps`` are those of `refit`.
    """
    if isinstance(v, Cells) and v.separable:
        return solve(*_even_equations(v, h, alpha, lasso), tol, sweeps)
    num, gram = normal_equations(v, h, alpha)
    if lasso:
        num = (num - lasso * row_weight(v)[:, None]).astype(num.dtype)
    return solve(num, gram, tol, sweeps)


def _even_equations(v: Cells, h: Array, alpha: float, lasso: float) -> tuple[Array, Array]:
    """Return normal equations with one gram matrix for all rows: the weight of each row cancels."""
    mass = float(v.by_column.sum())
    num, gram = masked.separable_equations(v, h.T)
    return (num - lasso * mass).astype(h.dtype), add_ridge(gram, len(h), alpha * mass)


def solve_exactly(num: Array, gram: Gram) -> Array:
    """Return the solution that `solve` approximates, (rows, k).

    It is as exact as normal equations and the dtype of ``num`` allow.
    """
    if isinstance(gram, GroupedGram):
        return np.asarray(gram.solve(num, lambda rows, own: solve_exactly(num[rows], own)))
    own = not is_shared_gram(gram, num.shape[1])
    if num.dtype == np.float32 and not own and nnls.least_pivot(gram) >= WELL_APART:
        return solve(num, gram, CLOSE)
    x = solve(num, gram, NEAR, NEAR_SWEEPS)
    nnls.solve_equations(x, num, gram)
    return x


def qr_factor(h: Array, alpha: float = 0.0) -> PivotedQR | None:
    """Return the QR factors of hᵀ, h (k, n), or None if normal equations cost no digits.

    Normal equations square the condition of h. ``alpha`` is the L2 penalty of w for each column.
    """
    return _factor_of(h, _gram_of(h, alpha), alpha)


def _factor_of(h: Array, gram: Array, alpha: float) -> PivotedQR | None:
    if nnls.least_pivot(gram) >= DOUBTFUL:
        return None
    return householder.pivoted_qr(h, alpha * h.shape[1])


def _gram_of(h: Array, alpha: float) -> Array:
    """Return ``h hᵀ`` in float64 with the L2 penalty of w for each column, (k, k)."""
    return np.asarray(add_ridge(float64_gram(h), len(h), alpha * h.shape[1]))


def solve_by_qr(target: Array, upper: Array, lasso: float) -> Array:
    """Return the solution of `solve_exactly` from ``v basis``, (r, m), and `PivotedQR.upper`; float64."""
    x = solve(target @ upper - lasso, upper.T @ upper, NEAR, NEAR_SWEEPS)
    nnls.solve_qr(x, upper, target, lasso)
    return x


def exact_w(v: Block, h: Array, alpha: float = 0.0, lasso: float = 0.0) -> Array:
    """Return the solution that `solve_w` approximates, (r, k), exactly, from the rows of V."""
    if isinstance(v, Cells):
        return _exact_weights_of_cells(v, h, alpha, lasso)
    if isinstance(v, HoledBlock):
        return _exact_weights_by_group(v, h, alpha, lasso)
    columns, gram = h.shape[1], _gram_of(h, alpha)
    factor = _factor_of(h, gram, alpha)
    if factor is None:
        num = scaling.matmul(v, h.T)
        num -= num.dtype.type(lasso * columns)
        return solve_exactly(num, gram)
    x = np.empty((v.shape[0], len(h)), h.dtype)
    block, by = scaling.unwrap(v)
    for first in range(0, len(x), CACHED_ROWS):
        some = slice(first, first + CACHED_ROWS)
        target = scaling.multiply(_wide_product(block[some], factor.basis), by)
        x[some] = solve_by_qr(target, factor.upper, lasso * columns)
    return x


def _exact_weights_of_cells(v: Cells, h: Array, alpha: float, lasso: float) -> Array:
    """Return `exact_w` of cells; rows whose equations cost digits are solved on their cells."""
    if v.separable:
        num, gram = _even_equations(v, h, alpha, lasso)
        if nnls.least_pivot(gram) >= DOUBTFUL:
            return solve_exactly(num, gram)
    num, gram = masked.normal_equations(v, h.T)
    of_row = lasso * v.row_weight
    num -= of_row[:, None]
    gram = add_ridge(gram, len(h), alpha * v.row_weight)
    x = solve(num, gram, NEAR, NEAR_SWEEPS)
    doubtful = np.flatnonzero(nnls.solve_equations(x, num, gram) < DOUBTFUL)
    nnls.solve_cells(x, doubtful, v, h.T, alpha * v.row_weight, of_row)
    return x.astype(h.dtype)


def _exact_weights_by_group(v: HoledBlock, h: Array, alpha: float, lasso: float) -> Array:
    """Return `exact_w` of the rows of each group, which is that of rows and H without some columns."""
    num, weight = v.product(h), v.row_weight
    gram = add_ridge(v.gram_of(h), len(h), alpha * weight)
    x = np.empty_like(num)
    for rows, own in gram.parts():
        if nnls.least_pivot(own) >= DOUBTFUL:
            x[rows] = solve_exactly(num[rows] - num.dtype.type(lasso * weight[rows[0]]), own)
        else:
            x[rows] = exact_w(*v.of_group(rows, h), alpha, lasso)
    return x


def _wide_product(v: Block, basis: Array) -> Array:
    """Return ``v basis`` of a few rows, (r, m), float64."""
    if scipy.sparse.issparse(v):
        return csr_products.matmul(v, basis)
    return np.asarray(v.astype(np.float64, copy=False) @ basis)


def mu_update(x: Array, num: Array, gram: Gram, delta: float | Array, repeats: int) -> Array:
    """Return x after ``repeats`` updates ``x ← x ∘ num / (x gram + δ)`` on fixed products; 0 / 0 is 0.

    δ is one number, or one a row, (rows, 1).

    Source: Lee & Seung 2001; repeats, Gillis & Glineur 2012.
    """
    for _ in range(repeats):
        by = apply_gram(x, gram)
        by += np.asarray(delta, x.dtype)
        x = x * num.astype(x.dtype, copy=False)
        there = by > 0
        np.divide(x, by, out=x, where=there)
        x[~there] = 0
    return x
