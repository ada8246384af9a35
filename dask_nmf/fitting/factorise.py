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
from dask_nmf.fitting.request import Job
from dask_nmf.fitting.result import Result, result_of
from dask_nmf.fitting.verification import check_content, is_unwritten
from dask_nmf.options.algorithms import panel_solvers
from dask_nmf.options.option import plain
from dask_nmf.runs.resume import NewRun, find_resumable, identity_of, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.sources.factors_and_weights import open_entry_weights, open_for_fixed_factor, read_factor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location, check_apart
from dask_nmf.types import Array, Orientation

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


def factorise(V: Any, job: Job, connect: Connect = lambda matrix: nullcontext()) -> Result:
    """Factorise V as ``job`` says, and return the result.

    Parameters
    ----------
    connect : returns a context of a cluster, which is entered only if there is work for the cluster.
    """
    by_itself = job.fixed and job.settings.beta != 2  # by single rows of W or columns of H: no sums suffice
    own = Orientation.COLUMNS if job.fixed_H is None else Orientation.ROWS
    matrix = open_for_fixed_factor(V, job.dtype, own if by_itself else None)
    job.settings.check_rank(matrix.shape)
    job = _check_given(job, matrix)
    if job.settings.start == "nndsvd" and job.settings.algorithm.keeps_zeros:
        warnings.warn(
            f"solver {job.settings.solver!r} cannot move the zeros of init 'nndsvd'; "
            "give init 'nndsvda' or 'nndsvdar'",
            stacklevel=4,  # factorise, nmf, its check of keywords, the caller
        )
    if job.weights is not None:
        if job.settings.by_svd:
            raise ValueError(
                f"weights are given and init is {job.settings.start!r}, which needs every entry of V alike; "
                "leave weights out, or give init 'sample' or 'random'"
            )
        if job.settings.algorithm.by_strata:
            raise ValueError(
                f"weights are given and the solver is {job.settings.solver!r}; "
                f"solvers {panel_solvers()} take them"
            )
        job = replace(job, weights=open_entry_weights(matrix, job.weights))
    if job.store is not None:
        weights = {} if job.weights is None else {"the weights": job.weights.location}
        check_apart(job.store, V=matrix.location, **weights)
        with job.store.lock() as check_held:
            mine = identity_of(matrix, job.settings, job.given)
            try:
                run = find_resumable(job.store, mine, job.overwrite, check_held)
                return _fit_in_store(matrix, job, run, connect)
            except (InvalidRunError, FileNotFoundError):
                check_held()  # the process that took over the lock may have deleted the files
                raise
    with connect(matrix):
        if not job.carries or shares_memory():
            return fit_and_answer(matrix, job, None)
        return _fit_in_scratch(matrix, job)


def _fit_in_store(matrix: Matrix, job: Job, run: Run | NewRun, connect: Connect) -> Result:
    place = run.location
    if isinstance(run, NewRun) or run.passes is None:
        with _sharing(place, connect(matrix)):
            return fit_and_answer(matrix, job, run)
    finished, verified = run.record["finished"], is_unwritten(matrix, job.weights, run)
    with nullcontext() if finished and verified else _sharing(place, connect(matrix)):
        if not verified:
            check_content(matrix, job.weights, job.rule(matrix), run)
        if finished:
            logger.info("%s is finished already; nothing is left to do", place.name)
            assert run.result is not None
            return result_of(run.result)
        logger.info("resuming %s after pass %d", place.name, run.passes)
        return fit_and_answer(matrix, job, run)


@contextmanager
def _sharing(location: Location, cluster: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter the context of a cluster, and check that its workers share the place of the run."""
    with cluster:
        check_shared(location)
        yield


def _fit_in_scratch(matrix: Matrix, job: Job) -> Result:
    """Fit with a carried W on a cluster of other processes: W is kept on disk, so that no graph grows."""
    asked = job.settings
    why = f"solver {asked.solver!r} with init {asked.start!r} keeps a factor on disk between passes"
    with temporary_run(identity_of(matrix, job.settings, job.given), why) as run:
        return fit_and_answer(matrix, job, run, keep=True)


def _check_given(job: Job, matrix: Matrix) -> Job:
    """Return the job with its given factors as checked arrays.

    Raises
    ------
    ValueError
        If the factors and the settings do not fit together.
    """
    m, n = matrix.shape
    k = job.settings.n_components
    given = {"W": (job.W, (m, k)), "H": (job.H, (k, n))}
    if job.fixed:
        return _check_fixed(job, matrix)
    names = [name for name in ("W", "H") if getattr(job, name) is not None]
    if names and job.settings.init is None:
        job = replace(job, settings=replace(job.settings, init="custom"))
    if job.settings.start != "custom" and not names:
        return job
    if job.settings.start != "custom":
        listed = " and ".join(names)
        raise ValueError(
            f"{listed} {'are' if names[1:] else 'is'} given to begin with, and init is "
            f"{job.settings.init!r}; leave init out (it is 'custom' then), or leave {listed} out"
        )
    if not names:
        raise ValueError("init is 'custom' and neither W nor H is given; give one or both")
    checked = {name: _check_factor(name, *asked) for name, asked in given.items()}
    return replace(job, W=checked["W"], H=checked["H"])


def _check_fixed(job: Job, matrix: Matrix) -> Job:
    """Return the job with its fixed factor as a checked array.

    Raises
    ------
    ValueError
        If the factor and the settings do not fit together.
    """
    m, n = matrix.shape
    k = job.settings.n_components
    if (job.fixed_W is not None and job.fixed_H is not None) or job.settings.start != "sample":
        raise ValueError("fixed_W and fixed_H are given, or one and an init; give one, and no init")
    if job.W is not None or job.H is not None:
        raise ValueError("a factor is fixed, and W or H is given to begin with; leave W and H out")
    if job.settings.normalize is not None:
        raise ValueError(
            "a factor is fixed and normalize is asked for, which would change it; leave that out"
        )
    if job.settings.algorithm.by_strata:
        raise ValueError(
            f"a factor is fixed and the solver is {job.settings.solver!r}; solvers {panel_solvers()} take one"
        )
    return replace(
        job,
        fixed_W=_check_factor("fixed_W", job.fixed_W, (m, k)),
        fixed_H=_check_factor("fixed_H", job.fixed_H, (k, n)),
    )


def _check_factor(name: str, factor: Any, shape: tuple[int, int]) -> Array | None:
    if factor is None:
        return None
    array = read_factor(factor, name, shape)
    if not array.any():
        raise ValueError(f"{name} is zero everywhere; it must have an entry > 0")
    return array
