"""`forget`: rows are taken out of a finished fit, and nothing of them stays in the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import DataError
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.block_summary import DivergenceTerms
from dask_nmf.progress import report_stage
from dask_nmf.runs.commits import FIT, is_selection
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.runs.run import Run
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.squared_error import loss_of_h
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import Location, located
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted, open_fitted
from dask_nmf.updates.forgotten import Forgotten
from dask_nmf.updates.row_passes import RowPasses, RowSummary, measures_with, open_rows
from dask_nmf.updates.rows.chosen_rows import Batch, batches, loss_of, row_numbers, summary_of
from dask_nmf.updates.rows.known_rows import KnownRows
from dask_nmf.updates.rows.row_names import left
from dask_nmf.updates.rows.same_rows import check_v
from dask_nmf.updates.update import Connect, event
from dask_nmf.updates.write import old_pieces, scales_of, write_result


class Rest(NamedTuple):
    """The rows that are left: their sums, their loss with the H before, and what the others took away."""

    known: KnownRows
    loss: float
    taken: RowSummary


def forget(
    run: str | Path | Location,
    rows: Sequence[int | str],
    V: Any,
    *,
    connect: Connect = lambda matrix: nullcontext(),
) -> Forgotten:
    """Take rows out of a finished run: out of its sums, W, names and digests; solve for H again; commit.

    The part of row i in the sums is v_i w_iᵀ, for which v_i is needed. With all of V, one pass over it then
    polishes W and H on the rows that are left, which keep their order and are numbered anew.

    Parameters
    ----------
    run : path, URL or location of a run.
    rows : numbers (int), or names (str) if the run has names.
    V : the matrix of the run, or one of these rows alone, in their order.
    connect : returns a context of a cluster, which is entered for the pass.

    Returns
    -------
    Forgotten, which says how many rows went and how many are left.

    Raises
    ------
    FileNotFoundError, InvalidRunError
        If there is no run.
    ValueError, DataError
        If a row is not there, V is not that of the run or that cannot be told, the sums of the run are not
        known, or the run belongs to a selection.
    RunLocked
        If another process works on the run.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.updates import forget
    >>> V = [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]
    >>> result = nmf(V, 1, store="forgetful.zarr")
    >>> forget("forgetful.zarr", [1], V).left
    2
    """
    place, V = located(run, verbatim=True), located(V)
    _check_alone(place)
    with place.lock() as check_held:
        opened = Run.load(place, check_held)
        opened.recover()
        fitted = open_fitted(opened)
        _check_uniform(fitted)
        killed = opened.change_rows(fitted.shape[0]).clean()
        matrix = open_rows(fitted, V)
        if _is_repeated(fitted, rows, matrix, killed):
            error = relative_error(fitted.loss, fitted.measures.baseline)
            return Forgotten(len(rows), fitted.shape[0], True, False, error)
        numbers = row_numbers(fitted.result, rows)
        with connect(matrix):
            check_shared(place)
            check_v(opened, fitted, matrix, numbers, V)
            return _forget(opened, fitted, matrix, numbers)


def _check_uniform(fitted: Fitted) -> None:
    """Refuse a fit in which not every entry counts, because the part of a row in its sums is not known."""
    if not fitted.is_uniform:
        what = "held-out entries" if fitted.settings.missing is None else "missing entries"
        raise ValueError(
            f"{fitted.result.location.name} was fitted with {what}, so the part of a row in its sums is not "
            "known; fit the rows that are left anew, for example from this H (fit --h RUN/H)"
        )


def _check_alone(place: Location) -> None:
    """Refuse a selection, and the fit in it, because its other models keep what they have of the rows."""
    inside = place.address.endswith(f"/{FIT}") and is_selection(located(place.folder, verbatim=True))
    if inside or is_selection(place):
        raise ValueError(
            f"{place.name} {'is in' if inside else 'is'} a selection, whose other models keep traces of the "
            f"rows; copy its folder {FIT} to another place, take the rows out there, and delete the selection"
        )


def rows_in_file(run: Location, file: str) -> list[int | str]:
    """Return the rows that a text file lists, one a line: names if the run has names of rows, else numbers.

    Raises
    ------
    DataError
        If it is not UTF-8 text, or a line is not a number; the text has the number of the line.
    """
    content = Path(file).read_bytes()
    try:
        lines = [line.rstrip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"line {number} of {file} is not UTF-8 text; save the file as UTF-8") from None
    if Run.load_result(run).labels.rows is not None:
        return [line for line in lines if line]
    for number, line in enumerate(lines, 1):
        if line and not (line.strip().isascii() and line.strip().isdecimal()):
            raise DataError(f"line {number} of {file} is {line!r}; give the number of a row on each line")
    return [int(line) for line in lines if line]


def _is_repeated(fitted: Fitted, rows: Sequence[int | str], matrix: Matrix, killed: bool) -> bool:
    """Return whether the last change took out these numbers, by a command that is called again.

    A V of the rows that are there now means their new numbers. With the rows alone, the call is the same
    again if the one before was killed.

    Raises
    ------
    ValueError
        If it is not known whether the old or the new numbers are meant.
    """
    lineage = fitted.result.record.get("lineage", [])
    now, before = fitted.shape[0], fitted.shape[0] + len(rows)
    if not lineage or matrix.shape[0] == now != len(rows):
        return False
    request = _request(rows, before)
    if request is None or lineage[-1].get("request") != request:
        return False
    if matrix.shape[0] != before and not killed:
        raise ValueError(
            f"the last change of {fitted.result.location.name} took out rows of these numbers, and now they "
            f"mean other rows; nothing is left to do if it is the same call; else give all {now} rows of now"
        )
    return True


def _request(rows: Sequence[int | str], before: int) -> str | None:
    """Return a digest of numbers of rows and of how many there were; None for names, which are not kept."""
    if any(isinstance(one, str) for one in rows):
        return None
    return hashlib.sha256(f"{before} {sorted(rows)}".encode()).hexdigest()[:32]


def _forget(run: Run, fitted: Fitted, matrix: Matrix, numbers: Array) -> Forgotten:
    before, polished = fitted.shape[0], matrix.shape[0] == fitted.shape[0]
    rest = _rest(fitted, batches(fitted, matrix, numbers))
    h = fitted.h if fitted.fixed_h else rest.known.refreshed(fitted.h, None)
    loss = rest.loss + rest.known.change(h)
    changed = run.change_rows(before - len(numbers))
    changed.record["estimated"] = not polished or (fitted.settings.beta == 1 and not fitted.fixed_h)
    source: ZarrFactor | None = None
    if polished:
        with RowPasses(fitted, matrix) as passes:
            source = changed.temporary_w(before, passes.chunk_rows)
            h, loss = _polished(fitted, passes, numbers, h, (source, changed))
    kept = np.setdiff1d(np.arange(before), numbers)
    scales = scales_of(fitted, h)
    changed.write_w(_kept_pieces(fitted, source, numbers, changed.chunk_rows, scales))
    measures = measures_with(fitted, rest.taken, -1)
    error = relative_error(max(loss, 0.0), measures["baseline"])
    write_result(changed, fitted, h / scales[:, None], {"loss": max(loss, 0.0), "measures": measures})
    entry = {
        **event("forget", matrix.source if polished else "the rows alone"),
        "count": len(numbers),
        "relative_error": error,
    }
    entry["request"] = None if fitted.result.labels.rows is not None else _request(numbers.tolist(), before)
    changed.record["lineage"] = [*_renumbered(fitted, numbers), entry]
    changed.commit_without_trace(left(fitted.result.labels, kept))
    return Forgotten(len(numbers), len(kept), False, polished, error)


def _rest(fitted: Fitted, taken: Iterator[Batch]) -> Rest:
    """Return the rows of a fit without those that are taken out."""
    beta = fitted.settings.beta
    known, loss = fitted.rows, fitted.loss
    terms, sumsq, stored = DivergenceTerms(beta), 0.0, 0
    for batch in taken:
        known = known.without(batch.w, batch.v)
        loss -= loss_of(batch.v, batch.w, fitted.h, beta)
        part = summary_of(batch, beta, fitted.measures.scale)
        terms, sumsq, stored = terms + part.terms, sumsq + part.sumsq, stored + part.stored
    return Rest(known, loss, RowSummary(terms, sumsq, stored, 0, "", 0.0))


def _polished(
    fitted: Fitted,
    passes: RowPasses,
    numbers: Array,
    h: Array,
    places: tuple[ZarrFactor, ChangedResult],
) -> tuple[Array, float]:
    """Write W of all rows for an H, and return the best H for the W of those that are left, and its loss.

    The sums of all rows come from one pass, and those of the rows that are taken out are subtracted.
    """
    report_stage("polishing")
    store, changed = places
    sums = passes.write(h, store, with_sums=True)
    for batch in batches(fitted, passes.matrix, numbers):
        own = open_rows(fitted, batch.block)
        with RowPasses(fitted, own) as alone:
            unused = changed.temporary_w(len(batch.numbers), alone.chunk_rows)
            sums = sums + alone.write(h, unused, with_sums=True).scaled(-1)
    return (h, sums.residual) if fitted.fixed_h else _solved(fitted, sums, h)


def _solved(fitted: Fitted, sums: Sums, h: Array) -> tuple[Array, float]:
    """Return the H that the sums of a pass with ``h`` give, and its loss."""
    solver = fitted.solver
    if isinstance(solver, HALS):
        best = solver.solve_h(h, sums)
        return best, loss_of_h(np.nan, sums, h, best)
    best = solver.update_h(h, sums)
    gain, _ = solver.gain(h, best, sums)
    if gain <= 0:
        return h, sums.residual
    return best, sums.residual + solver.penalty.of(sums, h) - gain - solver.penalty.of(sums, best)


def _kept_pieces(
    fitted: Fitted, source: ZarrFactor | None, numbers: Array, step: int, scales: Array
) -> Iterator[Array]:
    """Yield the rows of W that are left, from the polished W or from that of the fit."""
    rows, gone = fitted.shape[0], np.zeros(fitted.shape[0], bool)
    gone[numbers] = True
    whole = (
        old_pieces(fitted, 0, rows, step)
        if source is None
        else (source.read(at, min(at + step, rows)) for at in range(0, rows, step))
    )
    first = 0
    for piece in whole:
        some = ~gone[first : first + len(piece)]
        first += len(piece)
        yield piece[some] * scales.astype(piece.dtype)


def _renumbered(fitted: Fitted, numbers: Array) -> list[dict[str, Any]]:
    """Return the lineage with the new numbers of rows; batches that lost rows lose digest and source."""
    gone, lineage = np.sort(numbers), []
    for entry in fitted.result.record.get("lineage", []):
        if "rows" in entry:
            edges = np.array(entry["rows"])
            below = np.searchsorted(gone, edges)
            traces = {"digest": None, "source": "rows of which some were taken out"}
            entry = {**entry, "rows": (edges - below).tolist(), **(traces if below[0] < below[1] else {})}
        lineage.append(entry)
    return lineage
