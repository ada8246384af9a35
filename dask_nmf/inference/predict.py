"""`predict`: values of W H at some cells, without W H."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import zarr

from dask_nmf.inference import csv_files, factors
from dask_nmf.inference.factors import Clip
from dask_nmf.kernels.summary.means import Means, filled
from dask_nmf.keywords import reject_unknown_keywords
from dask_nmf.planning import row_panels
from dask_nmf.runs.run import Run
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import absolute, check_apart
from dask_nmf.types import Array

ENTRIES = 2**20  # of W and of H that are gathered for pairs at once


@reject_unknown_keywords
def predict(
    W: Any, H: Any, rows: Any, columns: Any, *, means: Means | None = None, clip: Clip | None = None
) -> Array:
    """Values of W H at some cells, without W H: (len(rows),).

    The smaller factor is in memory; of the other one what is needed is read, once, some chunks at a time.

    Parameters
    ----------
    W : (m, k), whatever `open_matrix` takes.
    H : (k, n), likewise.
    rows, columns : of the cells: integers, counted from 0.
    means : `Result.means` of the fit. Where nothing of a row was observed the value is the mean of the
        column, where nothing of the column was, that of the row, and where nothing of either was, that of
        everything. Without them W H is 0 there, and a warning says so.
    clip : (low, high): values outside are set to the nearer of the two.

    Raises
    ------
    IndexError
        With the first cell that is outside of W H.
    ValueError
        If the shapes do not fit, or ``rows`` and ``columns`` are no integers, one of each for a cell.
    """
    W, H = factors.opened(W, H)
    factors.check(W, H, means, clip)
    cells = _cells(rows, columns, factors.shape_of(W, H))
    found = _predict(W, H, cells, means, clip)
    if means is None and found.unknown.any():
        first = int(found.unknown.argmax())
        warnings.warn(
            f"W or H is 0 throughout for {found.unknown.sum()} of {len(found.unknown)} cells, first for row "
            f"{cells[0][first]}, column {cells[1][first]}, and the value is 0; if nothing was observed "
            "there, give the means of the fit, as means=result.means",
            stacklevel=3,  # predict, its check of keywords, the caller
        )
    return found.values


def predict_to(run: str, pairs: str, output: str, overwrite: bool, clip: Clip | None = None) -> int:
    """Values of W H of a run at the cells of a CSV file, into another, which appears only when it is whole.

    Returns
    -------
    The number of cells.

    Raises
    ------
    DataError
        With the first line of ``pairs`` that has no cell of W H.
    FileExistsError
        If there is an output already, and it may not be overwritten, or is not of this kind.
    """
    found = Run.load_result(absolute(run))
    check_apart(output, run=absolute(run))
    (W, H), means = found.factors, found.means
    factors.check(W, H, means, clip)
    W, H = _hold_smaller(W, H)
    done = 0
    with csv_files.new(output, overwrite, means is not None) as file:
        for cells in csv_files.read_cells(pairs, factors.shape_of(W, H)):
            values, sources, _ = _predict(W, H, cells, means, clip)
            csv_files.write(file, *cells, values, sources)
            done += len(values)
    return done


def _cells(rows: Any, columns: Any, shape: tuple[int, int]) -> tuple[Array, Array]:
    i, j = factors.numbers(rows, "rows"), factors.numbers(columns, "columns")
    if i.ndim != 1 or i.shape != j.shape or any(x.dtype.kind not in "iu" and x.size for x in (i, j)):
        raise ValueError(
            f"rows are {i.dtype} of shape {i.shape} and columns {j.dtype} of shape {j.shape}; give integers, "
            "one of each for a cell"
        )
    outside = (i < 0) | (i >= shape[0]) | (j < 0) | (j >= shape[1])
    if outside.any():
        first = int(outside.argmax())
        raise IndexError(f"cell {first}: {csv_files.outside((int(i[first]), int(j[first])), shape)}")
    return i.astype(np.int64, copy=False), j.astype(np.int64, copy=False)


def _hold_smaller(W: Any, H: Any) -> tuple[Any, Any]:
    """Both factors, the smaller one in memory."""
    if W.shape[0] >= H.shape[1]:
        return W, np.asarray(factors.in_memory(H), order="F")  # what a cell needs of it is in one piece
    return np.asarray(factors.in_memory(W), order="C"), H


def _step(factor: Any, axis: int) -> int:
    """Rows of W (axis 0) or columns of H (1) that are read at once: whole chunks, some MiB."""
    cut = 1
    if isinstance(factor, da.Array):
        cut = int(factor.chunksize[axis])
    elif isinstance(factor, zarr.Array):
        cut = (factor.shards or factor.chunks)[axis]
    row: int = factor.shape[1 - axis] * factor.dtype.itemsize
    return cut * max(1, row_panels.IN_FLIGHT // (cut * row))


class Predicted(NamedTuple):
    """Values of W H at some cells."""

    values: Array
    sources: Array | None  # where each comes from (see `means.SOURCES`), if there are means
    unknown: Array  # for which the row of W, or the column of H, is 0 throughout


def _predict(W: Any, H: Any, cells: tuple[Array, Array], means: Means | None, clip: Clip | None) -> Predicted:
    W, H = _hold_smaller(W, H)
    if W.shape[0] >= H.shape[1]:
        values, unknown = _look_up(ZarrFactor(W), _step(W, 0), H.T, *cells)
    else:
        values, unknown = _look_up(ZarrFactor(H, transposed=True), _step(H, 1), W, *cells[::-1])
    sources = None
    if means is not None:
        of_rows, of_columns = (
            factors.means_at(means.rows, cells[0]),
            factors.means_at(means.columns, cells[1]),
        )
        values, sources = filled(values, of_rows, of_columns, means.overall)
    return Predicted(factors.clipped(values, clip), sources, unknown)


def _look_up(read: ZarrFactor, step: int, held: Array, i: Array, j: Array) -> tuple[Array, Array]:
    """The products of rows i of one factor, ``step`` of them read at once, and rows j of the held one.

    Beside them stands for which of the cells either row is 0 throughout.
    """
    dtype = factors.dtype_of(read.array, held)
    values, unknown = np.empty(len(i), dtype), np.zeros(len(i), bool)
    block = i // step
    order = np.argsort(block, kind="stable")
    some = max(1, ENTRIES // held.shape[1])
    for cells in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(cells):
            first = int(i[cells].min())
            w = read.read(first, int(i[cells].max()) + 1)
            for at in (cells[k : k + some] for k in range(0, len(cells), some)):
                values[at] = np.einsum("ij,ij->i", w[i[at] - first], held[j[at]], dtype=dtype)
                zero = at[values[at] == 0]
                unknown[zero] = ~(w[i[zero] - first].any(axis=1) & held[j[zero]].any(axis=1))
    return values, unknown
