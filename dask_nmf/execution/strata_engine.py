"""Sweeps of SGD over V in blocks."""

from __future__ import annotations

from dask.delayed import Delayed, delayed

from dask_nmf.execution.graphs import strata
from dask_nmf.execution.graphs.strata import BlockGrid, BlockSource, SweepSpec
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.solvers.sgd import Swept
from dask_nmf.types import Array


def sweep_blocks(panels: PanelEngine, grid: BlockGrid, right: Array, what: SweepSpec) -> Swept:
    """One sweep of `SGD` over V, from H (k + 1, n)."""
    matrix, rule = panels.matrix, panels.rule

    def build(inputs: Delayed) -> Delayed:
        if not matrix.workers_can_read:
            return strata.sweep(panels.blocks, None, grid, inputs, what)
        through = panels.caching(matrix)
        reader = matrix.reader if through is None else through(matrix.reader)
        source = delayed(BlockSource(reader, rule), traverse=False)
        return strata.sweep(None, source, grid, inputs, what)

    swept: Swept = panels.compute(right, build)
    return swept
