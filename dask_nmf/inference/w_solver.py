"""The solver for W of a fixed H, for any scale of V."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import ConvergedMU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import select_inference_solver
from dask_nmf.sources.matrix import Matrix

DIVISOR_FLOOR = 1e-140  # the least number that a divergence divides by, in float64: its square is > 0

WSolver = HALS | KLNewton | ConvergedMU


@dataclass(frozen=True)
class WProblem:
    """The loss and the penalties of W, which hold for V at any scale."""

    beta: float
    penalty: Penalty  # on the factors in the user's units
    dtype: np.dtype[Any]

    def solver_at(self, scale: float, units: tuple[float, float]) -> WSolver:
        """Return the solver for V at a scale, with the factors in units (left, right)."""
        penalty = self.penalty.in_units(*units, self.beta * math.log2(scale))
        floor = max(float(np.finfo(self.dtype).tiny), DIVISOR_FLOOR)
        return select_inference_solver(self.beta, penalty, floor)


def w_problem(settings: Settings, matrix: Matrix) -> WProblem:
    """Return the problem that settings pose for W of a matrix."""
    return WProblem(settings.beta, penalty_of(settings, matrix.orientation), matrix.dtype)


@dataclass(frozen=True)
class AtPanelScale:
    """A solve of each panel at the panel's own scale: the scale of V is known only when all of it is read."""

    problem: WProblem
    h_unit: float

    def __call__(self, spec: PassSpec, scale: float) -> PassSpec:
        """Return the pass for a panel of this scale."""
        units = 1 / (scale * self.h_unit), self.h_unit
        solver = self.problem.solver_at(scale, units)
        return spec._replace(solve_w=solver.solve_w_final, loss=solver, unit=units[0])
