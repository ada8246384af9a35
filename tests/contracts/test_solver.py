"""Every solver of the registry fulfils the contract of solvers."""

import pytest
from support.solver_contract import SolverContract

from dask_nmf.options.algorithms import SOLVERS


class TestSolvers(SolverContract):
    @pytest.fixture(params=SOLVERS)
    def solver(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)
