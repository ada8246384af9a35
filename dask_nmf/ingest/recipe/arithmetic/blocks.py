"""Arithmetic on a block of rows, dense or CSR: scaled rows and columns, chosen columns, sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError
from dask_nmf.types import Array, Block


def row_cuts(block: Block, entries: int) -> list[int]:
    """Return the rows at which to cut a block into parts of some entries each, with 0 and the last."""
    rows = block.shape[0]
    if not scipy.sparse.issparse(block):
        return [*range(0, rows, max(1, entries // block.shape[1])), rows]
    cuts = [0]
    while cuts[-1] < rows:
        following = int(np.searchsorted(block.indptr, block.indptr[cuts[-1]] + entries, side="right")) - 1
        cuts.append(min(max(following, cuts[-1] + 1), rows))
    return cuts


def rows_of_entries(block: scipy.sparse.csr_array) -> Array:
    """Return the row of each stored entry."""
    return np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))


def row_sums(block: Block, power: int = 1) -> Array:
    """Return the sums of rows, or of their squares, in double precision; a missing value counts 0."""
    if scipy.sparse.issparse(block):
        values = np.nan_to_num(block.data.astype(np.float64)) ** power
        return np.bincount(rows_of_entries(block), values, block.shape[0])
    values = block if power == 1 else np.square(block)
    return np.asarray(np.nansum(values, axis=1, dtype=np.float64))


def scale_rows(block: Block, factors: Array) -> Block:
    """Return a block whose rows are multiplied by factors, in double precision; refuse infinite results."""
    if scipy.sparse.issparse(block):
        return _with_values(block, _scaled(block.data, np.repeat(factors, np.diff(block.indptr))))
    return _scaled(block, factors[:, None])


def scale_columns(block: Block, factors: Array) -> Block:
    """Return a block whose columns are multiplied by factors; refuse infinite results."""
    if scipy.sparse.issparse(block):
        return _with_values(block, _scaled(block.data, factors[block.indices]))
    return _scaled(block, factors)


def _scaled(values: Array, factors: Array) -> Array:
    """Return products in the dtype of the values.

    Raises
    ------
    DataError
        If one is infinite, or 0 times an infinite factor; a value that is missing stays so.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values * factors).astype(values.dtype, copy=False)
    total = np.abs(scaled).max(initial=0)
    if not np.isfinite(total) and not np.isfinite(scaled[~np.isnan(values)]).all():
        raise DataError(
            f"the steps make values that {values.dtype} cannot hold: factors up to {np.max(factors):.3g}; "
            "multiply the values of the source by a number first, or choose --dtype float64"
        )
    return scaled


def map_values(block: Block, function: Callable[[Array], Array]) -> Block:
    """Return a block with a function of its values, for which 0 must stay 0."""
    if scipy.sparse.issparse(block):
        return _with_values(block, function(block.data))
    return function(block)


def take_columns(block: Block, places: Array, width: int) -> Block:
    """Return some columns of a block with ``width`` columns, in this order; those at −1 of a CSR are 0."""
    if not scipy.sparse.issparse(block):
        return block[:, places]
    new = np.full(width, -1, np.int32)
    there = np.flatnonzero(places >= 0)
    new[places[there]] = there
    columns = new[block.indices]
    taken = columns >= 0
    indptr = np.concatenate([[0], np.cumsum(taken)])[block.indptr]
    parts = block.data[taken], columns[taken], indptr
    result = scipy.sparse.csr_array(parts, shape=(block.shape[0], len(places)))
    result.sort_indices()
    return result


def _with_values(block: scipy.sparse.csr_array, values: Array) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((values, block.indices, block.indptr), shape=block.shape)
