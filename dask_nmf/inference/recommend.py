"""`recommend`: for each row of V the columns with the largest W H among the cells that V does not have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.fitting.verification import check_names
from dask_nmf.inference import factors
from dask_nmf.inference.cells import reading, writing
from dask_nmf.inference.factors import Clip
from dask_nmf.inference.topk import row_marks
from dask_nmf.inference.topk import search as top_k_search
from dask_nmf.inference.topk.kernel import TopK, TopKSpec
from dask_nmf.inference.topk.search import Search
from dask_nmf.kernels.summary.means import COLUMN_MEAN, MODEL, Means
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.options.option import plain
from dask_nmf.options.settings import MISSING
from dask_nmf.runs.commits import fit_of
from dask_nmf.runs.run import Run
from dask_nmf.sources.labelled.registry import check_factors
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.locations import Location, check_apart
from dask_nmf.types import Array

logger = logging.getLogger(__name__)


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
    row_names: Any = None,
) -> TopK:
    """Return, for each row of V, the columns with the largest values of W H among the cells absent from V.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes. It is read once, panel by panel, on the active Dask client.
    W : (m, k), whatever `open_matrix` takes.
    H : (k, n), whatever `open_matrix` takes.
    count : the most columns of a row.
    missing : the cells absent from V. "nan": those that are NaN; "unstored": those that a sparse V does not
        store. By default: those that are not positive.
    means : `Result.means` of the fit. A row of which nothing was observed gets the columns with the largest
        means, and a column of which nothing was observed is not recommended.
    clip : (low, high): values outside are set to the nearer bound; the order stays.
    rows : the rows to search, counted from 0, or their names as text. By default all m rows.
    row_names : the names of all rows, (m,), if ``rows`` are names.

    Returns
    -------
    (columns, values), both (rows, count), best first; the first column wins a tie. A row with fewer columns
    ends in -1 and NaN. A row has no column if all its values are 0, because then the model prefers none.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `nmf`, and if the shapes or ``missing`` do not fit V.
    IndexError
        If a row is outside of V; the error names the first one.

    Examples
    --------
    >>> from dask_nmf import recommend
    >>> columns, values = recommend([[5.0, 0.0, 0.0]], [[1.0]], [[5.0, 1.0, 4.0]], count=1)
    >>> columns, values
    (array([[2]]), array([[4.]]))
    """
    check_factors(V, W=W, H=H)
    W, H = factors.open_factors(W, H)
    factors.validate(W, H, means, clip)
    search = Search(W, H, TopKSpec(plain(count), missing), means, clip)
    matrix = _open(V, search)
    rows = factors.find_names(rows, row_names, "row", W.shape[0])
    chosen = None if rows is None else _choose(rows, factors.product_shape(W, H))
    marks = None if chosen is None else chosen.marks
    empty = TopK(np.empty((0, count), np.int64), np.empty((0, count), factors.product_dtype(W, H)))
    parts = [empty, *(best for _, best in top_k_search.run(matrix, search, marks))]
    best = TopK(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    return best if chosen is None else TopK(best.columns[chosen.places], best.values[chosen.places])


class ListOptions(NamedTuple):
    """The rows and the length of the lists that `recommend_to` writes."""

    top: int  # the most columns of a row
    clip: Clip | None = None
    rows: Path | None = None  # a CSV file of rows, which are listed in the order of V, once; None: all


def recommend_to(
    run: Location,
    V: Any,
    options: ListOptions,
    output: LocalLocation,
    overwrite: bool,
    connect: Callable[[Matrix], AbstractContextManager[Any]],
) -> int:
    """Write what `recommend` returns for the V of a run as a CSV file, which appears only when it is whole.

    A row for which `recommend` has no column is left out.

    Returns
    -------
    The number of cells.

    Raises
    ------
    FileExistsError
        As for `predict_to`.
    RunMismatch
        If V has names of rows or columns, and these are not those of the run.
    """
    result = Run.load_result(run)
    opened = Run.load(fit_of(run))
    (W, H), means, labels = result.factors, result.means, result.labels
    factors.validate(W, H, means, options.clip)
    search = Search(W, H, TopKSpec(options.top, result.settings.missing), means, options.clip)
    matrix = _open(V, search)
    _compare(matrix, opened)
    check_apart(output, V=matrix.location, run=run)
    marks = None
    if options.rows is not None:
        rows = reading.read_rows(options.rows, matrix.shape, labels)
        marks = row_marks.mark_rows(rows, matrix.shape[0])
    cells = 0
    with writing.create(output, overwrite, means is not None) as file, connect(matrix):
        for numbers, best in top_k_search.run(matrix, search, marks):
            at, place = np.nonzero(best.columns >= 0)
            sources = None if means is None else _sources(means, numbers)[at]
            names = writing.named(labels.rows, numbers)[at]
            columns = writing.named(labels.columns, best.columns[at, place])
            writing.write(file, names, columns, best.values[at, place], sources)
            cells += len(at)
    return cells


def _compare(matrix: Matrix, run: Run) -> None:
    """Refuse a V with other names than those of a run, and warn of one that was written since its fit.

    Only listings of files are compared, so that V is not read for it. They are not known of rows that were
    added since.

    Raises
    ------
    RunMismatch
        If a name differs.
    """
    result = run.result
    assert result is not None
    check_names(matrix.labels, result.labels, run.location.name, "give the V that was fitted")
    known = run.record["listing"].get("V")
    if "lineage" not in result.record and None not in (known, matrix.listing) and known != matrix.listing:
        logger.warning(
            "%s was written since the fit of %s, or is a copy of its V: W and H do not follow what changed; "
            "dask-nmf verify %s %s tells whether an entry differs, and dask-nmf fit fits V as it is now",
            matrix.source,
            *[run.location.name] * 2,
            matrix.source,
        )


def _sources(means: Means, rows: Array) -> Array:
    """Return the source of the values of each row: the means of the columns if it is cold, else the model."""
    cold = np.isnan(factors.means_at(means.rows, rows))
    return np.where(cold, COLUMN_MEAN, MODEL)


def _open(V: Any, search: Search) -> Matrix:
    """Open V, and refuse a V or a search that do not fit each other."""
    W, H, spec = search.W, search.H, search.spec
    matrix, shape = open_matrix(V), factors.product_shape(W, H)
    if matrix.shape != shape:
        raise ValueError(
            f"V is {matrix.shape} and W H is {shape}; give the V that W and H were fitted to, and below it "
            "the rows that were added since (dask-nmf convert OLD NEW ALL)"
        )
    if not isinstance(spec.n_columns, int) or spec.n_columns < 1:
        raise ValueError(f"count is {spec.n_columns!r}; it must be an integer ≥ 1")
    if spec.missing not in (None, *MISSING):
        raise ValueError(f"missing is {spec.missing!r}; it must be one of {', '.join(MISSING)} or None")
    if spec.missing == "unstored" and not matrix.sparse:
        raise ValueError("missing is 'unstored' and V is dense; give a sparse V, or missing='nan'")
    return matrix


class ChosenRows(NamedTuple):
    """The rows to search, and the place of each requested row among them."""

    marks: Array  # (m,), packed: see `row_marks.mark_rows`
    places: Array  # (requested rows,)


def _choose(rows: Any, shape: tuple[int, int]) -> ChosenRows:
    """Return the rows to search for requested numbers of rows, which may repeat and come in any order."""
    requested = factors.as_indices(rows, "rows")
    if requested.ndim != 1 or (requested.dtype.kind not in "iu" and requested.size):
        raise ValueError(f"rows are {requested.dtype} of shape {requested.shape}; give a list of integers")
    outside = (requested < 0) | (requested >= shape[0])
    if outside.any():
        raise IndexError(reading.describe_outside([int(requested[outside.argmax()])], shape))
    unique, places = np.unique(requested.astype(np.int64), return_inverse=True)
    return ChosenRows(row_marks.mark_rows([unique], shape[0]), places)
