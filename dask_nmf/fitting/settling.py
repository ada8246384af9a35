"""The factor that panels are given, for the one that they hold: passes in which nothing else moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import BetaMU
from dask_nmf.solvers.newton import LEAST, SHORTER, SHORTEST, KLNewton
from dask_nmf.solvers.solver import State
from dask_nmf.types import Array

MOST = 2000  # passes
SETTLED = 1e-9  # of the loss: what a multiplicative update gains at last
CLOSE = 1e-8  # of the loss: a Newton step that gains less by its model needs no read to be believed
NEAR = 3  # steps that a factor is ahead of one of equal entries, where a fit ended with it

Look = Callable[[Array], Sums]  # a read of V: from a right factor, (k, n), to what it learns


def solve_h_for_w(
    panels: PanelEngine,
    left: Array,
    solver: HALS | KLNewton | BetaMU,
    mean: float,
    check: bool = False,
    most: int = MOST,
) -> tuple[Array, Sums]:
    """Return the factor that panels are given, (k, n), that fits the one they hold, (rows, k), and the sums.

    One pass for normal equations, else passes until the loss falls no more, but at ``most`` so many.
    ``mean``: of V, about. What is ``check``ed is new to the fit, and its means are taken too, if not all of
    it is observed.
    """
    averages = check and panels.rule.needs_means
    weighing = PassSpec(passes.keep_w, solver, residual=True, check=check, averages=averages)
    k, columns = left.shape[1], panels.matrix.layout.columns
    if isinstance(solver, HALS):
        anew = passes.as_it_was if check else None  # the scale of V is not known then
        return _by_equations(panels, left, solver, weighing._replace(residual=False, anew=anew))
    size = mean / max(k * float(left.mean()), float(np.finfo(left.dtype).tiny))
    h = np.full((k, columns), size, left.dtype)

    def look(h: Array) -> Sums:
        return panels.run_pass(h, weighing, left)

    if isinstance(solver, KLNewton):
        return by_newton(solver, h, look(h), look, most)
    return _by_updates(solver, h, look, most)


def _by_equations(panels: PanelEngine, left: Array, solver: HALS, weighing: PassSpec) -> tuple[Array, Sums]:
    """`solve_h_for_w` for the squared error, by an orthonormal basis if ``left`` is badly conditioned."""
    columns = panels.matrix.layout.columns
    factor = solver.factor_of(left) if panels.rule.is_uniform else None
    held = left if factor is None else factor.basis.astype(left.dtype)
    blank = np.zeros((held.shape[1], columns), left.dtype)
    totals = panels.run_pass(blank, weighing, held)
    if factor is None:
        return solver.solve_h(blank, totals), totals
    return solver.solve_h_by_factor(factor, len(left), totals).astype(left.dtype), totals


def by_newton(
    solver: KLNewton, h: Array, totals: Sums, look: Look, most: int = MOST, ahead: int = 0
) -> tuple[Array, Sums]:
    """Return the right factor, (k, n), of the least loss, by Newton's steps, and sums that have its loss.

    Parameters
    ----------
    h, totals : where the steps begin, and what a read of V with it gave.
    look : one more read; the left factor is the same in all.
    most : reads, with the one that is done.
    ahead : steps that h is nearer than equal entries are: entries that should be 0 fall the faster.

    Notes
    -----
    The last step gains so little by its quadratic model that no read tests it; the loss counts that gain.
    """
    solver = solver.at_level(solver.finest)
    good, best, reached, rate = h, totals, float("inf"), 1.0
    for number in range(most):
        if number:
            totals = look(h)
        loss = totals.residual + solver.penalty.of(totals, h)
        if loss > reached:
            rate *= SHORTER
            if rate < SHORTEST:
                return good, best
            h = good + h.dtype.type(SHORTER) * (h - good)
            continue
        good, best, reached, rate = h, totals, loss, 1.0
        h = solver.update_h(good, totals, LEAST ** (2 * (number + ahead) + 1))
        gain, size = solver.gain(good, h, totals)
        if 0 <= gain <= CLOSE * reached + np.finfo(h.dtype).eps ** 2 * size:
            return h, totals._replace(residual=reached - gain - solver.penalty.of(totals, h))
    return good, best


def _by_updates(solver: BetaMU, h: Array, look: Look, most: int) -> tuple[Array, Sums]:
    state = State(h, h, beta=0.0, ceiling=0.0, last_beta=0.0)
    for _ in range(most):
        totals = look(state.entering)
        before, state = state, solver.update(state, totals, 0.0)
        if before.loss - state.loss <= SETTLED * state.loss:
            break
    return state.h, totals
