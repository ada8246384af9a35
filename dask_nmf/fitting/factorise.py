"""Factorisation of any input V as `nmf`, `NMF` and the command share it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from dask.utils import parse_bytes

from dask_nmf.cluster.client import shares_memory
from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import InvalidRunError
from dask_nmf.fitting.fit import fit_and_answer
from dask_nmf.fitting.request import FitRequest, check_request
from dask_nmf.fitting.result import Result, result_of
from dask_nmf.fitting.verification import check_content, check_names, is_unwritten
from dask_nmf.options.option import plain
from dask_nmf.runs.record.states import or_none
from dask_nmf.runs.resume import NewRun, find_resumable, identity_of, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.sources.factors_and_weights import open_for_fixed_factor
from dask_nmf.sources.labels.names import fitting
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location, check_apart
from dask_nmf.types import Orientation

logger = logging.getLogger(__name__)

Connect = Callable[[Matrix], AbstractContextManager[Any]]


def cache_bytes(cache: int | str) -> int | None:
    """Return the size of a cache in bytes, None for "auto".

    Raises
    ------
    ValueError
        If it is neither 'auto', 'off' nor a size.
    """
    cache = plain(cache)
    if cache in ("auto", "off"):
        return None if cache == "auto" else 0
    with suppress(ValueError):
        if (size := int(parse_bytes(cache))) >= 0:
            return size
    raise ValueError(f"cache is {cache!r}; give 'auto', 'off' or a size such as '2GiB'")


def factorise(V: Any, request: FitRequest, connect: Connect = lambda matrix: nullcontext()) -> Result:
    """Factorise V as ``request`` says, and return the result.

    Parameters
    ----------
    connect : returns a context of a cluster, which is entered only if there is work for the cluster.
    """
    matrix, request = open_request(V, request)
    if request.settings.start == "nndsvd" and request.settings.algorithm.keeps_zeros:
        warnings.warn(
            f"solver {request.settings.solver!r} cannot move the zeros of init 'nndsvd'; "
            "give init 'nndsvda' or 'nndsvdar'",
            stacklevel=4,  # factorise, nmf, its check of keywords, the caller
        )
    if request.store is not None:
        weights = {} if request.weights is None else {"the weights": request.weights.location}
        check_apart(request.store, V=matrix.location, **weights)
        with request.store.lock() as check_held:
            mine = identity_of(matrix, request.settings, request.given)
            try:
                run = find_resumable(request.store, mine, request.overwrite, check_held)
                return _fit_in_store(matrix, request, run, connect)
            except (InvalidRunError, FileNotFoundError):
                check_held()  # the process that took over the lock may have deleted the files
                raise
    with connect(matrix):
        if not request.carries or shares_memory():
            return fit_and_answer(matrix, request, None)
        return _fit_in_scratch(matrix, request)


def open_request(V: Any, request: FitRequest) -> tuple[Matrix, FitRequest]:
    """Return V, opened, and the request with its factors and weights opened and checked."""
    own = Orientation.COLUMNS if request.fixed_H is None else Orientation.ROWS
    by_itself = request.fixed and request.settings.beta != 2  # no sums suffice for the free factor
    matrix = open_for_fixed_factor(V, request.dtype, own if by_itself else None)
    if request.labels:
        matrix = replace(matrix, labels=fitting(request.labels, matrix.shape))
    request.settings.check_rank(matrix.shape)
    return matrix, check_request(request, matrix)


def _fit_in_store(matrix: Matrix, request: FitRequest, run: Run | NewRun, connect: Connect) -> Result:
    place = run.location
    if isinstance(run, NewRun) or run.passes is None:
        with _sharing(place, connect(matrix)):
            return fit_and_answer(matrix, request, run)
    finished, verified = run.record["finished"], is_unwritten(matrix, request.weights, run)
    with nullcontext() if finished and verified else _sharing(place, connect(matrix)):
        if not verified:
            check_content(matrix, request.weights, request.entry_mask(matrix), run)
        check_names(matrix.labels, run.labels, run.location.name)
        if finished:
            assert run.result is not None
            result = result_of(run.result)
            numbers = {"event": "finished", "relative_error": or_none(result.relative_error)}
            numbers |= {"outcome": result.outcome, "pass": result.n_iter}
            text = "%s is finished already; nothing is left to do"
            logger.info(text, place.name, extra={"nmf": numbers})
            return result
        numbers = {"event": "resume", "pass": run.passes}
        logger.info("resuming %s after pass %d", place.name, run.passes, extra={"nmf": numbers})
        return fit_and_answer(matrix, request, run)


@contextmanager
def _sharing(location: Location, cluster: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter the context of a cluster, and check that its workers share the place of the run."""
    with cluster:
        check_shared(location)
        yield


def _fit_in_scratch(matrix: Matrix, request: FitRequest) -> Result:
    """Fit with a carried W on a cluster of other processes: W is kept on disk, so that no graph grows."""
    asked = request.settings
    why = f"solver {asked.solver!r} with init {asked.start!r} keeps a factor on disk between passes"
    with temporary_run(identity_of(matrix, request.settings, request.given), why) as run:
        return fit_and_answer(matrix, request, run, keep=True)
