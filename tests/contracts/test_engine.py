"""Every engine of the package fulfils the contract of engines."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support.cuts import grid_plan
from support.engine_contract import RANK, EngineCase, EngineContract, V, counted_matrix
from support.matrices import Array

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.grid import GridEngine
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.engines.strata import StrataEngine
from dask_nmf.execution.graphs.strata import BlockGrid
from dask_nmf.execution.tasks.factor_store import FactorStore, InMemoryFactor, InMemorySlots
from dask_nmf.kernels.gradient import SGDOptions, with_accumulator
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.solvers.piecewise import PiecewiseHALS
from dask_nmf.solvers.sgd import SGD, SGDState, SweepSums
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

ROWS, COLUMNS = (0, 20, 40, 60), (0, 8, 16, 24)


def start(seed: int, columns: int = V.shape[1]) -> Array:
    return np.random.default_rng(seed).random((RANK, columns))


def hals(seed: int) -> Model:
    return Model(HALS(), HALS().begin(start(seed)), exact=True)


def next_h(model: Model, totals: Sums) -> Array:
    return HALS().update_h(model.state.h_input, totals)


@pytest.fixture
def panels() -> Iterator[PanelEngine]:
    engine = PanelEngine(open_matrix(V, orientation=Orientation.ROWS), ROWS)
    yield engine
    engine.close()


class TestPanels(EngineContract):
    """V in panels of rows."""

    @pytest.fixture
    def case(self) -> EngineCase:
        matrix, reads = counted_matrix()
        engine = PanelEngine(matrix, ROWS)
        return EngineCase(engine, hals, lambda totals: totals.residual, next_h, reads)


class TestInMemory(EngineContract):
    """Blocks of rows in this process."""

    @pytest.fixture
    def case(self) -> Iterator[EngineCase]:
        with InMemoryEngine([V[first:last] for first, last in pairwise(ROWS)]) as engine:
            yield EngineCase(engine, hals, lambda totals: totals.residual, next_h)


def sgd(seed: int) -> Model:
    solver = SGD(SGDOptions(0.03, True, float(V.mean()), 0, 0, 0, 0, 8), "adagrad", NO_PENALTY)
    slots = InMemorySlots(len(V), RANK + 1, V.dtype)
    slots.new_factor(0).write(0, with_accumulator(start(seed + 9, len(V)).T.copy()))
    return Model(solver, solver.begin(start(seed), w_slot=0), slots=slots)


@pytest.mark.parametrize("tiled", [True, False])
class TestStrata(EngineContract):
    """V in strata of blocks, for SGD, that are read one by one or in rows."""

    @pytest.fixture
    def case(self, tiled: bool) -> EngineCase:
        matrix, reads = counted_matrix()
        engine = StrataEngine(PanelEngine(matrix, ROWS), BlockGrid(ROWS, COLUMNS, tiled), 5)
        return EngineCase(engine, sgd, lambda totals: totals.residual, right_of, reads)

    def test_models_with_other_orders_of_blocks_have_the_totals_of_one_alone(self, case: EngineCase) -> None:
        epochs = (1, 0, 1, 2)

        def model(number: int) -> Model:
            made = sgd(number)
            return made._replace(state=replace(made.state, own=SGDState(epoch=epochs[number])))

        together = case.engine.sweep([model(number) for number in range(4)])
        assert set(case.reads.values()) == {len(set(epochs))}
        for number, beside in enumerate(together):
            (own,) = case.engine.sweep([model(number)])
            np.testing.assert_array_equal(own.right, beside.right)
            assert own[1:] == beside[1:]


def right_of(model: Model, totals: SweepSums) -> Array:
    return totals.right


class PiecewiseSlots(InMemorySlots):
    """Places for Hᵀ and for the W of a pass, in memory."""

    def new_h_pieces(self, slot: int) -> FactorStore:
        return self.new_factor(slot)

    def temporary_w(self) -> FactorStore:
        return InMemoryFactor(len(V), RANK, V.dtype)


@pytest.mark.parametrize("reads", [1, 2])
class TestGrid(EngineContract):
    """V cut both ways, read once and twice a pass."""

    @pytest.fixture
    def case(self, reads: int) -> EngineCase:
        matrix, counts = counted_matrix()
        engine = GridEngine(matrix, grid_plan(ROWS, COLUMNS, reads))

        def model(seed: int) -> Model:
            slots = PiecewiseSlots(V.shape[1], RANK, V.dtype)
            slots.new_factor(0).write(0, start(seed).T)
            no_h = np.empty((RANK, 0))
            return Model(PiecewiseHALS(), PiecewiseHALS().begin(no_h, w_slot=0), exact=True, slots=slots)

        return EngineCase(engine, model, lambda totals: totals.loss, written_h, counts)


def written_h(model: Model, totals: Any) -> Array:
    assert model.slots is not None
    return model.slots.factor(model.state.next_slot).read(0, V.shape[1]).T


def test_the_sums_of_several_models_are_those_of_one_block_in_memory(panels: PanelEngine) -> None:
    models = [hals(seed) for seed in range(3)]
    with InMemoryEngine([V]) as whole:
        for one, other in zip(panels.sweep(models), whole.sweep(models), strict=True):
            for field, expected in zip(one, other, strict=True):
                np.testing.assert_allclose(field, expected, rtol=1e-9)


def test_models_may_have_different_ranks_and_levels(panels: PanelEngine) -> None:
    wide = np.random.default_rng(7).random((5, V.shape[1]))
    models = [hals(0), Model(HALS(), replace(HALS().begin(wide), level=1), exact=True)]
    for model, beside in zip(models, panels.sweep(models), strict=True):
        (own,) = panels.sweep([model])
        for field, expected in zip(own, beside, strict=True):
            np.testing.assert_array_equal(field, expected)
