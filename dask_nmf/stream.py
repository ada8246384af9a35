"""NMF of rows that come in batches: what was learned of the earlier ones is kept, not the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf import cluster, fit
from dask_nmf.beta import Newton
from dask_nmf.job import Job
from dask_nmf.kernels import Array, Sums
from dask_nmf.matrix import Matrix
from dask_nmf.measures import BadEntry
from dask_nmf.passes import Weighing
from dask_nmf.project import exact_solver
from dask_nmf.settings import Settings
from dask_nmf.solvers import HALS, penalty_of

TURNS, OF_MODELS = 3, 6  # at a batch: its sums are replaced as H moves; models hold near their H only


def learn(matrix: Matrix, job: Job, h: Array, known: Sums | None, keep: float) -> tuple[Array, Sums]:
    """H after one pass over a batch, and the sums to go on with.

    The sums of all batches add up to normal equations for H: WᵀV and WᵀW, or where the loss is Kullback &
    Leibler's the quadratic models about the H of their time. So a batch counts as much as it has rows, in
    whatever order they come (Mairal et al. 2010, for the squared error).

    Parameters
    ----------
    h : (k, n), before.
    known : the sums of earlier batches, which count ``keep`` times (1: nothing is forgotten).

    Raises
    ------
    BadEntry, ValueError, MemoryError
        As for `nmf`.
    """
    settings = job.settings
    solver = exact_solver(settings, matrix)
    if settings.solver != "hals" or not isinstance(solver, HALS | Newton):
        raise ValueError(
            f"solver is {settings.solver!r} and beta_loss {settings.beta_loss!r}; solver 'hals' learns from "
            "batches, with frobenius or kullback-leibler"
        )
    panels, _ = cluster.cut(matrix, len(h), job.weights, job.rule(matrix))
    h = np.ascontiguousarray(h, matrix.dtype)
    known = None if known is None else known.times(keep)
    for _ in range(TURNS if isinstance(solver, HALS) else OF_MODELS):
        try:
            found = fit.sweep(panels, h, Weighing(solver.weigh, solver, check=True))
        except BadEntry as error:
            raise error.at(0, matrix.transposed) from None
        sums = found if known is None else found + known
        h = solver.follow(h, sums)
    return h, sums


def remembered(W: Any, h: Array, settings: Settings) -> Sums:
    """Return the sums of a fit whose rows are gone: those of the normal equations that its H solves.

    WᵀW follows from W. WᵀV is not known, but at the H of the fit it balances WᵀW H and the penalty on H.

    Parameters
    ----------
    W : (m, k) Dask array.
    h : (k, n), of the squared error, with every entry of V counting.
    """
    penalty, rows = penalty_of(settings, False), float(W.shape[0])
    tall = W.astype(np.float64)
    gram = np.asarray((tall.T @ tall).compute())
    num = gram @ h + rows * (penalty.right * h + penalty.right_l1)
    return Sums(num, gram, float("nan"), rows)
