"""A solver is one file and one line in the registry: here one that the package does not have."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from support.solver_contract import SolverContract

from dask_nmf.kernels import least_squares
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.options.algorithms import SOLVERS, Algorithm
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.squared_error import SquaredError, loss_of_h
from dask_nmf.solvers.parts.state import NoRecord, State
from dask_nmf.solvers.solver import Problem, SolverDefaults
from dask_nmf.types import Array, Block

# ---- the new solver: a step against the gradient in W, and one in H, each cut off at 0


@dataclass(frozen=True)
class ProjectedGradient(SquaredError, SolverDefaults):
    """Projected gradient descent, with the steps that a Lipschitz constant allows."""

    penalty: Penalty
    size: float  # of an entry of a W that begins
    carries_w: ClassVar[bool] = True

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        begun = np.full((v.shape[0], len(h)), self.size, h.dtype) if w is None else w
        for _ in range(10):
            begun = descend(begun, *least_squares.normal_equations(v, h))
        return begun

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def update(self, state: State[NoRecord], totals: Sums, sumsq: float) -> State[NoRecord]:
        before = state.h_input
        h = np.ascontiguousarray(descend(before.T, totals.num.T, totals.gram).T)
        loss, exact = loss_of_h(sumsq, totals, before, h), not np.isnan(totals.residual)
        return replace(state, h=h, h_input=h, loss=loss, exact=exact, w_slot=state.next_slot)


def descend(factor: Array, num: Array, gram: Array) -> Array:
    """Return max(0, X − ∇f / L) for f(X) = ‖V − X H‖² / 2, with num = V Hᵀ and gram = H Hᵀ."""
    steepest = max(float(np.linalg.norm(gram, 2)), float(np.finfo(factor.dtype).tiny))
    return np.maximum(factor - (factor @ gram - num) / steepest, 0).astype(factor.dtype)


def make(problem: Problem) -> ProjectedGradient:
    return ProjectedGradient(problem.penalty, problem.factor_scale)


# ---- the line


class TestANewSolver(SolverContract):
    @pytest.fixture
    def solver(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setitem(SOLVERS, "pg", Algorithm(__name__, betas=(2.0,), carries_w=True))
        return "pg"
