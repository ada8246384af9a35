"""Batches of rows of a masked block, so that its cells are never all in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.errors import DataError
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import EMPTY, Cells, all_cells, stored_cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array, Block

STRIP_CELLS = 512 * 1024  # entries that are processed at once


class RowBatch(NamedTuple):
    """Some rows of a block, with their cells that count and those that are held out."""

    rows: slice
    cells: Cells  # the cells that count
    held_out: Cells  # the cells that are held out


def iter_row_batches(block: MaskedBlock, even: bool = False) -> Iterator[RowBatch]:
    """Yield a block in batches of rows.

    With ``even``, the number of rows in a batch depends on the shape of the block alone.
    """
    rows, columns = block.shape
    by_entry = scipy.sparse.issparse(block.v) and block.mask.lists_stored and block.weights is None
    each = max(block.v.nnz / max(rows, 1), 1) if by_entry and not even else columns
    step = int(max(1, STRIP_CELLS / each))
    for first in range(0, rows, step):
        chosen = slice(first, min(first + step, rows))
        yield _strip(block[chosen], chosen, by_entry)


def _strip(part: MaskedBlock, rows: slice, by_entry: bool) -> RowBatch:
    found = _stored(part) if by_entry else _filled(part)
    values = scaling.multiply(found.values, part.scale)
    found = found._replace(values=_writable(values), weights=_writable(found.weights))
    if part.row_weights is not None:
        emphasis = np.repeat(part.row_weights, np.diff(found.indptr))
        weights = found.weights * emphasis if len(found.weights) else emphasis
        by_row = part.row_weights * found.by_row if found.separable else found.by_row
        found = found._replace(weights=weights.astype(found.values.dtype), by_row=by_row)
    if part.mask.held_out == 0:
        none = found._replace(
            values=found.values[:0],
            weights=found.weights[:0],
            indices=found.indices[:0],
            indptr=np.zeros_like(found.indptr),
            implicit_zeros=False,
            by_row=EMPTY,
            by_column=EMPTY,
        )
        return RowBatch(rows, found, none)
    return RowBatch(rows, *split_held_out(part, found))


def _writable(numbers: Array) -> Array:
    """Return an array that may be written, because functions are compiled once more for one that may not."""
    return np.require(numbers, requirements="W")


def split_held_out(part: MaskedBlock, found: Cells) -> tuple[Cells, Cells]:
    """Return the cells of a block that are not held out, and those that are."""
    groups = part.groups
    kept, held = parted(found, *groups.of_cells(found.indices, found.indptr))
    if not found.implicit_zeros:
        return kept, held
    return (
        kept._replace(implicit_zeros=True, groups=groups),
        held._replace(implicit_zeros=True, groups=groups.complement()),
    )


def parted(cells: Cells, first: NDArray[np.bool_], edges: NDArray[np.int64]) -> tuple[Cells, Cells]:
    """Return the cells for which ``first``, (cells,), is true, and the others.

    ``edges``, (rows + 1,), are those of the rows among the first ones.
    """
    values, indices = (_split(numbers, first, edges[-1]) for numbers in (cells.values, cells.indices))
    weights = _split(cells.weights, first, edges[-1]) if len(cells.weights) else (cells.weights,) * 2
    parts = zip(values, weights, indices, (edges, cells.indptr - edges), strict=True)
    one, other = (Cells(*part, cells.columns) for part in parts)
    return one, other


def _split(numbers: Array, first: NDArray[np.bool_], size: int) -> tuple[Array, Array]:
    """Return the numbers for which ``first`` is true, ``size`` of them, and the others."""
    parts = np.empty(size, numbers.dtype), np.empty(len(numbers) - size, numbers.dtype)
    _copy_parts(numbers, first, *parts)
    return parts


@compiled()
def _copy_parts(numbers: Array, first: Array, one: Array, other: Array) -> None:
    at = 0
    for p in range(len(numbers)):
        if first[p]:
            one[at] = numbers[p]
            at += 1
        else:
            other[p - at] = numbers[p]


def _stored(part: MaskedBlock) -> Cells:
    """Return the stored entries of a CSR block."""
    v = part.v
    if not v.has_canonical_format:
        v = v.copy()
        v.sum_duplicates()
    return stored_cells(v, part.mask.implicit_zeros)


def _filled(part: MaskedBlock) -> Cells:
    """Return the entries of a block that count, found by checking all of them."""
    counts = _counting(part.v, part.mask.missing)
    v = part.v.toarray() if scipy.sparse.issparse(part.v) else part.v
    weights = part.weights
    if weights is not None and scipy.sparse.issparse(weights):
        weights = weights.toarray()
    if weights is not None:
        _check_weights(weights, part)
        counts &= weights > 0
    if part.mask.implicit_zeros:
        counts &= v != 0
    if counts.all():
        return _full(v, weights, part.mask)
    indptr = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    indices = np.nonzero(counts)[1].astype(np.int32)
    weights = v[:0, 0] if weights is None else weights[counts]
    return Cells(v[counts], weights, indices, indptr, v.shape[1], part.mask.implicit_zeros)


def _full(v: Array, weights: Array | None, rule: EntryMask) -> Cells:
    """Return all entries of a block, with separable weights if the loss is the squared error."""
    beside = v[:0, 0] if weights is None else weights.reshape(-1)
    found = all_cells(v.reshape(-1), beside, v.shape)._replace(implicit_zeros=rule.implicit_zeros)
    parts = None
    if rule.beta == 2:
        parts = (np.ones(len(v)), np.ones(v.shape[1])) if weights is None else _separated(weights)
    return found if parts is None else found._replace(by_row=parts[0], by_column=parts[1])


def _separated(weights: Array) -> tuple[Array, Array] | None:
    """Return weights of rows and columns whose products are ``weights``, or None if there are none."""
    by_row = weights[:, 0].astype(np.float64)
    by_column = weights[0] / by_row[0]
    rounding = 4 * float(np.finfo(weights.dtype).eps)
    for some in slice(-1, None), slice(None):
        product = by_row[some, None] * by_column
        if np.any(np.abs(weights[some] - product) > rounding * product):
            return None
    return by_row, by_column


def _counting(v: Block, missing: str | None) -> NDArray[np.bool_]:
    """Return a mask of the entries that are not missing, (r, n)."""
    if missing == "unstored":
        if not scipy.sparse.issparse(v):
            raise DataError("missing is 'unstored' and V is dense; give a sparse V, or missing='nan'")
        pattern = scipy.sparse.csr_array((np.ones_like(v.data, bool), v.indices, v.indptr), shape=v.shape)
        return np.asarray(pattern.toarray())
    if missing == "nan":
        return np.asarray(~np.isnan(v.toarray() if scipy.sparse.issparse(v) else v))
    return np.ones(v.shape, bool)


def _check_weights(weights: Array, part: MaskedBlock) -> None:
    sound = (weights >= 0) & (weights < np.inf)
    if not sound.all():
        row, column = (int(places[0]) for places in np.nonzero(~sound))
        value = float(weights[row, column])
        row, column = part.mask.orientation.turn((int(part.rows[row]), column))
        raise DataError(
            f"weights has {value} at row {row}, column {column}; weights must be finite and ≥ 0, "
            "0 for what should not count"
        )
