"""The engine of panels: V in panels of rows, their preferred workers, and their cache in each process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, cast
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed
from distributed import Client, Future

from dask_nmf import progress
from dask_nmf.cluster.client import active_client, assign_contiguous, shares_memory
from dask_nmf.cluster.watch import WORKER_LOSS, run_on_workers
from dask_nmf.errors import NoWorkers
from dask_nmf.execution.engine import FinalFactors, Model, Sink
from dask_nmf.execution.executor import compute_with_retries, guard_persisted, prefer_workers
from dask_nmf.execution.graphs import passes, reduction
from dask_nmf.execution.graphs.reduction import PanelTasks, PanelWork, PassInputs, Reduction
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.execution.tasks import block_cache
from dask_nmf.execution.tasks.block_cache import CachingReader
from dask_nmf.execution.tasks.block_pass import PassSpec, keep_w
from dask_nmf.execution.tasks.factor_store import InUnits
from dask_nmf.execution.tasks.prefetch import extra_reader_thread
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import EVERYTHING, EntryMask
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.residual_sums import Places
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.solver import ReadAgain, RightSolver, Solver
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Array

WEIGHTS_SUFFIX = "-weights"  # of the name by which weights of V are cached


class PanelEngine:
    """An engine over V in panels of rows: a pass is a task a panel, and a tree that adds their sums.

    Parameters
    ----------
    matrix : V.
    edges : the first row of each panel, and the number of rows.
    weights : the weights of the entries of V, if they differ.
    mask : decides which entries count, and with which weight.
    cache_bytes : the bytes of V that a process may cache between passes.
    prefetch : whether a process may prefetch one panel while it computes with others.

    Attributes
    ----------
    scale : a power of two that V is multiplied by; known after the first read.
    """

    def __init__(
        self,
        matrix: Matrix,
        edges: tuple[int, ...],
        weights: Matrix | None = None,
        mask: EntryMask = EVERYTHING,
        cache_bytes: int = 0,
        prefetch: bool = False,
    ) -> None:
        self.matrix = matrix
        self.edges = edges
        self.weights = weights
        self.mask = mask
        self.cache_bytes = cache_bytes
        self.prefetch = prefetch
        self.scale = 1.0
        self.name = uuid4().hex
        self.cached_names = (self.name, f"{self.name}{WEIGHTS_SUFFIX}") if cache_bytes else ()
        self.lease = block_cache.Lease(*self.cached_names)  # the lease of this process
        self.leases: dict[str, Future] = {}  # the leases of workers, by their addresses
        self.rebuild()

    @property
    def bytes(self) -> int:
        """Bytes of V and its weights that a pass reads, as they are in memory."""
        parts = (self.matrix,) if self.weights is None else (self.matrix, self.weights)
        return sum(part.bytes for part in parts)

    def rebuild(self) -> None:
        """Build the panels from the source of V, also anew when blocks in the memory of workers are lost."""
        self.panels = open_panels(self.matrix, self.edges, self.weights, self.mask, self.reader_of)
        self.tasks = PanelTasks(self.panels)

    def reader_of(self, matrix: Matrix) -> Reader:
        """Return the reader of V or of its weights that tasks use: with a cache, if it is to be cached."""
        if not self.cache_bytes or not matrix.worth_caching:
            return matrix.reader
        return CachingReader(matrix.reader, self.cached_names[matrix is not self.matrix], self.cache_bytes)

    def preferred_workers(self) -> dict[int, str]:
        """Return the address of the worker that caches a panel or gets its neighbours, by panel number."""
        client = active_client()
        if client is None:
            return {}
        threads = client.nthreads()
        if self.cache_bytes:
            self._grant_leases(client, threads)
        if not self.matrix.workers_can_read:
            return {}
        workers = dict(enumerate(assign_contiguous(len(self.edges) - 1, threads)))
        if self.cache_bytes and self.matrix.worth_caching:
            numbers = {first: number for number, first in enumerate(self.edges[:-1])}
            cached = run_on_workers(block_cache.cached_blocks, self.name, on_error="ignore")
            workers |= {numbers[place[0]]: address for address, places in cached.items() for place in places}
        return workers

    def _grant_leases(self, client: Client, workers: Iterable[str]) -> None:
        """Let each worker cache the blocks that it reads until the engine is closed or the client is gone."""
        leases = {address: self.leases.get(address) for address in workers}
        self.leases = {
            address: client.submit(
                block_cache.Lease,
                *self.cached_names,
                key=f"dask-nmf-lease-{uuid4().hex}",
                workers=[address],
                priority=1,  # ahead of the first panels
            )
            if lease is None or lease.status not in ("pending", "finished")
            else lease
            for address, lease in leases.items()
        }

    def close(self) -> None:
        """Evict the blocks of this engine from the cache of every process."""
        client = active_client()
        self.leases.clear()
        for name in self.cached_names:
            block_cache.evict_fit(name)
            if client is not None and client.status == "running":
                with suppress(*WORKER_LOSS, NoWorkers):  # a cluster that is gone has no cache
                    run_on_workers(block_cache.evict_fit, name, on_error="ignore")

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of its rows, in one read."""
        no_h = np.empty((0, self.matrix.layout.columns))
        summary: Summary = self.compute(no_h, passes.summarize(draw))
        return summary

    def sweep(self, models: Sequence[Model]) -> list[Sums]:
        """Return the sums of a pass for each model; a task loads its panel once for all of them."""
        specs = [passes.spec_of(model) for model in models]
        given = [model.state.h_input for model in models]
        totals: tuple[Sums, ...] = self.compute(given[0], passes.sweep_models(specs), more_h=given[1:])
        return list(totals)

    def run_pass(self, h: Array, spec: PassSpec, w: Array | da.Array | None = None) -> Sums:
        """Return the sums of one pass over V.

        Parameters
        ----------
        h : (k, columns), which all panels get.
        w : the factor that panels hold, (rows, k), if it is known; a Dask array has one block a panel.
        """
        beside = isinstance(w, da.Array)
        totals: Sums = (self.compute_beside if beside else self.compute)(h, passes.sweep(spec), w)
        return totals

    def run_pass_keeping_w(
        self, h: Array, spec: PassSpec, w: Array | None = None
    ) -> tuple[da.Array, Sums, da.Array | None]:
        """Return W of one pass, (rows, k), its sums, and the means of the rows, if they are taken.

        W and the means are Dask arrays whose blocks are in (distributed) memory.
        """
        parts: list[Any] = []

        def build(inputs: Delayed) -> list[Delayed]:
            nodes = passes.sweep_keeping_w(self.tasks, inputs, spec)
            prefer_workers(nodes, self.preferred_workers())
            parts[:] = dask.persist(*nodes)
            return [passes.add_up([reduction.item(part, 1) for part in parts])]

        totals: Sums = self.compute_all(h, build, w)[0]
        heights = reduction.heights(self.edges)

        def whole(index: int, *width: int, dtype: Any) -> da.Array:
            sized = zip(parts, heights, strict=True)
            blocks = [
                da.from_delayed(reduction.item(part, index), (rows, *width), dtype) for part, rows in sized
            ]
            return guard_persisted(da.concatenate(blocks))

        means = whole(2, dtype=h.dtype) if spec.averages else None
        return whole(0, h.shape[0], dtype=h.dtype), totals, means

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """See `Engine.finalize`; H is solved for too if V is transposed and no entry is held out."""
        state, slots = model.state, model.slots
        solver = model.solver.at_level(max(state.level, int(state.exact)))
        h, slot = state.best
        h, units, w_in = np.ascontiguousarray(h[: len(state.h)]), solver.penalty, None
        if slots is not None and solver.carries_w:
            w_in = solver.result_store(slots.factor(slot))
        # The held-out error was taken with this h, so h is not solved for again if entries are held out.
        settles = self.matrix.orientation.by_columns and solver.fits_h and self.mask.held_out == 0
        spec = PassSpec(solver.solve_w_final, solver, w_in, residual=True, residual_only=not settles)
        spec = spec._replace(unit=units.left_unit)
        last = self.last_pass(h, spec, new_sink)
        seen = state.measured.h if solver.may_overshoot and state.held_out.best.h is None else None
        if seen is not None and last.sums.residual + units.of(last.sums, h) > state.loss:
            h = np.ascontiguousarray(seen)  # the last Newton step overshot
            last = self.last_pass(h, spec, new_sink)
        right, loss = units.without_dead(last.sums, h), last.sums.residual
        if settles:
            read_again = self._reading_again(solver, last)
            # the sums have a residual, so ‖V‖² is not used
            right, loss = cast(RightSolver, solver).fit_h(h, last.sums, read_again, np.nan)
        sums = last.sums._replace(residual=loss)
        return last._replace(right=scaling.multiply(right, units.right_unit), sums=sums)

    def last_pass(
        self,
        h: Array,
        spec: PassSpec,
        new_sink: Callable[[], Sink] | None = None,
        w: Array | None = None,
    ) -> FinalFactors:
        """Return factors and residuals of a pass; ``w``: the factor that panels hold, if known."""
        places = Places.of((self.edges[-1], self.matrix.layout.columns), self.mask.beta)
        spec = spec._replace(averages=self.mask.needs_means, places=places)
        if new_sink is None:
            left, sums, means = self.run_pass_keeping_w(h, spec, w)
            return FinalFactors(left, h, sums, means).with_residuals(places, h, self.mask)
        sink = new_sink()
        sums = self.run_pass(h, spec._replace(w_out=sink.left, means=sink.means, weights=sink.weights), w)
        return FinalFactors(sink.left, h, sums).with_residuals(places, h, self.mask)

    def _reading_again(self, solver: Solver, last: FinalFactors) -> ReadAgain:
        """Return a function of H that reads V once more, with the left factor of the last pass.

        It returns the sums of that pass, in the units of the fit.
        """
        spec, unit, left = PassSpec(keep_w, solver, residual=True), 1 / solver.penalty.left_unit, last.left

        def read_again(h: Array) -> Sums:
            if isinstance(left, da.Array):
                return self.run_pass(h, spec, left.map_blocks(scaling.multiply, unit, dtype=left.dtype))
            return self.run_pass(h, spec._replace(w_in=InUnits(left, unit)))

        return read_again

    def compute(
        self, h: Array, reduction: Reduction, w: Array | None = None, more_h: Sequence[Array] = ()
    ) -> Any:
        """Return the result of a pass over V.

        A single panel that this process loads is computed in this thread, because a graph, its order and
        another thread would cost a small V more than its pass.
        """
        inputs = self.inputs(h, w, more_h)
        if len(self.edges) == 2 and not self.panels.arrays and not inputs.on_cluster and shares_memory():
            progress.report_read(1)
            part = PanelWork(self.panels.reader, reduction.chunk).run(0, inputs)
            progress.report_panel()
            return reduction.combine([part])
        return self.compute_all(h, lambda inputs: [self.tasks.reduce(reduction, inputs)], w, more_h)[0]

    def compute_beside(self, h: Array, reduction: Reduction, *beside: da.Array) -> Any:
        """Return the result of a pass over V and other arrays, with one block a panel."""

        def build(inputs: Delayed) -> list[Delayed]:
            return [PanelTasks(self.panels, *beside).reduce(reduction, inputs)]

        return self.compute_all(h, build)[0]

    def compute_all(
        self,
        h: Array,
        build: Callable[[Delayed], list[Delayed]],
        w: Array | None = None,
        more_h: Sequence[Array] = (),
    ) -> list[Any]:
        """Build the graph of a pass and return the values of its nodes: see `compute_with_retries`.

        H is a node of the graph, so that the scheduler can make it again if the worker that had it is lost.
        """
        inputs = self.inputs(h, w, more_h)

        def graph() -> list[Delayed]:
            return build(delayed(inputs, traverse=False))

        here = self.prefetch and not inputs.on_cluster and shares_memory()
        with extra_reader_thread() if here else nullcontext():
            return compute_with_retries(graph, self.rebuild, self.preferred_workers, len(self.edges) - 1)

    def inputs(self, h: Array, w: Array | None, more_h: Sequence[Array]) -> PassInputs:
        """Return the inputs of a pass that starts now."""
        on_cluster = active_client() is not None
        return PassInputs(h, self.edges, w, self.prefetch, on_cluster, self.scale, tuple(more_h), self.name)
