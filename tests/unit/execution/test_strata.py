"""A sweep of sgd: strata that cover the grid, blocks read once, the same as one block after the other."""

from collections import Counter
from itertools import groupby, pairwise, product

import dask
import numpy as np
import pytest
import scipy.sparse
from dask import delayed
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array, low_rank
from support.strategies import cuts, seeds

from dask_nmf import rng
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.engines.strata import StrataEngine
from dask_nmf.execution.graphs import strata
from dask_nmf.execution.graphs.reduction import PassInputs
from dask_nmf.execution.graphs.strata import BlockGrid, BlockSource, ModelSteps, SweepSpec
from dask_nmf.execution.tasks.factor_store import InMemoryFactor
from dask_nmf.kernels import gradient
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

V = low_rank(60, 24, 3, noise=1)
HOW = SGDOptions(0.05, True, float(V.mean()), 0.1, 0.2, 0.0, 0.0, 4)


@given(height=st.integers(1, 12), width=st.integers(1, 5), seed=seeds, epoch=st.integers(0, 3))
def test_every_block_is_visited_once_and_strata_share_nothing(
    height: int, width: int, seed: int, epoch: int
) -> None:
    width = min(width, height)
    grid = BlockGrid(range(height + 1), range(width + 1), True)
    found = strata.schedule(grid, seed, epoch)
    assert sorted((visit.row, visit.column) for visit in found) == list(product(range(height), range(width)))
    for row, visits in groupby(sorted(found, key=lambda visit: visit.row), lambda visit: visit.row):
        own = list(visits)
        assert [visit.first_in_row for visit in own] == [True, *[False] * (width - 1)], row
        assert [visit.last_in_row for visit in own] == [*[False] * (width - 1), True], row
    if height % width == 0:
        for first in range(0, len(found), width):
            assert len({visit.row for visit in found[first : first + width]}) == width


@given(width=st.integers(1, 5), seed=seeds)
def test_few_rows_of_blocks_are_in_work_at_once(width: int, seed: int) -> None:
    grid = BlockGrid(range(4 * width + 1), range(width + 1), False)
    open_rows: set[int] = set()
    for visit in strata.schedule(grid, seed, 0):
        open_rows |= {visit.row}
        assert len(open_rows) <= width
        if visit.last_in_row:
            open_rows -= {visit.row}


def test_the_order_is_another_one_in_every_epoch_and_for_every_seed() -> None:
    grid = BlockGrid(range(17), range(5), True)
    orders = {tuple(strata.schedule(grid, seed, epoch)) for seed in (0, 1) for epoch in range(3)}
    assert len(orders) == 6


def swept(
    v: object, rule: EntryMask, grid: BlockGrid, epoch: int = 0
) -> tuple[Array, Array, strata.SweepSums]:
    """W and H after a sweep, and the sums."""
    opened = open_matrix(v, orientation=Orientation.ROWS)
    panels = PanelEngine(opened, tuple(grid.rows), mask=rule)
    before, after = (InMemoryFactor(V.shape[0], 4, V.dtype) for _ in range(2))
    random = np.random.default_rng(1)
    before.array[:] = gradient.with_accumulator(random.random((V.shape[0], 3)))
    right = np.ascontiguousarray(gradient.with_accumulator(random.random((V.shape[1], 3))).T)
    spec = SweepSpec((ModelSteps(HOW, before, after),), 7, epoch)
    (found,) = StrataEngine(panels, grid, 7).run_sweep([right], spec)
    return after.array, found.right, found


def serial(v: Array, rule: EntryMask, grid: BlockGrid, epoch: int = 0) -> tuple[Array, Array]:
    """The same, one block after the other."""
    random = np.random.default_rng(1)
    w, h = (gradient.with_accumulator(random.random((size, 3))) for size in V.shape)
    for visit in strata.schedule(grid, 7, epoch):
        rows, columns = slice(*grid.rows[visit.row :][:2]), slice(*grid.columns[visit.column :][:2])
        numbers = np.arange(rows.start, rows.stop)
        chance = rng.uniform_at(7, rng.Stream.ROW_ORDER, numbers, np.array([epoch]))
        block = BlockSource(open_matrix(v, orientation=Orientation.ROWS).reader, rule).read(rows, columns)
        part, across = w[rows].copy(), h[columns].copy()
        strata._steps(block, part, across, np.argsort(chance), HOW)
        w[rows], h[columns] = part, across
    return w, h.T


@given(rows=cuts(60), columns=cuts(24), tiled=st.booleans(), missing=st.sampled_from([None, "nan"]))
def test_a_sweep_is_that_of_one_block_after_the_other(
    rows: tuple[int, ...], columns: tuple[int, ...], tiled: bool, missing: str | None
) -> None:
    columns = (0, 24) if len(columns) > len(rows) else columns
    grid, rule = BlockGrid(rows, columns, tiled), EntryMask(missing)
    v = V if missing is None else np.where(np.random.default_rng(0).random(V.shape) < 0.5, np.nan, V)
    for ours, theirs in zip(swept(v, rule, grid)[:2], serial(v, rule, grid), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_dense_and_csr_agree_bit_for_bit() -> None:
    grid = BlockGrid((0, 20, 40, 60), (0, 9, 24), True)
    kept = np.random.default_rng(0).random(V.shape) < 0.5
    dense = swept(np.where(kept, V, np.nan), EntryMask("nan", 0.2, 3), grid)
    csr = swept(scipy.sparse.csr_array(V * kept), EntryMask("unstored", 0.2, 3), grid._replace(tiled=False))
    for ours, theirs in zip(dense[:2], csr[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert dense[2][1:] == csr[2][1:]
    assert 0 < dense[2].held_out_weight < kept.sum()


def test_processes_and_threads_give_the_same_bits(client: Client) -> None:
    grid = BlockGrid((0, 20, 40, 60), (0, 9, 24), False)
    parallel = swept(V, EntryMask(), grid)
    with dask.config.set(scheduler="synchronous"):
        alone = swept(V, EntryMask(), grid)
    for ours, theirs in zip(parallel[:2], alone[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


class CountingReader(ReaderDefaults):
    """V, and how often each of its entries was read."""

    shape, dtype = V.shape, V.dtype

    def __init__(self) -> None:
        self.boxes: Counter[tuple[int, ...]] = Counter()

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        self.boxes[index[0].start, index[0].stop, index[1].start, index[1].stop] += 1
        return V[index]


@pytest.mark.parametrize("tiled", [True, False])
def test_building_a_sweep_reads_nothing_and_a_sweep_reads_everything_once(tiled: bool) -> None:
    reader, grid = CountingReader(), BlockGrid((0, 20, 40, 60), (0, 9, 24), tiled)
    slot = InMemoryFactor(60, 4, V.dtype)
    slot.array[:] = 1
    given_h = delayed(PassInputs(np.ones((4, 24)), grid.rows), traverse=False)
    spec = SweepSpec((ModelSteps(HOW, slot, slot),), 0, 0)
    graph = strata.sweep(None, BlockSource(reader, EntryMask()), grid, given_h, spec)
    assert not reader.boxes
    graph.compute(scheduler="synchronous")
    columns = list(pairwise(grid.columns)) if tiled else [(0, 24)]
    assert reader.boxes == Counter((*rows, *across) for rows in pairwise(grid.rows) for across in columns)
