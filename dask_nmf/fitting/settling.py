"""The factor that panels are given, for the one that they hold: passes in which nothing else moves."""

from __future__ import annotations

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes
from dask_nmf.execution.graphs.passes import PassSpec
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
    """Return the factor that panels are given, (k, n), that fits the one they hold, (rows, k), and the sums.

    That takes one pass for normal equations, else passes until the loss falls no more.

    Parameters
    ----------
    mean : of V, about.
    check : whether V is new to the fit: it is checked, and its means are taken if not all of it is observed.
    most : passes, where one is not enough.
    """
    spec = PassSpec(passes.keep_w, solver, check=check, averages=check and panels.rule.needs_means)
    if not solver.one_pass:
        spec = spec._replace(residual=True)
    elif check:
        spec = spec._replace(anew=passes.as_it_was)  # the scale of V is not known then
    known = KnownW(left, panels.matrix.layout.columns, mean, panels.rule.is_uniform, most)
    return solver.find_h(known, lambda h, w: panels.run_pass(h, spec, w))
