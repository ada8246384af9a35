"""Residuals by blocks of V, worst rows and worst columns, against W H made whole."""

import tracemalloc
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from scipy.special import kl_div
from support.cuts import cut_both_ways
from support.matrices import dask_csr, low_rank
from support.strategies import cuts, seeds

from dask_nmf import Run, nmf
from dask_nmf.kernels.blocks import holed, row_batches, scaling
from dask_nmf.kernels.blocks.groups import held_out_groups
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.summary import residual_loops, residual_sums
from dask_nmf.kernels.summary.residual_sums import Places, Residuals, ResidualSums, block_edges
from dask_nmf.planning.worker_memory import (
    OF_ROW,
    RESIDUAL_BLOCKS,
    RESIDUALS_OF_CLIENT,
    RESIDUALS_WAITING,
    Layout,
    residuals_in_work,
    waiting_sums,
)
from dask_nmf.results import recomputed
from dask_nmf.results.residuals import residuals as residuals_of


def fitted(V: Any, folder: Path, **options: Any) -> tuple[Residuals, np.ndarray]:
    """Return the residuals of a fit of V, and its W H."""
    nmf(V, 2, max_iter=2, tol=0, store=folder / "run.zarr", overwrite=True, **options)
    stored = Run.load_result(folder / "run.zarr")
    return residuals_of(stored, V), stored.read("W").astype(float) @ stored.read("H").astype(float)


def check(found: Residuals, losses: np.ndarray, sizes: np.ndarray, rtol: float = 1e-6) -> None:
    """Compare residuals with the losses of all entries, (m, n), which are 0 where entries do not count."""
    rows, columns = found.rows.edges[:-1], found.columns.edges[:-1]
    for blocks, entries in ((found.losses, losses), (found.sizes, sizes)):
        whole = np.add.reduceat(np.add.reduceat(entries, rows, axis=0), columns, axis=1)
        np.testing.assert_allclose(blocks, whole, rtol=rtol, atol=1e-9 * whole.max())
    for side, axis in ((found.rows, 1), (found.columns, 0)):
        each = losses.sum(axis=axis)
        np.testing.assert_allclose(side.losses, np.sort(each)[::-1][:20], rtol=rtol)
        np.testing.assert_allclose(each[side.worst], side.losses, rtol=rtol)
        np.testing.assert_allclose(sizes.sum(axis=axis)[side.worst], side.sizes, rtol=rtol)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """V is read in several blocks, cut into few blocks of rows and columns."""
    monkeypatch.setattr(recomputed, "BUDGET", 4000)
    monkeypatch.setattr(residual_sums, "MOST_BLOCKS", 5)
    monkeypatch.setattr(residual_loops, "GRAMS", 200)
    monkeypatch.setattr(residual_loops, "TILE_COLUMNS", 7)


@pytest.mark.parametrize("shape", [(70, 13), (13, 70)])
@pytest.mark.parametrize("beta", ["frobenius", "kullback-leibler"])
@pytest.mark.parametrize("sparse", [False, True])
def test_losses_of_blocks_rows_and_columns_add_up(
    shape: tuple[int, int], beta: str, sparse: bool, tmp_path: Path
) -> None:
    V = low_rank(*shape, 3).astype(np.float64)
    kept = V / V.mean() > 0.6
    V = np.where(kept, V, 0)
    given = scipy.sparse.csr_array(V) if sparse else V
    found, model = fitted(given, tmp_path, beta_loss=beta)
    squared = beta == "frobenius"
    losses = (V - model) ** 2 if squared else 2 * kl_div(V, model)
    check(found, losses, V**2 if squared else np.ones(shape))


def test_missing_entries_do_not_count(tmp_path: Path) -> None:
    V = low_rank(30, 12, 3).astype(np.float64)
    V[::3, ::2] = np.nan
    found, model = fitted(V, tmp_path, missing="nan")
    check(found, np.nan_to_num((V - model) ** 2), np.nan_to_num(V**2))
    stored = scipy.sparse.csr_array(np.nan_to_num(V))
    found, model = fitted(stored, tmp_path, missing="unstored")
    check(found, np.nan_to_num((V - model) ** 2), np.nan_to_num(V**2))


def check_of_fit(V: Any, folder: Path, **options: Any) -> None:
    """Compare the residuals that the last read of a fit took with those of a read of their own."""
    run = folder / "run.zarr"
    result = nmf(V, 2, max_iter=30, store=run, overwrite=True, **options)
    found, wanted = result.residuals, residuals_of(Run.load_result(run), V)
    in_memory = nmf(V, 2, max_iter=30, **options).residuals
    assert found is not None
    assert in_memory is not None
    for one, other in ((found, wanted), (in_memory, found)):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4, atol=1e-4 * other.losses.max())
        np.testing.assert_allclose(one.sizes, other.sizes, rtol=1e-5)
        for side, known in ((one.rows, other.rows), (one.columns, other.columns)):
            np.testing.assert_allclose(side.losses, known.losses, rtol=1e-4, atol=1e-4 * known.losses[0])
            np.testing.assert_allclose(np.sort(side.sizes), np.sort(known.sizes), rtol=1e-5)
    assert found.total == pytest.approx(result.reconstruction_err**2, rel=1e-4)


@pytest.mark.parametrize("shape", [(70, 13), (13, 70)])
@pytest.mark.parametrize(
    "options", [{}, {"beta_loss": 1.0}, {"solver": "mu", "beta_loss": 1.5}, {"n_init": 2}]
)
@pytest.mark.parametrize("sparse", [False, True])
def test_the_last_read_of_a_fit_finds_the_same(
    shape: tuple[int, int], options: dict[str, Any], sparse: bool, tmp_path: Path
) -> None:
    V = 40 * low_rank(*shape, 5).astype(np.float32)  # whose mean is far from 1, so that the fit scales it
    V[0.6 * V.mean() > V] = 0
    check_of_fit(scipy.sparse.csr_array(V) if sparse else V, tmp_path, tol=1e-7, **options)


def test_the_last_read_of_a_fit_leaves_missing_entries_out(tmp_path: Path) -> None:
    V = low_rank(30, 12, 3).astype(np.float64)
    V[::3, ::2] = np.nan
    check_of_fit(V, tmp_path, missing="nan", n_init=2)
    check_of_fit(scipy.sparse.csr_array(np.nan_to_num(V)), tmp_path, missing="unstored")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("reads", [1, 2])
def test_so_does_that_of_a_v_cut_both_ways(
    wide: bool, sparse: bool, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    V = 40 * low_rank(70, 31, 5).astype(np.float32)
    V[0.6 * V.mean() > V] = 0
    V = V.T.copy() if wide else V
    cut_both_ways(
        monkeypatch, (0, 16, 48, 70), (0, 8, 31), reads
    )  # 5 blocks, of 14 rows and of 6 or 7 columns
    chunked = da.from_array(V, chunks=(10, 10))
    check_of_fit(dask_csr(V, scipy.sparse.csr_array) if sparse else chunked, tmp_path, tol=1e-7)
    stored = Run.load_result(tmp_path / "run.zarr")
    assert stored.residuals is not None
    if not wide:
        model = stored.read("W").astype(float) @ stored.read("H").astype(float)
        check(stored.residuals, (V - model) ** 2, V.astype(float) ** 2, 1e-4)


@pytest.mark.parametrize("shape", [(300, 13), (13, 300)])
@pytest.mark.parametrize("missing", [None, "nan"])
def test_the_last_read_of_a_fit_leaves_held_out_entries_out(
    shape: tuple[int, int], missing: str | None, tmp_path: Path
) -> None:
    V = 40 * low_rank(*shape, 5).astype(np.float64)
    if missing:
        V[::3, ::2] = np.nan
    check_of_fit(V, tmp_path, validation_fraction=0.1, missing=missing)
    stored = Run.load_result(tmp_path / "run.zarr")
    held_out = held_out_cells(shape, 0.1)
    losses = (V - stored.read("W").astype(float) @ stored.read("H").astype(float)) ** 2
    counts = ~(held_out | np.isnan(V))
    check(residuals_of(stored, V), np.where(counts, losses, 0), np.where(counts, V**2, 0))


@pytest.mark.parametrize("shape", [(300, 13), (13, 300)])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_zeros_that_are_held_out_do_not_count(
    shape: tuple[int, int], sparse: bool, beta: float, tmp_path: Path
) -> None:
    V = 40 * low_rank(*shape, 5).astype(np.float64)
    V[0.6 * V.mean() > V] = 0
    given = scipy.sparse.csr_array(V) if sparse else V
    check_of_fit(given, tmp_path, validation_fraction=0.1, beta_loss=beta)
    stored = Run.load_result(tmp_path / "run.zarr")
    counts = ~held_out_cells(shape, 0.1)
    model = stored.read("W").astype(float) @ stored.read("H").astype(float)
    losses, sizes = ((V - model) ** 2, V**2) if beta == 2 else (2 * kl_div(V, model), np.ones(shape))
    found = stored.residuals
    assert found is not None
    check(found, np.where(counts, losses, 0), np.where(counts, sizes, 0), 1e-4)


def held_out_cells(shape: tuple[int, int], share: float) -> np.ndarray:
    """Return which cells of V, (m, n), a fit with seed 0 holds out."""
    groups = held_out_groups(0, share, *map(np.arange, shape))
    return ~groups.counts[groups.rows][:, groups.columns]


@given(edges=cuts(40), seed=seeds)
def test_sums_of_residuals_do_not_depend_on_how_rows_are_cut(edges: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    v, w, h = random.random((40, 9)), random.random((40, 2)), random.random((2, 9))
    places = Places.of(v.shape, 2.0)

    def sums_of(block: Any, first: int, last: int) -> ResidualSums:
        numbers = np.arange(first, last)
        return residual_sums.residual_sums(block[first:last], w[first:last], h, places, numbers)

    for block in (v, scipy.sparse.csr_array(np.where(v > 0.5, v, 0))):
        parts = [sums_of(block, first, last) for first, last in pairwise(edges)]
        found, wanted = (sums.finish(places, h) for sums in (reduce(add, parts), sums_of(block, 0, 40)))
        np.testing.assert_allclose(found.losses, wanted.losses, atol=1e-12)
        for side, known in ((found.rows, wanted.rows), (found.columns, wanted.columns)):
            np.testing.assert_array_equal(side.worst, known.worst)
            np.testing.assert_allclose(side.losses, known.losses, atol=1e-12)


def test_another_v_is_refused(tmp_path: Path) -> None:
    V = low_rank(30, 12, 3)
    fitted(V, tmp_path)
    stored = Run.load_result(tmp_path / "run.zarr")
    with pytest.raises(
        ValueError, match=r"V is 12 x 30 and the run is of a V of 30 x 12; give the V that was"
    ):
        residuals_of(stored, V.T)
    with pytest.raises(ValueError, match=r"the relative error of this V is .*; give the V that was fitted"):
        residuals_of(stored, np.random.default_rng(0).random((30, 12), np.float32))
    nmf(V, 2, max_iter=1, store=tmp_path / "w.zarr", weights=np.full(V.shape, 2.0, V.dtype))
    with pytest.raises(ValueError, match="the fit had weights"):
        residuals_of(Run.load_result(tmp_path / "w.zarr"), V)


@pytest.mark.parametrize("seed", [0, 1, 4, 6])
def test_residuals_of_an_exact_fit_are_those_of_rounding(seed: int, tmp_path: Path) -> None:
    """The sum of its expanded squares may be below 0."""
    random = np.random.default_rng(seed)
    w, h = np.zeros((40, 2)), np.zeros((2, 30))
    w[:20, 0], w[20:, 1], h[0, :15], h[1, 15:] = (random.random(size) for size in (20, 20, 15, 15))
    V = scipy.sparse.csr_array(w @ h)
    nmf(V, 2, tol=1e-12, store=tmp_path / "run.zarr", random_state=seed)
    found = residuals_of(Run.load_result(tmp_path / "run.zarr"), V)
    assert 0 <= found.total < 1e-12


def test_blocks_are_at_most_as_many_as_rows() -> None:
    np.testing.assert_array_equal(block_edges(3), [0, 1, 2, 3])
    edges = block_edges(1001)
    assert len(edges) == 6
    assert set(np.diff(edges)) <= {200, 201}


@pytest.mark.parametrize("options", [{"beta_loss": "kullback-leibler"}, {"validation_fraction": 0.1}])
def test_another_v_is_refused_whatever_the_loss(options: dict[str, Any], tmp_path: Path) -> None:
    V = low_rank(30, 12, 3)
    fitted(V, tmp_path, **options)
    with pytest.raises(ValueError, match="give the V that was fitted"):
        residuals_of(Run.load_result(tmp_path / "run.zarr"), np.random.default_rng(0).random(V.shape))
    V[4] *= 1.001  # the relative error is about the same
    with pytest.raises(ValueError, match=r"V is not the same in row 4; give the V that was fitted"):
        residuals_of(Run.load_result(tmp_path / "run.zarr"), V)


def test_memory_does_not_grow_with_the_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputed, "BUDGET", 1 << 26)
    V = scipy.sparse.csr_array(low_rank(200, 60, 3))
    nmf(V, 40, max_iter=1, init="random", store=tmp_path / "run.zarr")
    stored = Run.load_result(tmp_path / "run.zarr")
    assert traced(lambda: residuals_of(stored, V))[1] < 4e6  # all 12,000 entries of rank 40 would gather 8 MB


def test_sums_down_long_columns_are_as_exact_as_those_of_short_ones() -> None:
    v, nothing = np.full((20_000, 8), 0.3, np.float32), np.zeros((1, 8), np.float32)
    places, numbers = Places.of(v.shape, 2.0), np.arange(len(v))
    sums = residual_sums.residual_sums(v, np.zeros((len(v), 1), np.float32), nothing, places, numbers)
    assert sums.loss == pytest.approx(float(v[0, 0]) ** 2 * v.size, rel=3e-6)


def traced(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns, and the least peak of three calls: other threads take memory too."""
    found, peaks = call(), []  # which compiles
    for _ in range(3):
        tracemalloc.start()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return found, min(peaks)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rank", [1, 6, 40])
def test_the_plan_counts_their_memory(sparse: bool, rank: int) -> None:
    n = 20_000
    v = np.random.default_rng(0).random((5, n), np.float32)
    block = scipy.sparse.csr_array(v * (v > 0.98)) if sparse else v
    places, w, h = Places.of(v.shape, 2.0), np.ones((5, rank), np.float32), np.ones((rank, n), np.float32)

    sums, in_task = traced(lambda: residual_sums.residual_sums(block, w, h, places, np.arange(5)))
    assert in_task <= residuals_in_work(Layout(5, n, v.itemsize), rank)
    assert sums.columns.nbytes == RESIDUALS_WAITING * n
    finished = traced(lambda: sums.finish(places, h))[1]
    assert sums.columns.nbytes + finished <= RESIDUALS_OF_CLIENT * n + RESIDUAL_BLOCKS


def test_the_plan_counts_grams_of_blocks_of_a_sparse_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual_sums, "MOST_BLOCKS", 64)
    v = scipy.sparse.eye_array(150, 1000, dtype=np.float32, format="csr")
    rank, places, numbers = 100, Places.of(v.shape, 2.0), np.arange(150)
    w, h = np.ones((150, rank), np.float32), np.ones((rank, 1000), np.float32)
    in_task = traced(lambda: residual_sums.residual_sums(v, w, h, places, numbers))[1]
    planned = residuals_in_work(Layout(*v.shape, 4, indptr=v.indptr), rank)
    assert planned / 2 < in_task <= planned


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("rank", [3, 30])
def test_the_plan_counts_zeros_that_are_held_out(
    beta: float, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the small parts
    rows, n = 640, 3000
    v = scipy.sparse.random_array((rows, n), density=0.001, rng=0, format="csr", dtype=np.float32)
    rule = EntryMask(held_out=0.05, beta=beta)
    layout = Layout(*v.shape, 4, indptr=v.indptr, labels=rule.labels, masked=beta == 1, by_batches=beta == 2)
    block, places = MaskedBlock(v, None, np.arange(rows), rule), Places.of(v.shape, beta)
    w, h = np.ones((rows, rank), np.float32), np.ones((rank, n), np.float32)
    if beta == 2:
        kept = next(holed.iter_batches(block, [h])).of_models[0]
    else:
        kept = next(row_batches.iter_row_batches(block)).cells
    sums, in_task = traced(lambda: residual_sums.residual_sums(kept, w, h, places, np.arange(rows)))
    of_rows = rows * (5 * rank * 4 + OF_ROW)  # which plans count for the rows of a panel
    planned = residuals_in_work(layout, rank) + of_rows
    assert planned / 4 < in_task <= planned
    assert sums.zeros.nbytes <= waiting_sums(layout, rank, False) - rank * n * 8


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 2.0**40])
def test_sums_of_a_dense_block_are_those_of_its_entries(order: Any, scale: float) -> None:
    """The block has several strips of rows and of columns, and blocks of V end inside of both."""
    random = np.random.default_rng(0)
    v = np.asarray(random.random((600, 2300), np.float32), order=order)
    w, h = random.random((600, 3), np.float32), random.random((3, 2300), np.float32)
    places, block = Places.of(v.shape, 2.0), scaling.with_scale(v / np.float32(scale), scale)
    sums = residual_sums.residual_sums(block, w, h, places, np.arange(600))
    losses = (v.astype(float) - w.astype(float) @ h) ** 2
    check(sums.finish(places, h), losses, v.astype(float) ** 2)
