"""The engine of `SGD`: sweeps over V in blocks, stratum by stratum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from dask.delayed import Delayed

from dask_nmf.execution.engine import FinalFactors, Model, Sink
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import strata
from dask_nmf.execution.graphs.strata import BlockGrid, BlockSource, ModelSteps, SweepSpec
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.sgd import SweepSums
from dask_nmf.solvers.solver import StratumSolver
from dask_nmf.types import Array


class StrataEngine:
    """An engine over V in a grid of blocks for sweeps, and in panels for all other passes.

    Parameters
    ----------
    panels : V in the rows of the grid.
    grid : the edges of the blocks.
    seed : the seed of the order of blocks, and of rows in a block.
    """

    def __init__(self, panels: PanelEngine, grid: BlockGrid, seed: int) -> None:
        self.panels = panels
        self.grid = grid
        self.seed = seed

    @property
    def scale(self) -> float:
        """A power of two that V is multiplied by."""
        return self.panels.scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self.panels.scale = scale

    @property
    def name(self) -> str:
        """The name by which processes count the time of tasks."""
        return self.panels.name

    @property
    def bytes(self) -> int:
        """Bytes of V that a sweep reads."""
        return self.panels.bytes

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of its rows, in one read."""
        return self.panels.summarize(draw)

    def sweep(self, models: Sequence[Model]) -> list[SweepSums]:
        """Return the result of a sweep for each model.

        V is read once for all models with equally many accepted sweeps, because these decide the order of
        the blocks: models that are to take the blocks in different orders cannot share a read of a V that
        is not kept in memory.
        """
        swept: dict[int, SweepSums] = {}
        epochs = [cast(StratumSolver, model.solver).epoch(model.state) for model in models]
        for epoch in dict.fromkeys(epochs):
            numbers = [number for number, own in enumerate(epochs) if own == epoch]
            sharing = [models[number] for number in numbers]
            spec = SweepSpec(tuple(_steps_of(model) for model in sharing), self.seed, epoch)
            results = self.run_sweep([model.state.h_input for model in sharing], spec)
            swept |= zip(numbers, results, strict=True)
        return [swept[number] for number in range(len(models))]

    def run_sweep(self, right: Sequence[Array], spec: SweepSpec) -> list[SweepSums]:
        """Return the results of one sweep that several models share.

        Parameters
        ----------
        right : the H of each model, with AdaGrad's memory as its last row, (k + 1, n).
        """

        def build(inputs: Delayed) -> list[Delayed]:
            panels = self.panels.panels  # they are other ones after a loss of workers
            array = panels.arrays[0] if panels.arrays else None
            source = BlockSource(panels.reader.readers[0], panels.reader.mask)
            return [strata.sweep(array, source, self.grid, inputs, spec)]

        swept: list[SweepSums] = self.panels.compute_all(right[0], build, more_h=right[1:])[0]
        return swept

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """Return W and H in one read of V in panels: see `PanelEngine.finalize`."""
        return self.panels.finalize(model, new_sink)

    def close(self) -> None:
        """Evict the blocks of this engine from the cache of every process."""
        self.panels.close()


def _steps_of(model: Model) -> ModelSteps:
    """Return the steps of a model in its next sweep; they name a new store for its next W."""
    solver, state, slots = cast(StratumSolver, model.solver), model.state, model.slots
    assert slots is not None
    return ModelSteps(solver.steps(state), slots.factor(state.w_slot), slots.new_factor(state.next_slot))
