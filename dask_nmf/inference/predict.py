"""`predict`: values of W H at some cells, without W H."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import zarr

from dask_nmf.inference import factors
from dask_nmf.inference.cells import reading, writing
from dask_nmf.inference.factors import Clip
from dask_nmf.kernels.summary.means import Means, fill_with_means
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.planning import worker_memory
from dask_nmf.runs.run import Run
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.locations import Location, check_apart
from dask_nmf.types import Array

ENTRIES = 2**20  # entries of W and of H that are gathered at once


@reject_unknown_keywords
def predict(
    W: Any,
    H: Any,
    rows: Any,
    columns: Any,
    *,
    means: Means | None = None,
    clip: Clip | None = None,
    row_names: Any = None,
    column_names: Any = None,
) -> Array:
    """Return the values of W H at some cells, (len(rows),), without computing W H.

    The smaller factor is read into memory. The chunks of the other one that are needed are read once.

    Parameters
    ----------
    W : (m, k), whatever `open_matrix` takes.
    H : (k, n), whatever `open_matrix` takes.
    rows, columns : the cells: integers, counted from 0, or names as text if these are given.
    means : `Result.means` of the fit. If nothing of a row was observed, the value is the mean of the column.
        If nothing of a column was observed, it is the mean of the row, and if both, that of all entries.
        Without means W H is 0 there, and a warning says so.
    clip : (low, high): values outside are set to the nearer bound.
    row_names, column_names : the names of all rows (m,) and columns (n,), such as ``Run.load_result(run)``
        has. They are needed where ``rows`` or ``columns`` are text.

    Returns
    -------
    The values, (len(rows),), in the order of the cells.

    Raises
    ------
    IndexError
        If a cell is outside of W H; the error names the first one.
    ValueError
        If no or several rows have a name; if the shapes do not fit, or ``rows`` and ``columns`` are neither
        integers nor names, one of each for a cell.

    Examples
    --------
    >>> from dask_nmf import predict
    >>> predict([[1.0], [2.0]], [[3.0, 4.0]], rows=[0, 1], columns=[1, 0])
    array([4., 6.])
    """
    W, H = factors.open_factors(W, H)
    factors.validate(W, H, means, clip)
    rows = factors.find_names(rows, row_names, "row", W.shape[0])
    columns = factors.find_names(columns, column_names, "column", H.shape[1])
    cells = _cells(rows, columns, factors.product_shape(W, H))
    predicted = _predict(W, H, cells, means, clip)
    if means is None and predicted.unknown.any():
        first = int(predicted.unknown.argmax())
        warnings.warn(
            f"W or H is 0 throughout for {predicted.unknown.sum()} of {len(predicted.unknown)} cells, "
            f"first for row {cells[0][first]}, column {cells[1][first]}, and the value is 0; if nothing was "
            "observed there, give the means of the fit, as means=result.means",
            stacklevel=3,  # `predict`, its check of keywords, the caller
        )
    return predicted.values


def predict_to(
    run: Location, pairs: Path, output: LocalLocation, overwrite: bool, clip: Clip | None = None
) -> int:
    """Write values of W H of a run, at the cells of a CSV file, as a CSV file that appears when it is whole.

    Returns
    -------
    The number of cells.

    Raises
    ------
    DataError
        If a line of ``pairs`` has no cell of W H; the error names the first one.
    FileExistsError
        If there is an output already that may not be overwritten or is not of this kind.
    """
    result = Run.load_result(run)
    check_apart(output, run=run)
    (W, H), means, labels = result.factors, result.means, result.labels
    factors.validate(W, H, means, clip)
    W, H = _read_smaller(W, H)
    count = 0
    with writing.create(output, overwrite, means is not None) as file:
        for cells in reading.read_cells(pairs, factors.product_shape(W, H), labels):
            values, sources, _ = _predict(W, H, cells, means, clip)
            rows, columns = map(writing.named, (labels.rows, labels.columns), cells)
            writing.write(file, rows, columns, values, sources)
            count += len(values)
    return count


def _cells(rows: Any, columns: Any, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return numbers of rows and columns as int64; refuse those that are no cells of W H."""
    i, j = factors.as_indices(rows, "rows"), factors.as_indices(columns, "columns")
    if i.ndim != 1 or i.shape != j.shape or any(x.dtype.kind not in "iu" and x.size for x in (i, j)):
        raise ValueError(
            f"rows are {i.dtype} of shape {i.shape} and columns {j.dtype} of shape {j.shape}; give integers, "
            "one of each for a cell"
        )
    outside = (i < 0) | (i >= shape[0]) | (j < 0) | (j >= shape[1])
    if outside.any():
        first = int(outside.argmax())
        raise IndexError(f"cell {first}: {reading.describe_outside((int(i[first]), int(j[first])), shape)}")
    return i.astype(np.int64, copy=False), j.astype(np.int64, copy=False)


def _read_smaller(W: Any, H: Any) -> tuple[Any, Any]:
    """Return both factors, the smaller one in memory."""
    if W.shape[0] >= H.shape[1]:
        return W, np.asarray(factors.read_whole(H), order="F")  # each column is contiguous
    return np.asarray(factors.read_whole(W), order="C"), H


def _step(factor: Any, axis: int) -> int:
    """Return the rows of W (axis 0) or columns of H (1) that are read at once: whole chunks of some MiB."""
    cut = 1
    if isinstance(factor, da.Array):
        cut = int(factor.chunksize[axis])
    elif isinstance(factor, zarr.Array):
        cut = (factor.shards or factor.chunks)[axis]
    row: int = factor.shape[1 - axis] * factor.dtype.itemsize
    return cut * max(1, worker_memory.IN_FLIGHT // (cut * row))


class Predicted(NamedTuple):
    """Values of W H at some cells."""

    values: Array
    sources: Array | None  # the source of each value, as a number in `means.SOURCES`, if there are means
    unknown: Array  # whether the row of W or the column of H is 0 throughout


def _predict(W: Any, H: Any, cells: tuple[Array, Array], means: Means | None, clip: Clip | None) -> Predicted:
    W, H = _read_smaller(W, H)
    if W.shape[0] >= H.shape[1]:
        values, unknown = _gather_products(ZarrFactor(W), _step(W, 0), H.T, *cells)
    else:
        values, unknown = _gather_products(ZarrFactor(H, transposed=True), _step(H, 1), W, *cells[::-1])
    sources = None
    if means is not None:
        row_means = factors.means_at(means.rows, cells[0])
        column_means = factors.means_at(means.columns, cells[1])
        values, sources = fill_with_means(values, row_means, column_means, means.overall)
    return Predicted(factors.clip_values(values, clip), sources, unknown)


def _gather_products(stored: ZarrFactor, step: int, whole: Array, i: Array, j: Array) -> tuple[Array, Array]:
    """Return the products of rows i of one factor and rows j of the other, and whether either row is 0.

    Parameters
    ----------
    stored : the factor of which ``step`` rows are read at once.
    whole : the factor in memory.
    """
    dtype = factors.product_dtype(stored.array, whole)
    values, unknown = np.empty(len(i), dtype), np.zeros(len(i), bool)
    block = i // step
    order = np.argsort(block, kind="stable")
    some = max(1, ENTRIES // whole.shape[1])
    for cells in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(cells):
            first = int(i[cells].min())
            w = stored.read(first, int(i[cells].max()) + 1)
            for at in (cells[k : k + some] for k in range(0, len(cells), some)):
                values[at] = np.einsum("ij,ij->i", w[i[at] - first], whole[j[at]], dtype=dtype)
                zero = at[values[at] == 0]
                unknown[zero] = ~(w[i[zero] - first].any(axis=1) & whole[j[zero]].any(axis=1))
    return values, unknown
