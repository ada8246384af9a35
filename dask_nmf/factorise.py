"""The main job, from whatever holds V to W and H: `nmf`, and what its two faces share."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf import cluster, kernels
from dask_nmf.client import shares_memory
from dask_nmf.fit import Step
from dask_nmf.job import Job, Result, fit_and_answer, result_of
from dask_nmf.kernels import Array
from dask_nmf.matrix import Matrix, absolute, open_matrix
from dask_nmf.resume import existing, identity, locked
from dask_nmf.settings import Settings
from dask_nmf.store import Run

logger = logging.getLogger(__name__)

Connect = Callable[[], AbstractContextManager[Any]]


def nmf(
    V: Any,
    rank: int,
    *,
    solver: str = "hals",
    init: str | None = None,
    W: Array | None = None,
    H: Array | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    seed: int = 0,
    delta: float | None = None,
    inner_iter: int = 1,
    dtype: str | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    time_limit: float | None = None,
    callback: Callable[[Step], None] | None = None,
) -> Result:
    """Factorise a non-negative V (m × n) as W H, with W (m × rank) and H (rank × n) non-negative.

    Runs on the active `distributed` client, or in the threads of this process if there is none.

    Parameters
    ----------
    V : whatever `open_matrix` takes: an array, a sparse matrix, a Dask array, or a path.
    rank : number of components, k.
    solver : ``"hals"`` (few passes, W solved anew in each) or ``"mu"`` (Lee & Seung's steps).
    init : ``"sample"`` (default; H of some rows, factorised in memory), ``"random"``, or ``"custom"`` (from
        ``W`` and ``H``, or from either).
    max_iter : most passes over V.
    tol : stop when a pass lowers the loss ‖V − W H‖² by less than ``tol`` times itself, or ``tol`` times what
        is explained of ‖V‖² if that is less.
    delta : added to the denominators of ``"mu"``; by default a trifle relative to the scale of V.
    inner_iter : steps of ``"mu"`` on the products of a pass; 1 is Lee & Seung's.
    dtype : of the computation, ``"float32"`` or ``"float64"``; see `open_matrix`.
    store : path of a Zarr group that holds the run: each pass is committed, an unfinished run is resumed,
        and W never is in memory.
    time_limit : seconds, after which the pass in work is the last.
    callback : called with the `Step` of each pass.

    Returns
    -------
    Result

    Raises
    ------
    BadEntry
        If V has a NaN, an infinity or a negative entry.
    ValueError, TypeError
        If V or an option is not as above.
    MemoryError
        If a panel of V does not fit a worker.
    RunMismatch, RunLocked
        If ``store`` holds another fit, or is in use.
    """
    settings = Settings(rank, solver, init, max_iter, tol, seed, delta, inner_iter)
    path = None if store is None else str(store)
    return factorise(V, Job(settings, W, H, dtype, path, overwrite, time_limit, callback))


def factorise(V: Any, job: Job, connect: Connect = nullcontext) -> Result:
    """`nmf`, with its options as a `Job`, and a cluster that is entered only if there is work for it."""
    matrix = open_matrix(V, job.dtype)
    job.settings.check_rank(matrix.shape)
    job = _check_given(job, matrix)
    if job.store is not None:
        path = absolute(job.store)
        with locked(path):
            return _fit_in_store(matrix, job, path, connect)
    with connect():
        if not job.carries or shares_memory():
            return fit_and_answer(matrix, job, None)
        return _fit_in_scratch(matrix, job)


def _fit_in_store(matrix: Matrix, job: Job, path: str, connect: Connect) -> Result:
    run = existing(path, identity(matrix, job.settings, job.W, job.H), job.overwrite)
    if run is not None and run.record["finished"]:
        logger.info("%s is finished already: %s", path, run.record["outcome"])
        return result_of(run)
    if run is not None and run.passes is not None:
        logger.info("resuming %s after pass %d", path, run.passes)
    with connect():
        return fit_and_answer(matrix, job, run or path)


def _fit_in_scratch(matrix: Matrix, job: Job) -> Result:
    """A fit that carries W, in other processes: it goes through the disk, so that no graph grows."""
    if not cluster.shares_this_disk():
        raise ValueError(
            f"solver {job.settings.solver!r} with init {job.settings.start!r} keeps a factor on disk between "
            "passes, and the workers are on other machines; give store= a path that all of them reach"
        )
    with tempfile.TemporaryDirectory(prefix="dask-nmf-") as folder:
        run = Run.create(f"{folder}/run.zarr", *identity(matrix, job.settings, job.W, job.H))
        return fit_and_answer(matrix, job, run, keep=True)


def _check_given(job: Job, matrix: Matrix) -> Job:
    """The job with given factors as arrays, or refused."""
    m, n = matrix.shape
    k = job.settings.rank
    given = {"W": (job.W, (m, k)), "H": (job.H, (k, n))}
    if job.settings.start != "custom":
        if job.W is not None or job.H is not None:
            raise ValueError(f"W and H are given and init is {job.settings.start!r}; it must be 'custom'")
        return job
    if job.W is None and job.H is None:
        raise ValueError("init is 'custom' and neither W nor H is given; give one or both")
    checked = {name: _check_factor(name, *asked) for name, asked in given.items()}
    return replace(job, W=checked["W"], H=checked["H"])


def _check_factor(name: str, factor: Any, shape: tuple[int, int]) -> Array | None:
    if factor is None:
        return None
    array = np.asarray(factor)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; for this V and rank it must be {shape}")
    found = kernels.measure(array)
    if found.bad is not None:
        raise ValueError(str(found.bad).replace("V has", f"{name} has", 1))
    if not found.total > 0:
        raise ValueError(f"{name} is zero everywhere; it must have an entry > 0")
    return array
