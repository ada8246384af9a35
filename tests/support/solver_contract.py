"""The contract of a solver as inheritable tests: see `SolverContract`."""

import json
from pathlib import Path

import dask
import numpy as np
import pytest
from support.matrices import low_rank
from support.runs import OPTIONS, SHAPES, Crash, assert_same_bits, crash_after, fit

from dask_nmf import Outcome, Run, nmf
from dask_nmf.options import settings
from dask_nmf.options.algorithms import SOLVERS
from dask_nmf.runs.record import states
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.solvers.parts.state import leaves
from dask_nmf.solvers.select import select_solver
from dask_nmf.solvers.solver import Problem, Solver
from dask_nmf.types import Orientation

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def made(solver: str) -> Solver:
    """Return the solver of a name for a V of 15 columns."""
    chosen = settings.Settings(3, solver)
    return select_solver(Problem(chosen, NO_PENALTY, 1.0, 1.0, np.dtype(float), 15, Orientation.ROWS))


class SolverContract:
    """Tests that every solver passes, by its name in the registry. A subclass has a fixture ``solver``."""

    def test_what_the_registry_says_of_it_is_so(self, solver: str) -> None:
        own, algorithm = made(solver), SOLVERS[solver]
        assert own.carries_w == algorithm.carries_w
        assert hasattr(own, "steps") == algorithm.by_strata
        assert hasattr(own, "solve_w") != algorithm.by_strata
        assert own.at_level(0) == own
        assert own.fits_h == hasattr(own, "find_h")

    def test_a_run_can_store_its_state(self, solver: str) -> None:
        first = made(solver).begin(np.empty((3, 0)))
        later = made(solver).begin(np.ones((3, 15)), w_slot=2)
        scalars, arrays = states.to_record(later)
        again = states.from_record(first, json.loads(json.dumps(scalars)), arrays)
        for (name, value), other in zip(leaves(later).items(), leaves(again).values(), strict=True):
            np.testing.assert_array_equal(value, other, err_msg=name)

    @shapes
    def test_passes_lower_the_loss_to_that_of_a_matrix_of_low_rank(
        self, solver: str, shape: tuple[int, int]
    ) -> None:
        v = low_rank(*shape, 2, noise=0.01)
        result = nmf(v, 2, solver=solver, random_state=0, max_iter=300, tol=1e-6)
        w, h = dask.compute(result.W, result.H)
        assert min(w.min(), h.min()) >= 0
        assert result.relative_error < 0.1
        assert result.error_history[-1] <= 1.05 * result.error_history[0]  # sgd: one sweep behind
        assert result.outcome in (Outcome.CONVERGED, Outcome.MAX_ITER)
        error = np.linalg.norm(v - w @ h) / np.linalg.norm(v)
        assert result.relative_error == pytest.approx(error, rel=1e-6)

    @shapes
    def test_a_fit_that_was_broken_off_is_resumed_bit_for_bit(
        self, solver: str, shape: tuple[int, int], tmp_path: Path, several_panels: None
    ) -> None:
        whole = nmf(low_rank(*shape, 3), **OPTIONS, solver=solver)
        with pytest.raises(Crash):
            fit(shape, tmp_path / "run.zarr", solver=solver, callback=crash_after(2))
        assert Run.load(tmp_path / "run.zarr").passes == 2
        assert_same_bits(fit(shape, tmp_path / "run.zarr", solver=solver), whole)

    def test_a_matrix_of_zeros_has_factors_of_zeros(self, solver: str) -> None:
        result = nmf(np.zeros((12, 8)), 2, solver=solver, random_state=0)
        assert result.outcome is Outcome.ZERO
        assert np.abs((result.W @ result.H).compute()).max() == 0
