"""The engine of blocks in the memory of this process, computed by its threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial, reduce
from itertools import accumulate
from operator import add
from typing import Any, Self

import numpy as np

from dask_nmf.execution.engine import FinalFactors, Model, Sink
from dask_nmf.execution.graphs import passes
from dask_nmf.execution.tasks import blas, block_pass
from dask_nmf.execution.tasks.block_pass import ModelPart, PassSpec
from dask_nmf.execution.tasks.factor_store import InMemoryFactor
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.types import Array, Block


class InMemoryEngine:
    """An engine over blocks of rows of V in memory; it keeps W, with which the next pass begins.

    BLAS has one thread while the engine is open. Use it as a context, or `close` it.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self.edges = [0, *accumulate(block.shape[0] for block in blocks)]
        self.name = ""  # the time of tasks is not counted
        self.scale = 1.0
        self._w: list[list[Array | None]] = []  # W of each model in each block
        self._open = ExitStack()
        self._open.enter_context(blas.one_blas_thread())
        self._map: Callable[..., Iterable[Any]] = (
            map  # for one small block, a thread would take as long as the pass
        )
        if len(blocks) > 1:
            threads = ThreadPoolExecutor(min(len(blocks), CPU_COUNT))
            self._map = self._open.enter_context(threads).map

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def bytes(self) -> int:
        """Bytes of V that a pass reads: 0, because V is in memory."""
        return 0

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of its rows."""
        parts = [
            row_sample.summarize_panel(block, first, draw)
            for block, first in zip(self.blocks, self.edges, strict=False)
        ]
        return row_sample.merge_summaries(parts, draw)

    def sweep(self, models: Sequence[Model]) -> list[Sums]:
        """Return the sums of a pass for each model; each block is processed for all models in turn."""
        return self.run_passes([(model.state.h_input, passes.spec_of(model)) for model in models])

    def run_pass(self, h: Array, spec: PassSpec) -> Sums:
        """Return the sums of a pass with the given H, (k, n)."""
        return self.run_passes([(h, spec)])[0]

    def run_passes(self, given: Sequence[tuple[Array, PassSpec]]) -> list[Sums]:
        """Return the sums of several passes, each with its own H, (k, n)."""
        self._w += [[None] * len(self.blocks) for _ in given[len(self._w) :]]
        parts = self._map(partial(self._look, given=given), range(len(self.blocks)))
        return [reduce(add, each) for each in zip(*parts, strict=True)]

    def _look(self, number: int, given: Sequence[tuple[Array, PassSpec]]) -> list[Sums]:
        block = masking.with_scale(self.blocks[number], self.scale)
        parts = [ModelPart(*each, w[number]) for each, w in zip(given, self._w, strict=False)]
        found: list[Any] = [None] * len(parts)
        for some in block_pass.stacks([part.spec for part in parts], [len(part.h) for part in parts]):
            results = block_pass.process_models(block, [parts[model] for model in some])
            for model, (w, sums) in zip(some, results, strict=True):
                self._w[model][number], found[model] = w, sums
        return found

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """Solve for W and write it to the sink, or to memory if there is none; H stays as it is."""
        solver = model.own_solver
        h, units = np.ascontiguousarray(model.state.h), solver.penalty
        spec = PassSpec(solver.solve_w_final, solver, residual=True, residual_only=True)
        sums = self.run_pass(h, spec)
        blocks = [scaling.multiply(w, units.left_unit) for w in self._w[0] if w is not None]
        left = new_sink().left if new_sink else InMemoryFactor(self.edges[-1], len(h), h.dtype)
        for first, w in zip(self.edges, blocks, strict=False):
            left.write(first, w)
        return FinalFactors(left, scaling.multiply(units.without_dead(sums, h), units.right_unit), sums)

    def close(self) -> None:
        """End the threads, release W, and lift the limit on BLAS."""
        self._open.close()
        self._w.clear()
