"""`predict`: values of W H at some cells. `recommend`: each row's largest among the cells V does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import dask.array as da
import numpy as np
import zarr

from dask_nmf import cluster, fit, plan, tables
from dask_nmf.errors import readable
from dask_nmf.kernels import Array
from dask_nmf.keywords import checked
from dask_nmf.matrix import Matrix
from dask_nmf.opening import open_matrix
from dask_nmf.passes import heights
from dask_nmf.places import absolute, check_apart
from dask_nmf.ranking import Best, Choice
from dask_nmf.readers import DenseRows
from dask_nmf.settings import MISSING
from dask_nmf.store import CURE, Run, StoredWeights

ENTRIES = 2**20  # of W and of H that are gathered for pairs at once
LISTED = 2**22  # columns of rows that come to this process at once


@checked
def predict(W: Any, H: Any, rows: Any, columns: Any) -> Array:
    """Values of W H at some cells, without W H: (len(rows),).

    The smaller factor is in memory; of the other one what is needed is read, once, some chunks at a time.

    Parameters
    ----------
    W : (m, k), NumPy, Dask or Zarr.
    H : (k, n), likewise.
    rows, columns : of the cells: integers, counted from 0.

    Raises
    ------
    IndexError
        With the first cell that is outside of W H.
    ValueError
        If the shapes do not fit, or ``rows`` and ``columns`` are no integers, one of each for a cell.
    """
    cells = _cells(rows, columns, _shape(W, H))
    W, H = _hold_smaller(W, H)
    if W.shape[0] >= H.shape[1]:
        return _look_up(StoredWeights(W), _step(W, 0), H.T, *cells)
    return _look_up(StoredWeights(H, transposed=True), _step(H, 1), W, *cells[::-1])


@checked
def recommend(V: Any, W: Any, H: Any, count: int, missing: str | None = None) -> Best:
    """For each row of V the columns with the largest values of W H among those that V does not have.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes. Read once, panel by panel, on the active Dask client.
    W : (m, k), NumPy, Dask or Zarr.
    H : (k, n), likewise.
    count : most columns of a row.
    missing : what V does not have: "nan", what is NaN; "unstored", what a sparse V does not store. By default
        what is not positive.

    Returns
    -------
    (columns, values), both (m, count), best first, and of equal ones the first column. Where a row has fewer
    such columns they end in -1 and NaN.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `nmf`, and if the shapes or ``missing`` do not fit V.
    """
    choice = Choice(count, missing)
    found = list(_search(_open(V, W, H, choice), W, H, choice))
    return Best(*(np.concatenate(side) for side in zip(*found, strict=True)))


def predict_to(run: str, pairs: str, output: str, overwrite: bool) -> int:
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
    found = Run.load_answered(absolute(run))
    check_apart(output, run=absolute(run))
    W, H = found.factors
    W, H = _hold_smaller(W, H)
    done = 0
    with tables.new(output, overwrite) as file:
        for rows, columns in tables.read_cells(pairs, _shape(W, H)):
            tables.write(file, rows, columns, predict(W, H, rows, columns))
            done += len(rows)
    return done


def recommend_to(
    run: str,
    V: Any,
    count: int,
    output: str,
    overwrite: bool,
    connect: Callable[[Matrix], AbstractContextManager[Any]],
) -> int:
    """What `recommend` gives for the V of a run, into a CSV file, which appears only when it is whole.

    Returns
    -------
    The number of cells; `FileExistsError` as for `predict_to`.
    """
    found = Run.load_answered(absolute(run))
    W, H = found.factors
    choice = Choice(count, found.settings.missing)
    matrix = _open(V, W, H, choice)
    check_apart(output, V=matrix.source, run=absolute(run))
    first, done = 0, 0
    with tables.new(output, overwrite) as file, connect(matrix):
        for best in _search(matrix, W, H, choice):
            rows, at = np.nonzero(best.columns >= 0)
            tables.write(file, rows + first, best.columns[rows, at], best.values[rows, at])
            first += len(best.columns)
            done += len(rows)
    return done


def _shape(W: Any, H: Any) -> tuple[int, int]:
    """Return the shape of W H, of factors that fit each other and are not masked."""
    for name, factor in (("W", W), ("H", H)):
        if isinstance(getattr(factor, "_meta", factor), np.ma.MaskedArray):
            raise ValueError(f"{name} is a masked array; give its values, such as {name}.filled(0)")
    if len(W.shape) != 2 or len(H.shape) != 2 or W.shape[1] != H.shape[0]:
        raise ValueError(f"W is {W.shape} and H {H.shape}; they must be (m, k) and (k, n)")
    return int(W.shape[0]), int(H.shape[1])


def _dtype(W: Any, H: Any) -> np.dtype[Any]:
    """Of W H."""
    return np.result_type(W.dtype, H.dtype, np.float32)


def _cells(rows: Any, columns: Any, shape: tuple[int, int]) -> tuple[Array, Array]:
    i, j = np.asarray(rows), np.asarray(columns)
    if i.ndim != 1 or i.shape != j.shape or any(x.dtype.kind not in "iu" and x.size for x in (i, j)):
        raise ValueError(
            f"rows are {i.dtype} of shape {i.shape} and columns {j.dtype} of shape {j.shape}; give integers, "
            "one of each for a cell"
        )
    outside = (i < 0) | (i >= shape[0]) | (j < 0) | (j >= shape[1])
    if outside.any():
        first = int(outside.argmax())
        raise IndexError(f"cell {first}: {tables.outside((int(i[first]), int(j[first])), shape)}")
    return i.astype(np.int64, copy=False), j.astype(np.int64, copy=False)


def _hold_smaller(W: Any, H: Any) -> tuple[Any, Any]:
    """Both factors, the smaller one in memory."""
    if W.shape[0] >= H.shape[1]:
        return W, np.asarray(_whole(H), order="F")  # so that what a cell needs of it is in one piece
    return np.asarray(_whole(W), order="C"), H


def _whole(factor: Any) -> Any:
    """A factor in memory."""
    with readable(getattr(factor, "store_path", "a factor"), CURE):
        return factor[:]


def _step(factor: Any, axis: int) -> int:
    """Rows of W (axis 0) or columns of H (1) that are read at once: whole chunks, some MiB."""
    cut = 1
    if isinstance(factor, da.Array):
        cut = int(factor.chunksize[axis])
    elif isinstance(factor, zarr.Array):
        cut = (factor.shards or factor.chunks)[axis]
    row: int = factor.shape[1 - axis] * factor.dtype.itemsize
    return cut * max(1, plan.IN_FLIGHT // (cut * row))


def _look_up(read: StoredWeights, step: int, held: Array, i: Array, j: Array) -> Array:
    """The products of rows i of one factor, ``step`` of them read at once, and rows j of the held one."""
    dtype = _dtype(read.array, held)
    values = np.empty(len(i), dtype)
    block = i // step
    order = np.argsort(block, kind="stable")
    some = max(1, ENTRIES // held.shape[1])
    for cells in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(cells):
            first = int(i[cells].min())
            w = read.read(first, int(i[cells].max()) + 1)
            for at in (cells[k : k + some] for k in range(0, len(cells), some)):
                values[at] = np.einsum("ij,ij->i", w[i[at] - first], held[j[at]], dtype=dtype)
    return values


def _open(V: Any, W: Any, H: Any, choice: Choice) -> Matrix:
    matrix, shape = open_matrix(V), _shape(W, H)
    if matrix.shape != shape:
        raise ValueError(f"V is {matrix.shape} and W H is {shape}; give the V that W and H were fitted to")
    if choice.count < 1:
        raise ValueError(f"count is {choice.count}; it must be at least 1")
    if choice.missing not in (None, *MISSING):
        raise ValueError(f"missing is {choice.missing!r}; it must be one of {', '.join(MISSING)} or None")
    if choice.missing == "unstored" and not matrix.sparse:
        raise ValueError("missing is 'unstored' and V is dense; give a sparse V, or missing='nan'")
    return matrix


def _search(matrix: Matrix, W: Any, H: Any, choice: Choice) -> Iterator[Best]:
    """The best of the rows of V in order, some panels at a time."""
    offer = cluster.resources()
    listed = choice.count * (3 if matrix.transposed else 2)  # components as large as the lists
    panels, planned = cluster.cut(matrix, max(W.shape[1], listed))
    dtype, rows = _dtype(W, H), heights(planned.edges)
    if matrix.transposed:
        beside = _beside(H, rows, dtype, turned=True)
        yield fit.best_across(panels, beside, np.asarray(_whole(W), dtype).T, choice)
        return
    beside, h = _beside(W, rows, dtype), np.asarray(_whole(H), dtype)
    some = max(1, offer.threads * offer.workers, LISTED // (choice.count * max(rows)))
    for first in range(0, len(rows), some):
        yield from fit.best(panels, beside, h, choice, slice(first, first + some))


def _beside(factor: Any, rows: tuple[int, ...], dtype: np.dtype[Any], turned: bool = False) -> da.Array:
    """W (or Hᵀ, from H) as a Dask array with one block a panel."""
    if isinstance(factor, zarr.Array):
        reader = DenseRows(factor, turned, dtype)
        chunks = (rows, (reader.shape[1],))
        meta = np.empty((0, 0), dtype)
        return da.from_array(
            reader, chunks, name=False, asarray=False, fancy=False, inline_array=True, meta=meta
        )
    array = factor
    if not isinstance(factor, da.Array):
        array = da.from_array(factor, chunks=(-1, rows) if turned else (rows, -1), name=False)
    upright = array.T if turned else array
    return upright.rechunk((rows, (upright.shape[1],))).astype(dtype)
