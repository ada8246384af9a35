"""`recommend`: for each row of V the columns with the largest W H among the cells that V does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import zarr

from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.reduction import heights
from dask_nmf.inference import csv_files, factors
from dask_nmf.inference.factors import Clip
from dask_nmf.inference.topk import passes
from dask_nmf.inference.topk.kernel import TopK, TopKSpec
from dask_nmf.kernels.summary.means import COLUMN_MEAN, MODEL, Means
from dask_nmf.keywords import reject_unknown_keywords
from dask_nmf.options import plain
from dask_nmf.runs.run import Run
from dask_nmf.settings import MISSING
from dask_nmf.sources.dense import DenseRows
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import absolute, check_apart
from dask_nmf.types import Array

LISTED = 2**22  # columns of rows that come to this process at once


@reject_unknown_keywords
def recommend(
    V: Any,
    W: Any,
    H: Any,
    count: int,
    missing: str | None = None,
    *,
    means: Means | None = None,
    clip: Clip | None = None,
    rows: Any = None,
) -> TopK:
    """For each row of V the columns with the largest values of W H among those that V does not have.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes. Read once, panel by panel, on the active Dask client.
    W : (m, k), whatever `open_matrix` takes.
    H : (k, n), likewise.
    count : most columns of a row.
    missing : what V does not have: "nan", what is NaN; "unstored", what a sparse V does not store. By default
        what is not positive.
    means : `Result.means` of the fit. A row of which nothing was observed gets the columns of the largest
        means; a column of which nothing was is not recommended.
    clip : (low, high): values outside are set to the nearer of the two; the order stays.
    rows : for which the columns are looked for, counted from 0. By default all, m of them.

    Returns
    -------
    (columns, values), both (rows, count), best first, and of equal ones the first column. Where a row has
    fewer such columns they end in -1 and NaN. A row has none if all values of these are 0: the model knows no
    better column for it than another.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `nmf`, and if the shapes or ``missing`` do not fit V.
    IndexError
        With the first row that is outside of V.
    """
    W, H = factors.opened(W, H)
    factors.check(W, H, means, clip)
    search = Search(W, H, TopKSpec(plain(count), missing), means, clip)
    matrix = _open(V, search)
    chosen = None if rows is None else _rows(rows, factors.shape_of(W, H))
    marks = None if chosen is None else chosen.marks
    nothing = TopK(np.empty((0, count), np.int64), np.empty((0, count), factors.dtype_of(W, H)))
    found = [nothing, *(best for _, best in _search(matrix, search, marks))]
    best = TopK(*(np.concatenate(side) for side in zip(*found, strict=True)))
    return best if chosen is None else TopK(best.columns[chosen.places], best.values[chosen.places])


def recommend_to(
    run: str,
    V: Any,
    count: int,
    output: str,
    overwrite: bool,
    connect: Callable[[Matrix], AbstractContextManager[Any]],
    clip: Clip | None = None,
    rows: str | None = None,
) -> int:
    """What `recommend` gives for the V of a run, into a CSV file, which appears only when it is whole.

    A row for which `recommend` has no column is left out.

    Parameters
    ----------
    rows : a CSV file of those that are asked for; they come in the order of V, each once. By default all.

    Returns
    -------
    The number of cells; `FileExistsError` as for `predict_to`.
    """
    found = Run.load_result(absolute(run))
    (W, H), means = found.factors, found.means
    factors.check(W, H, means, clip)
    search = Search(W, H, TopKSpec(count, found.settings.missing), means, clip)
    matrix = _open(V, search)
    check_apart(output, V=matrix.source, run=absolute(run))
    marks = None if rows is None else _marked(csv_files.read_rows(rows, matrix.shape), matrix.shape[0])
    done = 0
    with csv_files.new(output, overwrite, means is not None) as file, connect(matrix):
        for numbers, best in _search(matrix, search, marks):
            at, place = np.nonzero(best.columns >= 0)
            sources = None if means is None else _sources(means, numbers)[at]
            csv_files.write(file, numbers[at], best.columns[at, place], best.values[at, place], sources)
            done += len(at)
    return done


def _sources(means: Means, rows: Array) -> Array:
    """Where the values of rows come from: the means of the columns if a row is cold, else the model."""
    cold = np.isnan(factors.means_at(means.rows, rows))
    return np.where(cold, COLUMN_MEAN, MODEL)


class Search(NamedTuple):
    """What is looked for, and in which model."""

    W: Any  # (m, k)
    H: Any  # (k, n)
    choice: TopKSpec
    means: Means | None
    clip: Clip | None


class Rows(NamedTuple):
    """Some rows of V: which they are, and where those that were asked for are among them."""

    marks: Array  # (m,), as bits: see `_marked`
    places: Array


def _open(V: Any, search: Search) -> Matrix:
    W, H, choice = search.W, search.H, search.choice
    matrix, shape = open_matrix(V), factors.shape_of(W, H)
    if matrix.shape != shape:
        raise ValueError(f"V is {matrix.shape} and W H is {shape}; give the V that W and H were fitted to")
    if not isinstance(choice.n_columns, int) or choice.n_columns < 1:
        raise ValueError(f"count is {choice.n_columns!r}; it must be an integer ≥ 1")
    if choice.missing not in (None, *MISSING):
        raise ValueError(f"missing is {choice.missing!r}; it must be one of {', '.join(MISSING)} or None")
    if choice.missing == "unstored" and not matrix.sparse:
        raise ValueError("missing is 'unstored' and V is dense; give a sparse V, or missing='nan'")
    return matrix


def _rows(rows: Any, shape: tuple[int, int]) -> Rows:
    asked = factors.numbers(rows, "rows")
    if asked.ndim != 1 or (asked.dtype.kind not in "iu" and asked.size):
        raise ValueError(f"rows are {asked.dtype} of shape {asked.shape}; give a list of integers")
    outside = (asked < 0) | (asked >= shape[0])
    if outside.any():
        raise IndexError(csv_files.outside([int(asked[outside.argmax()])], shape))
    some, places = np.unique(asked.astype(np.int64), return_inverse=True)
    return Rows(_marked([some], shape[0]), places)


def _marked(parts: Iterable[Array], size: int) -> Array:
    """Mark rows among ``size``: one bit each, as `np.packbits` has them."""
    marks = np.zeros(-(-size // 8), np.uint8)
    for rows in parts:
        np.bitwise_or.at(marks, rows >> 3, (128 >> (rows & 7)).astype(np.uint8))
    return marks


def _unpacked(marks: Array, first: int, last: int) -> Array:
    """Which of the rows from first to last are marked, as booleans."""
    start = first // 8
    return np.unpackbits(marks[start : -(-last // 8)])[first - 8 * start :][: last - first].astype(bool)


def _search(matrix: Matrix, search: Search, marks: Array | None) -> Iterator[tuple[Array, TopK]]:
    """The best of the rows of V, or of those that are marked: their numbers in order, and what is found."""
    choice, width = search.choice, search.H.shape[0] + (search.means is not None)
    listed = choice.n_columns * (3 if matrix.transposed else 2)  # components as large as the lists
    panels, planned = partition.cut(matrix, max(width, listed))
    beside = search.H if matrix.transposed else search.W  # which workers read
    if isinstance(beside, zarr.Array):
        partition.check_sight(open_matrix(beside))
    w, h = _sides(search, heights(planned.edges), matrix.transposed)
    find = _search_columns if matrix.transposed else _search_panels
    for numbers, best in find(panels, w, h, choice, marks):
        known = _known(best)
        yield numbers, known._replace(values=factors.clipped(known.values, search.clip))


def _known(best: TopK) -> TopK:
    """Return the best columns without those of rows for which all values are 0."""
    zero = ~(best.values > 0).any(axis=1, keepdims=True)
    return TopK(np.where(zero, -1, best.columns), np.where(zero, np.nan, best.values))


def _search_columns(
    panels: PanelEngine, beside: da.Array, given: Array, choice: TopKSpec, marks: Array | None
) -> Iterator[tuple[Array, TopK]]:
    m = given.shape[1]
    chosen = None if marks is None else _unpacked(marks, 0, m)
    numbers = np.arange(m) if chosen is None else np.flatnonzero(chosen)
    yield numbers, passes.top_k_by_columns(panels, beside, given, choice, chosen)


def _search_panels(
    panels: PanelEngine, beside: da.Array, given: Array, choice: TopKSpec, marks: Array | None
) -> Iterator[tuple[Array, TopK]]:
    """The best of some panels at a time; what has no row that is marked is not read."""
    offer, edges = partition.resources(), panels.edges
    rows = heights(edges)
    some = max(1, offer.threads * offer.workers, LISTED // (choice.n_columns * max(rows)))
    wanted = [
        panel
        for panel, (first, last) in enumerate(pairwise(edges))
        if marks is None or _unpacked(marks, first, last).any()
    ]
    for group in (wanted[at : at + some] for at in range(0, len(wanted), some)):
        chosen, numbers = None, [np.arange(edges[panel], edges[panel + 1]) for panel in group]
        if marks is not None:
            masks = [_unpacked(marks, edges[panel], edges[panel + 1]) for panel in group]
            numbers = [all_rows[mask] for all_rows, mask in zip(numbers, masks, strict=True)]
            cut = tuple(map(len, masks)), (1,)
            chosen = da.from_array(np.concatenate(masks)[:, None], chunks=cut, name=False)
        yield from zip(numbers, passes.top_k(panels, beside, given, choice, group, chosen), strict=True)


def _sides(search: Search, rows: tuple[int, ...], transposed: bool) -> tuple[da.Array, Array]:
    """The factor that goes with the panels, in blocks like them, and the other one in memory, (k, columns).

    With means there is one component more, so that W H has them where a row is cold: it is 1 in cold rows of
    W and 0 in others, and has the means of the columns in H, NaN where a column is cold.
    """
    W, H, _, means, _ = search
    dtype = factors.dtype_of(W, H)
    panelled, given = (H, W) if transposed else (W, H)
    beside, held = _beside(panelled, rows, dtype, transposed), np.asarray(factors.in_memory(given), dtype)
    if means is None:
        return beside, np.ascontiguousarray(held.T if transposed else held)
    sides = (means.columns, means.rows) if transposed else (means.rows, means.columns)
    more = _beside_means(sides[0], rows, dtype)
    blocks = da.map_blocks(
        _with_mean, beside, more, transposed, dtype=dtype, chunks=(rows, (H.shape[0] + 1,)), meta=beside._meta
    )
    across = np.asarray(factors.in_memory(sides[1]), dtype)[:, None]
    whole = _with_mean(held if transposed else held.T, across, not transposed)
    return blocks, np.ascontiguousarray(whole.T)


def _with_mean(factor: Array, mean: Array, of_columns: bool) -> Array:
    """A block of W, (r, k), with its component of means, or one of Hᵀ; ``mean`` is (r, 1)."""
    cold = np.isnan(mean)
    return np.concatenate(
        [np.where(cold, 0, factor), mean if of_columns else cold], axis=1, dtype=factor.dtype
    )


def _beside_means(means: Any, rows: tuple[int, ...], dtype: np.dtype[Any]) -> da.Array:
    """Means as a Dask array with one block a panel, (rows, 1)."""
    array = means if isinstance(means, da.Array) else da.from_array(means, chunks=(rows,), name=False)
    return array.rechunk((rows,)).astype(dtype)[:, None]


def _beside(factor: Any, rows: tuple[int, ...], dtype: np.dtype[Any], turned: bool = False) -> da.Array:
    """W (or Hᵀ, from H) as a Dask array with one block a panel."""
    if isinstance(factor, zarr.Array):
        reader = DenseRows(factor, turned, dtype)
        return reader.lazy(rows, [reader.shape[1]])
    array = factor
    if not isinstance(factor, da.Array):
        array = da.from_array(factor, chunks=(-1, rows) if turned else (rows, -1), name=False)
    upright = array.T if turned else array
    return upright.rechunk((rows, (upright.shape[1],))).astype(dtype)
