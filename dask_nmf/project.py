"""`transform`: W of a V for a fixed H."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

from dask_nmf import cluster, fit, plan
from dask_nmf.fit import Panels
from dask_nmf.kernels import Array, BadEntry
from dask_nmf.matrix import open_matrix
from dask_nmf.passes import Weighing, Weights
from dask_nmf.solvers import HALS, solve_rows

Sink = Callable[[tuple[int, int], int, np.dtype[Any]], Weights]


def transform(V: Any, H: Array, dtype: str | None = None, into: Sink | None = None) -> da.Array | None:
    """W of a V for a fixed H: ``argmin_{W ≥ 0} ‖V − W H‖``, (m, k), in one pass.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes.
    H : (k, n), ≥ 0.
    into : makes, from the shape, the rows that one task writes and the dtype, the place where W goes panel
        by panel. By default W is returned.

    Raises
    ------
    BadEntry, ValueError, TypeError, MemoryError
        As for `nmf`.
    """
    matrix = open_matrix(V, dtype)
    if matrix.shape[1] != H.shape[1]:
        raise ValueError(f"V has {matrix.shape[1]} columns and H has {H.shape[1]}; they must be equal")
    h = np.ascontiguousarray(H, dtype=matrix.dtype)
    offer = cluster.resources()
    planned = plan.make(matrix.layout, len(h), offer.memory_limit, offer.threads)
    panels = Panels(matrix, planned.edges)
    try:
        return _weigh_columns(panels, h, into) if matrix.transposed else _weigh_rows(panels, h, into)
    except BadEntry as error:
        raise error.at(0, matrix.transposed) from None


def _weigh_rows(panels: Panels, h: Array, into: Sink | None) -> da.Array | None:
    weighing = Weighing(HALS().finish, check=True)
    if into is None:
        return fit.weigh_all(panels, h, weighing)[0]
    shape = (panels.edges[-1], len(h))
    fit.sweep(panels, h, weighing._replace(after=into(shape, plan.unit(panels.edges), h.dtype)))
    return None


def _weigh_columns(panels: Panels, h: Array, into: Sink | None) -> da.Array | None:
    num = fit.project(panels, h).astype(h.dtype)
    w = solve_rows(num, h @ h.T, HALS().final_tol)
    if into is None:
        return da.from_array(w, chunks=w.shape)
    into(w.shape, len(w), w.dtype).write(0, w)
    return None
