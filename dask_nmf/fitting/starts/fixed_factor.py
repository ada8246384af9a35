"""Passes that find the right factor, which panels are given, for a left factor that stays as it is."""

from __future__ import annotations

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes
from dask_nmf.execution.tasks import block_pass
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.newton import MOST_READS
from dask_nmf.solvers.solver import KnownW, RightSolver
from dask_nmf.types import Array


def solve_h_for_w(
    panels: PanelEngine,
    left: Array,
    solver: RightSolver,
    mean: float,
    check: bool = False,
    most: int = MOST_READS,
) -> tuple[Array, Sums]:
    """Return the best right factor, (k, n), for a left factor, (rows, k), and the sums of the last pass.

    One pass suffices for normal equations; other solvers make passes until the loss falls no more.

    Parameters
    ----------
    mean : the mean of V, approximately.
    check : whether V is new. If so, the first pass checks it, and takes its means unless all entries count.
    most : the most passes, if one does not suffice.
    """
    spec = PassSpec(block_pass.keep_w, solver, check=check, averages=check and panels.mask.needs_means)
    if not solver.one_pass:
        spec = spec._replace(residual=True)
    elif check:
        spec = spec._replace(anew=passes.as_it_was)  # the scale of a new V is not known
    known = KnownW(left, panels.matrix.layout.columns, mean, panels.mask.is_uniform, most)
    return solver.find_h(known, lambda h, w: panels.run_pass(h, spec, w))
