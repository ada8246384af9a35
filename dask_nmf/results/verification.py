"""`verify`: checks of all that a run holds, and of its result against V."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.errors import InvalidRunError
from dask_nmf.fitting.verification import ranges_in_words
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.results.recomputed import Recomputed, read_once
from dask_nmf.results.stored_arrays import Check, array_checks, checked
from dask_nmf.runs.commits import fit_of
from dask_nmf.runs.record.contents import orientation_of
from dask_nmf.runs.rows.known_digests import known_digests
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import Location, located
from dask_nmf.wording import counted

ROUNDING = {"float32": (1e-4, 5e-6), "float64": (1e-7, 1e-8)}  # of an error: the share of it, and of ‖V‖
CHANGED = (5e-3, 1e-5)  # the same after an update, whose error of the old rows is that of their sums
ESTIMATED = (2e-2, 1e-5)  # how far the error may be above an estimate, which is most often a bound
FAR, NEAR = 1.02, 1e-3  # the final error is hardly larger than that of the last pass


def verify(run: str | Path | Location, V: Any = None) -> list[Check]:
    """Return checks of a run: its record, each array of its result, and with V its content and the error.

    Each array and V are read once, in parts of bounded memory. A check that fails does not keep others from
    being made, and raises nothing.

    Parameters
    ----------
    run : a run, or the selection whose fit is to be verified.
    V : the matrix that was fitted, whatever `open_matrix` takes. None: only the run is verified.

    Returns
    -------
    A `Check` for each part, in the order of the checks.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no run, or it has no result yet; if V is not a matrix.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import verify
    >>> V = [[1.0, 3.0], [2.0, 6.0]]
    >>> result = nmf(V, 1, store="verified.zarr")
    >>> all(check.passed for check in verify("verified.zarr", V))
    True
    """
    place = fit_of(located(run, verbatim=True))
    try:
        opened = Run.load(place)
    except InvalidRunError as error:
        return [Check("record", False, str(error))]
    result = Run.load_result(place)
    return list(_checks(opened, result, V))


def _checks(run: Run, result: StoredResult, V: Any) -> Iterator[Check]:
    yield checked("record", lambda: _consistent(run, result))
    arrays = list(array_checks(run, result))
    yield from arrays
    if V is None:
        return
    record = result.record
    matrix = open_matrix(located(V), record["matrix"]["dtype"], orientation_of(record))
    if list(matrix.shape) != record["matrix"]["shape"]:
        wanted, given = (" x ".join(map(str, shape)) for shape in (record["matrix"]["shape"], matrix.shape))
        yield Check("V", False, f"V is {given} and the run is of a V of {wanted}; give the V that was fitted")
        return
    if not all(check.passed for check in arrays if check.name in ("W", "H")):
        yield Check("V", None, "not compared, because W or H is damaged")
        return
    found: list[Recomputed] = []
    yield checked("V", lambda: _content(run, result, matrix, found))
    if found:
        yield _error(result, found[0])


def _consistent(run: Run, result: StoredResult) -> str:
    """Return the outcome of a result whose record holds together, beyond what opening it has checked."""
    record, history = result.record, result.record["history"]["relative_error"]
    loss, baseline = record["loss"], record["measures"]["baseline"]
    error = math.inf if loss is None else relative_error(loss, baseline)
    if run.record["layout"] is not None:
        run.edges  # noqa: B018 : it raises if they cover V in no order
    last = history[-1] if history else None
    plain = not (
        result.settings.normalize or any(result.settings.alphas) or result.settings.validation_fraction
    )
    if plain and last is not None and "lineage" not in record and error > FAR * last + NEAR:
        raise ValueError(f"its relative error is {error:.6g} and that of the last pass {last:.6g}")
    return f"relative error {error:.6f} after {counted(record['pass'], 'pass')}; {record['message']}"


def _content(run: Run, result: StoredResult, matrix: Matrix, found: list[Recomputed]) -> str:
    """Read V once, append the findings, and compare its digest; raise `ValueError` if it differs."""
    settings, orientation = result.settings, matrix.orientation
    W, H = result.factors
    left, right = (W, result.read("H")) if not orientation.by_columns else (_Turned(H), result.read("W").T)
    parts = known_digests(run, result)
    found.append(read_once(matrix, (left, right.astype(np.float64)), settings, parts))
    if not parts:
        return (
            "read; its content is not compared, because rows were taken out since the fit, or added by an "
            "earlier version"
        )
    for part, digest in zip(parts, found[0].digests, strict=True):
        if ranges := part.differing(digest, matrix.shape[1]):
            where = ranges_in_words(part.along, ranges)
            added = ", and below it the rows that were added since" if parts[1:] else ""
            raise ValueError(f"V is not the same in {where}; give the V that was fitted{added}")
    since = " or in the rows that were added since" if parts[1:] else ""
    return f"{' x '.join(map(str, matrix.shape))}, every entry is as in the fit{since}"


class _Turned:
    """Rows of Hᵀ, read from a stored H."""

    def __init__(self, H: Any) -> None:
        self._H = H

    def __getitem__(self, rows: slice) -> Any:
        return self._H[:, rows].T


def _error(result: StoredResult, found: Recomputed) -> Check:
    """Return the check of the relative error, which V, W and H give again."""
    record, settings = result.record, result.settings
    if record["settings"].get("weights") is not None or settings.validation_fraction:
        why = "weights" if record["settings"].get("weights") is not None else "held-out entries"
        return Check("error", None, f"not recomputed, because the fit had {why}")
    stored = relative_error(
        math.inf if (loss := record["loss"]) is None else loss, record["measures"]["baseline"]
    )
    again = found.terms.relative_error(settings.beta)
    text = f"relative error {again:.6f} recomputed, {stored:.6f} stored"
    if record.get("estimated"):
        (share, least), far, text = ESTIMATED, again - stored, f"{text} as an estimate"
    else:
        share, least = CHANGED if "lineage" in record else ROUNDING[record["matrix"]["dtype"]]
        far = abs(again - stored)
    close = again == stored or far <= share * stored + least
    cure = "restore the run, give the V of its rows, or fit V anew"
    return Check("error", close, text if close else f"{text}; {cure}")
