"""Passes over panels of V, whole and bare: the benchmarks' only door to the engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.reduction import PassInputs, Reduction
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.kernels.least_squares import solve
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array, Orientation

Look = Callable[[Array, Array], Array]  # from a panel and H to an array of one entry


def open_panels(V: Any, rank: int) -> tuple[PanelEngine, PanelPlan]:
    """Return V in row panels as a fit on the active client cuts it, and the plan of the cut."""
    return partition.cut_into_panels(open_matrix(V, orientation=Orientation.ROWS), rank)


def without_prefetch(panels: PanelEngine) -> PanelEngine:
    """Return the same panels, read one at a time and kept by no worker."""
    return PanelEngine(panels.matrix, panels.edges)


def hals_pass(panels: PanelEngine, h: Array) -> None:
    """Run one pass of HALS over the panels."""
    panels.run_pass(h, PassSpec(HALS().solve_w, HALS()))


def bare_pass(panels: PanelEngine, look: Look, h: Array) -> None:
    """Load each panel and call ``look`` on it and H, in one task a panel."""
    panels.compute(h, Reduction(partial(_look, look=look), list))


def _look(v: Array, *, panel: int, inputs: PassInputs, look: Look) -> Array:
    return look(v, inputs.h)


def read(v: Array, h: Array) -> Array:
    """Do nothing with a panel that was read."""
    return v[:1, :1].copy()


def multiply(v: Array, h: Array) -> Array:
    """Compute the two products that no pass can do without."""
    with one_blas_thread():
        w = v @ h.T
        return (w.T @ v)[:1, :1].copy()


def products_in_memory(panels: PanelEngine, v: Any, h: Array, solves: bool) -> Callable[[], None]:
    """Return the two products of a pass over V in memory, on the panels and threads of a pass.

    Parameters
    ----------
    solves : whether W is solved for between the two products.
    """
    blocks = [v[first:last] for first, last in pairwise(panels.edges)]
    threads, tol = partition.resources().threads, HALS().tol

    def products(block: Any) -> None:
        num = np.asarray(block @ h.T)
        w = solve(num, h @ h.T, tol) if solves else num
        np.asarray(w.T @ block)

    def run() -> None:
        with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(products, blocks))

    return run


@dataclass(frozen=True)
class _EmptySource(ReaderDefaults):
    """A V whose panels cost nothing to read."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float32)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        return np.zeros((index[0].stop - index[0].start, self.shape[1]), np.float32)


class _IdleSolver:
    """A solver that does nothing."""

    def solve_w(self, v: Any, h: Array, w: Array | None) -> Array:
        return np.zeros((1, 1))

    def accumulate(self, v: Any, w: Array, h: Array, exact: bool) -> Sums:
        return Sums(np.zeros(0), np.zeros(0), 0.0)

    def loss(self, v: Any, w: Array, h: Array, final: bool = False) -> float:
        return 0.0


def idle_pass(count: int) -> None:
    """Run a pass over so many panels that neither reads nor computes anything."""
    shape = (count, 4)
    source = _EmptySource(shape)
    matrix = Matrix(shape, source.dtype, "nothing", Orientation.ROWS, Layout(*shape, 4), source)
    solver = _IdleSolver()
    panels = PanelEngine(matrix, tuple(range(count + 1)))
    panels.run_pass(np.zeros((1, 4), np.float32), PassSpec(solver.solve_w, solver))
