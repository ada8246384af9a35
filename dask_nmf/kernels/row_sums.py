"""Sums over the rows of a block, from which H is updated: WᵀV, WᵀW, residuals and norms, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.kernels.blocks import masked, scaling
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.holes.held_entries import HeldEntries
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg import csr_products
from dask_nmf.kernels.linalg.gram_matrices import apply_gram, is_shared_gram
from dask_nmf.kernels.products.stacked import Multiplied, known_product, left_products
from dask_nmf.types import Array, Block

CACHED_ROWS = 64  # rows of V − W H, or of V in float64, at once: they stay in a cache until they are used

STRIP_COLUMNS = 8192  # columns of a factor converted to float64 at once


class Sums(NamedTuple):
    """Sums over some rows of V, from which H is updated. They add over rows."""

    num: Array  # WᵀV, (k, n); for a multiplicative update of another loss, its numerators
    gram: Any  # WᵀW: a `Gram`, one for all columns, a column or a group; or denominators, (k, n) or (k, 1)
    residual: float  # ‖V − W H‖² or twice the divergence; NaN if it was not computed
    column_weight: float | Array = 0.0  # rows that count; for each column, (n,), where they differ
    held_out_loss: float = 0.0  # the residual of the cells held out
    held_out_weight: float = 0.0  # the number of cells held out
    w_sq_norm: float | Array = 0.0  # Σ_i of w_it² times the entries of row i that count, (k,)
    w_l1_norm: float | Array = 0.0  # Σ_i of w_it times the entries of row i that count, (k,)
    w_sum: float | Array = 0.0  # Σ w_i, (k,), for a divergence where every entry counts
    column_totals: float | Array = (
        0.0  # (2, n): Σ v of each column and how much counts, where means are needed
    )
    residuals: Any = 0.0  # the `ResidualSums` of the last read; 0 if they are not taken

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        parts: Any = (mine + theirs for mine, theirs in zip(self, other, strict=True))
        return Sums(*parts)

    def scaled(self, share: float) -> Sums:
        """Return the sums times ``share``."""
        parts: Any = (part * share for part in self)
        return Sums(*parts)


def component_norms(x: Array, mass: float | Array) -> tuple[Array, Array]:
    """Return Σ x_it² and Σ x_it of each column of x (rows, k), float64; rows count ``mass`` times."""
    if np.ndim(mass) == 0:
        squares = np.einsum("ij,ij->j", x, x, dtype=np.float64)
        return mass * squares, mass * x.sum(axis=0, dtype=np.float64)
    weighed = np.reshape(mass, (-1, 1)) * x.astype(np.float64, copy=False)
    return np.einsum("ij,ij->j", weighed, x, dtype=np.float64), weighed.sum(axis=0)


def float64_gram(h: Array) -> Array:
    """Return ``h hᵀ`` in float64, (k, k), from some columns at a time."""
    k, columns = h.shape
    total = np.zeros((k, k))
    for first in range(0, columns, STRIP_COLUMNS):
        wide = h[:, first : first + STRIP_COLUMNS].astype(np.float64, copy=False)
        total += wide @ wide.T
    return total


def block_sums(v: Block, w: Array, h: Array | None = None) -> Sums:
    """Return the sums of a block from which H is updated.

    Parameters
    ----------
    v : (r, n), with WᵀV if that is known.
    w : (r, k).
    h : (k, n), if the residual is to be computed too.
    """
    v, num = known_product(v, w)
    if isinstance(v, Cells):
        columns = v.transpose()
        num, gram = masked.normal_equations(columns, w)
        return Sums(num.T, gram, np.nan if h is None else residual(v, w, h), columns.row_weight)
    if isinstance(v, HoledBlock):
        rest = np.nan if h is None else residual(v, w, h)
        num = left_products(v.block, [w])[0] if num is None else num
        return Sums(num, v.gram_of_columns(w), rest, v.groups.column_weight)
    gram = float64_gram(w.T)
    block, by = scaling.unwrap(v)
    if scipy.sparse.issparse(block) and h is not None:
        num, rest = csr_products.transposed_product(block, _unscaled(w, by), h)
        rest = rest * by * by + float(np.vdot(gram, float64_gram(h)))
        return Sums(num.T * by * by, gram, rest, float(len(w)))
    num = left_products(v, [w])[0] if num is None else num
    return Sums(num, gram, np.nan if h is None else residual(v, w, h), float(len(w)))


def with_left_products(blocks: Sequence[Block], factors: Sequence[Array], exact: bool) -> list[Block]:
    """Return the block of each model with its WᵀV, which models share walks over V for; see `block_sums`.

    Parameters
    ----------
    blocks : V, dense, CSR or a `HoledBlock`, for each model the same one.
    factors : W, (r, k), of each model.
    exact : whether `block_sums` is to compute residuals too: those of a CSR block come with WᵀV.
    """
    v = known_product(blocks[0])[0]
    plain = v.block if isinstance(v, HoledBlock) else v
    if exact and plain is v and scipy.sparse.issparse(scaling.unwrap(v)[0]):
        return list(blocks)
    products = zip(blocks, factors, left_products(plain, factors), strict=True)
    return [Multiplied(known_product(block)[0], w, num) for block, w, num in products]


def _unscaled(w: Array, by: float) -> Array:
    """Return W / ``by``, to be compared with V before it is multiplied by ``by``; float64 if ``by`` ≠ 1."""
    return w if by == 1 else scaling.multiply(w.astype(np.float64, copy=False), 1 / by)


def residual(v: Block, w: Array, h: Array) -> float:
    """Return ‖v − w h‖² in float64, over the cells that count.

    For a dense block it is computed entry by entry, so that nothing cancels. A CSR block is never made dense:
    its residual is expanded, which holds down to a relative error of 1e-7.
    """
    if isinstance(v, Cells):
        return masked.residual(v, w, h)
    if isinstance(v, HeldEntries):
        return v.squared_error(w, h)
    if isinstance(v, HoledBlock):
        return _residual_of_holed(v, w, h)
    v, by = scaling.unwrap(v)
    if scipy.sparse.issparse(v):
        cross = csr_products.residual_cross_terms(v, _unscaled(w, by), h) * by * by
        return cross + float(np.vdot(float64_gram(w.T), float64_gram(h)))
    return _residual_of_dense(v, by, w, h)


def _residual_of_dense(
    v: Array, by: float, w: Array, h: Array, clear: Callable[[slice, Array], None] | None = None
) -> float:
    """Return the `residual` of a dense block times ``by``.

    ``clear`` is called with rows and V − W H, (rows, n), and sets what does not count to zero.
    """
    total, close = 0.0, scaling.squares_fit(by, v.dtype)
    w, by_strip = (scaling.multiply(w, 1 / by), 1.0) if close else (w, by)
    room = np.empty((min(CACHED_ROWS, len(w)), h.shape[1]), np.result_type(w, h))
    for first in range(0, len(w), CACHED_ROWS):
        some = slice(first, min(first + CACHED_ROWS, len(w)))
        rest = np.matmul(w[some], h, out=room[: some.stop - first])
        np.subtract(scaling.multiply(v[some], by_strip), rest, out=rest)
        if clear is not None:
            clear(some, rest)
        total += sum_of_squares(rest)
    return total * by * by if close else total


def _residual_of_holed(v: HoledBlock, w: Array, h: Array) -> float:
    """Return the `residual` of a block without the entries held out."""
    if v.dense is not None:
        return _residual_of_dense(v.dense.v, v.dense.scale, w, h, v.dense.clear)
    wide = w.astype(np.float64, copy=False)
    model = float(np.vdot(apply_gram(wide, v.gram_of(h)), wide))
    return csr_products.residual_cross_terms(v.block, w, h) + model


def sum_of_squares(x: Array) -> float:
    """Return Σ x², added up in float64."""
    return float(_squares(np.ascontiguousarray(x).reshape(-1)))


@compiled(fastmath={"contract", "reassoc"})
def _squares(x: Array) -> float:
    total = 0.0
    for i in range(len(x)):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


def expanded_loss(sumsq: float, totals: Sums, h: Array) -> float:
    """Return ‖V − W H‖² from sums alone: ``‖V‖² − 2⟨WᵀV, H⟩ + ⟨WᵀW, HHᵀ⟩``, in float64.

    Its terms cancel: below a relative error of about 0.01 (float32 blocks) trust `residual` instead.
    ``sumsq`` is ‖V‖².
    """
    wide = h.astype(np.float64, copy=False)
    if is_shared_gram(totals.gram, len(h)):
        square = np.vdot(totals.gram, wide @ wide.T)
    else:
        square = np.vdot(apply_gram(wide.T, totals.gram), wide.T)
    return float(sumsq - 2 * np.vdot(totals.num, wide) + square)


NOTHING = np.zeros(0)
