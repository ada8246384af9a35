"""`forget`: rows are taken out of a finished fit, and nothing of them stays in the run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import DataError
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.summary.block_summary import DivergenceTerms
from dask_nmf.runs.commits import FIT, is_selection
from dask_nmf.runs.record.states import or_none
from dask_nmf.runs.run import Run
from dask_nmf.sources.labels.names import pieces
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import Location, located
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted, open_fitted
from dask_nmf.updates.outcomes import Forgotten
from dask_nmf.updates.row_passes import RowPasses, RowSummary, measures_with, open_rows, rows_in_memory
from dask_nmf.updates.rows.chosen_rows import Batch, batches, loss_of, row_numbers, summary_of
from dask_nmf.updates.rows.known_rows import KnownRows
from dask_nmf.updates.rows.polishing import Polished, polish
from dask_nmf.updates.rows.row_names import left
from dask_nmf.updates.rows.same_rows import check_v
from dask_nmf.updates.update import Connect, event
from dask_nmf.updates.write import old_pieces, scales_of, write_columns, write_h
from dask_nmf.wording import counted


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
        _check_plain(fitted)
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


def _check_plain(fitted: Fitted) -> None:
    """Refuse a fit with weights, of which a run keeps none, and one with held-out entries.

    A polishing pass would fit what was held out.
    """
    if fitted.weighted:
        raise ValueError(
            f"{fitted.result.location.name} was fitted with weights, so what rows added to its sums is not "
            "known from V; fit the rows that are left anew, for example from this H (fit --h RUN/H)"
        )
    if fitted.settings.validation_fraction:
        raise ValueError(
            f"{fitted.result.location.name} was fitted with held-out entries, which a pass over the rows "
            "that are left would not hold out; fit these rows anew, for example from this H (fit --h RUN/H)"
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

    Blanks at the end of a line are a part of a name only if the run has that name with them.

    Raises
    ------
    DataError
        If it is not UTF-8 text, or a line is not a number; the text has the number of the line.
    """
    content = Path(file).read_bytes()
    try:
        lines = re.split("\r\n|\r|\n", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"line {number} of {file} is not UTF-8 text; save the file as UTF-8") from None
    names = Run.load_result(run).labels.rows
    if names is not None:
        listed = set(lines)
        exact = {name for piece in pieces(names) for name in piece.tolist() if name in listed}
        return [line if line in exact else line.rstrip() for line in lines if line.strip()]
    for number, line in enumerate(lines, 1):
        if line.strip() and not (line.strip().isascii() and line.strip().isdecimal()):
            raise DataError(f"line {number} of {file} is {line!r}; give the number of a row on each line")
    return [int(line) for line in lines if line.strip()]


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
            "mean other rows; nothing is left to do if it is the same call; else give all "
            f"{counted(now, 'row')} of now"
        )
    return True


def _request(rows: Sequence[int | str], before: int) -> str | None:
    """Return a digest of numbers of rows and of how many there were; None for names, which are not kept."""
    if any(isinstance(one, str) for one in rows):
        return None
    return hashlib.sha256(f"{before} {sorted(rows)}".encode()).hexdigest()[:32]


def _forget(run: Run, fitted: Fitted, matrix: Matrix, numbers: Array) -> Forgotten:
    before, polished = fitted.shape[0], matrix.shape[0] == fitted.shape[0]
    h, loss, taken = _from_sums(fitted, matrix, numbers)
    changed = run.change_rows(before - len(numbers))
    changed.record["estimated"] = not polished or (fitted.settings.beta == 1 and not fitted.fixed_h)
    found: Polished | None = None
    if polished:
        # A column that the sums, which are estimates, leave empty may be needed; if not, the pass makes it 0.
        h = np.where(h.any(axis=0), h, fitted.h)
        with RowPasses(fitted, matrix) as passes:
            found = polish(fitted, passes, numbers, h, changed)
        h, loss = found.h, found.loss
    kept = np.setdiff1d(np.arange(before), numbers)
    scales, step = scales_of(fitted, h), changed.chunk_rows
    pieces = _pieces(fitted, "W", found and found.w, step)
    changed.write_w(piece * scales.astype(piece.dtype) for piece in _kept_of(pieces, numbers, before))
    measures = measures_with(fitted, taken, -1)
    if found is not None and found.means is not None:
        pieces = _pieces(fitted, "row_mean", found.means, step)
        changed.write_rows("row_mean", _kept_of(pieces, numbers, before))
        measures["unobserved_columns"] = write_columns(changed, *np.asarray(found.column_totals))
    loss = np.inf if np.isnan(loss) else max(loss, 0.0)  # of rows that are left of an infinite one: unknown
    error = relative_error(loss, measures["baseline"])
    write_h(changed, fitted, h / scales[:, None])
    changed.record |= {"loss": or_none(loss), "measures": measures}
    entry = {
        **event("forget", matrix.source if polished else "the rows alone"),
        "count": len(numbers),
        "relative_error": or_none(error),
    }
    entry["request"] = None if fitted.result.labels.rows is not None else _request(numbers.tolist(), before)
    changed.record["lineage"] = [*_renumbered(fitted, numbers), entry]
    changed.commit_without_trace(left(fitted.result.labels, kept))
    return Forgotten(len(numbers), len(kept), False, polished, error)


def _from_sums(fitted: Fitted, matrix: Matrix, numbers: Array) -> tuple[Array, float, RowSummary]:
    """Return H and its loss from the sums without some rows, and the measures of these rows.

    Where entries are missing these sums are only estimates, and H stays until it is polished.
    """
    taken = batches(fitted, matrix, numbers)
    if fitted.is_uniform:
        rest = _rest(fitted, taken)
        h = fitted.h if fitted.fixed_h else rest.known.refreshed(fitted.h, None)
        return h, rest.loss + rest.known.change(h), rest.taken
    terms, sumsq, stored, unobserved = DivergenceTerms(fitted.settings.beta), 0.0, 0, 0
    for batch in taken:
        with RowPasses(fitted, rows_in_memory(fitted, batch.block)) as passes:
            part = passes.summarize()
        terms, sumsq = terms + part.terms, sumsq + part.sumsq
        stored, unobserved = stored + part.stored, unobserved + part.unobserved
    return fitted.h, np.nan, RowSummary(terms, sumsq, stored, unobserved, "", 0.0)


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


def _pieces(fitted: Fitted, name: str, polished: ZarrFactor | None, step: int) -> Iterator[Array]:
    """Yield an array of the fit by rows, or what a polishing pass has made of it, in pieces."""
    rows = fitted.shape[0]
    if polished is None:
        yield from old_pieces(fitted, name, 0, rows, step)
        return
    for at in range(0, rows, step):
        yield polished.read(at, min(at + step, rows))


def _kept_of(pieces: Iterator[Array], numbers: Array, rows: int) -> Iterator[Array]:
    """Yield the rows that are left, of pieces of all ``rows`` rows."""
    stays = np.ones(rows, bool)
    stays[numbers] = False
    first = 0
    for piece in pieces:
        yield piece[stays[first : first + len(piece)]]
        first += len(piece)


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
