"""Selection of the solver for given settings, or for inference with a given loss."""

from __future__ import annotations

from importlib import import_module

from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import ConvergedMU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.solver import Problem, Solver


def select_solver(problem: Problem) -> Solver:
    """Return the solver that the settings of a problem name, see `dask_nmf.options.algorithms`."""
    solver: Solver = import_module(problem.settings.algorithm.module).make(problem)
    return solver


def select_inference_solver(
    beta: float, penalty: Penalty, floor: float, scale: float = 1.0
) -> HALS | KLNewton | ConvergedMU:
    """Return the solver that finds W for a fixed H and the loss of ``beta``."""
    if beta == 2:
        return HALS(penalty)
    if beta == 1:
        return KLNewton(floor, penalty)
    return ConvergedMU(DivergenceTerms(BetaDivergence(beta, floor), scale), penalty=penalty)
