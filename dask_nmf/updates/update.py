"""`update`: rows are added to a finished fit, whose own rows are not read again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf._version import __version__
from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import DataError
from dask_nmf.execution.partition import resources
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.progress import report_stage
from dask_nmf.rng import Stream
from dask_nmf.runs.commits import fit_of
from dask_nmf.runs.record.contents import SOURCES, orientation_of
from dask_nmf.runs.record.states import or_none
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.runs.rows.known_digests import has_digests
from dask_nmf.runs.run import Run
from dask_nmf.sources.labelled.registry import aligned_weights
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location, check_apart, located
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted, open_fitted
from dask_nmf.updates.outcomes import Update
from dask_nmf.updates.output import Output
from dask_nmf.updates.row_passes import (
    RowPasses,
    RowSummary,
    content_digest,
    measures_with,
    open_rows,
    open_weights,
)
from dask_nmf.updates.rows.known_rows import drop_lifted, lift_small
from dask_nmf.updates.rows.row_names import KeptNames, names_of_new_rows, stacked
from dask_nmf.updates.write import scales_of, with_new_rows, write_h, write_means

logger = logging.getLogger(__name__)

REPEATS = {2: 1, 1: 3}  # updates of H by the new rows, by β

Connect = Callable[[Matrix], AbstractContextManager[Any]]


def update(
    run: str | Path | Location,
    V: Any,
    *,
    weights: Any = None,
    output: str | Path | Location | None = None,
    keep_h: bool = False,
    connect: Connect = lambda matrix: nullcontext(),
) -> Update:
    """Add rows to a finished run: refresh H, append the W of the rows, and commit both at once.

    The W of the old rows stays as it is. H is the best one for the sums of all rows, those of the old rows by
    their W and H (`known_rows`). Where entries are missing, held out or weighted, the sums of the old rows
    are estimates. No entry of the new rows is held out, and the error of those of the old rows is unknown
    once H has moved. A batch of rows is not added twice: the same entries and weights under the same names,
    in the same order.

    Parameters
    ----------
    run : path, URL or location of a run or of a selection of ranks.
    V : the new rows, whatever `open_matrix` takes, with the columns of the run.
    weights : of the entries of the new rows, (r, n), whatever `open_matrix` takes, or of the rows, (r,), if
        the fit had weights.
    output : where the run with these rows goes, while the given one stays as it is; None: in its place. An
        output that an earlier call made gets the rows that it does not have.
    keep_h : whether H stays as it is, so that W of the new rows is computed and no more.
    connect : returns a context of a cluster, which is entered for the passes.

    Returns
    -------
    Update, which says how many rows were added and how well they are explained.

    Raises
    ------
    FileNotFoundError, InvalidRunError
        If there is no run.
    ValueError, DataError
        If the fit is not finished, the columns differ, a row has the name of one of the run (its number, if
        it has no name), or one of the fit and the new rows has weights and the other has none.
    FileExistsError, InvalidRunError
        If there is another run, or anything else, at the output.
    RunLocked
        If another process works on the output, or on the run where no output is given.
    ConcurrentCommitError
        If another process changes the run before its copy is at the output; the same call can be made again.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import nmf
    >>> from dask_nmf.updates import update
    >>> V = np.random.default_rng(0).random((40, 6))
    >>> result = nmf(V[:30], 2, store="nightly.zarr")
    >>> added = update("nightly.zarr", V[30:])
    >>> added.first, added.last
    (30, 40)
    """
    place = fit_of(located(run, verbatim=True))
    target = place if output is None else located(output, verbatim=True)
    if target is not place:
        check_apart(target, run=place)
    with target.lock() as check_held, one_blas_thread():  # for products that are too small for several
        goal = Output(place, target, check_held)
        opened = goal.open()
        fitted = open_fitted(opened)
        matrix = open_rows(fitted, located(V))
        check_apart(target, V=matrix.location)
        given = open_weights(fitted, matrix, aligned_weights(located(weights), V, None))
        check_apart(target, weights=None if given is None else given.location)
        with connect(matrix), RowPasses(fitted, matrix, given) as passes:
            check_shared(target)
            return _update(opened, goal, fitted, passes, keep_h or fitted.fixed_h)


def _update(run: Run, output: Output, fitted: Fitted, passes: RowPasses, keep_h: bool) -> Update:
    report_stage("new rows")
    summary, matrix = passes.summarize(), passes.matrix
    _check_size(summary, matrix)
    for present, digest in _digests_of_batches(run, fitted, matrix):
        if digest == summary.digest:
            logger.info("these rows are in %s already; nothing is left to do", run.location.name)
            output.keep(run)
            return _already(fitted, present)
    names = names_of_new_rows(fitted.result, matrix)
    fresh = _refreshed(fitted, passes, keep_h)
    if not np.isfinite(fitted.in_user_units(fresh.h)).all():
        raise _too_large(matrix)
    old, new = fitted.shape[0], matrix.shape[0]
    with output.begin(run) as goal:
        changed = goal.change_rows(old + new)
        loss, measures = _append(changed, fitted, passes, fresh.h, summary)
        error = relative_error(loss, measures["baseline"])
        entry = {
            **event("update", matrix.source),
            "rows": [old, old + new],
            "digest": summary.digest,
            "keep_h": keep_h,
            "relative_error": or_none(error),
        }
        changed.record |= {
            "loss": or_none(loss),
            "measures": measures,
            "estimated": _is_estimate(fitted, keep_h),
        }
        if not keep_h:
            changed.record["validation_error"] = None  # it was that of the H before
        changed.record["lineage"] = [*fitted.result.record.get("lineage", []), entry]
        if has_digests(fitted.result):
            changed.write_digest(summary.digest_sums)
        changed.commit(stacked(fitted.result.labels, names))
    errors = _error(fitted), _new_error(fresh.before, summary)
    return Update(old, old + new, False, error, *errors, fresh.shares, _cosines(fitted.h, fresh.h))


def _append(
    changed: ChangedResult, fitted: Fitted, passes: RowPasses, h: Array, summary: RowSummary
) -> tuple[float, dict[str, float]]:
    """Write W and H with the new rows; return the loss and the measures of all rows.

    The divergence is infinite if a new row has an entry where an H that stays explains nothing.
    """
    old, new = fitted.shape[0], passes.matrix.shape[0]
    rows = passes.temporary_w(changed)
    report_stage("W of the new rows")
    means = changed.temporary_means(new, passes.chunk_rows) if passes.engine.mask.needs_means else None
    sums = passes.write(h, rows, means=means)
    loss = max(fitted.loss + fitted.rows.change(h) + sums.residual, 0.0)  # 0: rounding, of an exact fit
    may_be_infinite = math.isinf(fitted.loss) or (fitted.settings.beta == 1 and not h.any(axis=0).all())
    if math.isnan(loss) or (math.isinf(loss) and not may_be_infinite):
        raise _too_large(passes.matrix)
    if math.isinf(sums.residual):
        logger.warning(
            "H is 0 in columns where new rows have entries, and stays so: the error of the run is infinite "
            "from now on, and W of these rows explains the other columns; if H shall explain these too, take "
            "the rows out (dask-nmf forget, with all of V), and add them without --keep-h"
        )
    scales = scales_of(fitted, h)
    linked = changed.link_rows(old) if (scales == 1).all() else 0
    pieces = with_new_rows(fitted, "W", rows, (linked, old, new), changed.chunk_rows)
    changed.write_w((piece * scales.astype(piece.dtype) for piece in pieces), linked)
    write_h(changed, fitted, h / scales[:, None])
    measures = measures_with(fitted, summary)
    if means is not None:
        measures["unobserved_columns"] = write_means(changed, fitted, means, sums.column_totals)
    elif not fitted.is_uniform:
        changed.record["counting_rows"] = fitted.counting + new
    return loss, measures


def _digests_of_batches(run: Run, fitted: Fitted, matrix: Matrix) -> Iterator[tuple[list[int], str | None]]:
    """Yield the first row, the one after the last and the digest of each batch that was added.

    Those of the rows of the fit come last, if these may be the rows of the matrix.
    """
    for entry in fitted.result.record.get("lineage", []):
        yield entry.get("rows", []), entry.get("digest")
    count, names = matrix.shape[0], fitted.result.labels.rows
    if count <= fitted.shape[0] and not orientation_of(run.record).by_columns:
        first = None if names is None else KeptNames(names, np.arange(count))
        sums = [run.digest(name) for name in (SOURCES if fitted.weighted else SOURCES[:1])]
        yield [0, count], content_digest(np.concatenate(sums), matrix.shape, matrix.dtype, first)


def _check_size(summary: RowSummary, matrix: Matrix) -> None:
    """Refuse rows whose squares are no floating-point numbers."""
    if not (math.isfinite(summary.sumsq) and math.isfinite(summary.baseline)):
        raise _too_large(matrix)


def _too_large(matrix: Matrix) -> DataError:
    return DataError(
        f"{matrix.name} has entries so large that W, H or the error is not finite; "
        "give rows in the units of the V that was fitted"
    )


def _is_estimate(fitted: Fitted, keep_h: bool) -> bool:
    """Return whether the error is an estimate, because that of the old rows with the new H is.

    It is known for the squared error, if the H before is the best one for all old rows, as in a fit, and
    every entry counts.
    """
    record = fitted.result.record
    moved = not keep_h and (fitted.settings.beta == 1 or "lineage" in record or not fitted.is_uniform)
    return moved or bool(record.get("estimated"))


class Refreshed(NamedTuple):
    """The new H, (k, n), the loss of the new rows with the H before, and the shares of components, (2, k)."""

    h: Array
    before: float
    shares: Array


def _refreshed(fitted: Fitted, passes: RowPasses, keep_h: bool) -> Refreshed:
    """Return H refreshed by the new rows, unless it is kept."""
    h = fitted.h
    sums = passes.sums(lift_columns(h, 0, Stream.H_FACTOR) if fitted.settings.beta == 1 else h)
    before, columns = sums.residual, fitted.shape[1]
    weights = np.stack([fitted.rows.mass, np.asarray(sums.w_l1_norm) / columns]) * h.sum(axis=1)
    total = weights.sum(axis=1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    if keep_h:
        return Refreshed(h, before, shares)
    if fitted.settings.beta == 1:
        h = lift_small(lift_columns(h, 0, Stream.H_FACTOR))
        sums = passes.sums(h)  # of these entries: the sums before are of smaller ones, which need more
    for number in range(REPEATS[int(fitted.settings.beta)]):
        h = fitted.rows.refreshed(h, sums if number == 0 else passes.sums(h))
    return Refreshed(drop_lifted(fitted.h, h) if fitted.settings.beta == 1 else h, before, shares)


def event(kind: str, source: str) -> dict[str, Any]:
    """Return what the lineage says of every change: its kind, the source, when, and on how many workers."""
    return {
        "kind": kind,
        "source": source,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "workers": resources().workers,
    }


def _error(fitted: Fitted) -> float:
    return relative_error(fitted.loss, fitted.measures.baseline)


def _new_error(loss: float, summary: RowSummary) -> float:
    """Return the relative error of new rows, which is infinite if they have no spread to compare with."""
    return math.inf if summary.baseline <= 0 < loss else relative_error(loss, summary.baseline)


def _cosines(before: Array, after: Array) -> Array:
    """Return the cosine of each component with itself, (k,); 1 for one that is 0."""
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    dots = np.einsum("tj,tj->t", before, after)
    return np.asarray(np.divide(dots, sizes, out=np.ones_like(dots), where=sizes > 0))


def _already(fitted: Fitted, rows: list[int]) -> Update:
    """Return an update that did nothing, because its rows are there."""
    k, error = fitted.settings.n_components, _error(fitted)
    first, last = rows
    return Update(first, last, True, error, error, math.nan, np.full((2, k), np.nan), np.ones(k))
