"""A pass: built without computing, one read and one task a panel, the same sums under any cut."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from threading import Event
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from dask.delayed import delayed as delayed_of_user
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from support.blas import blas_threads, wait_until_unlimited
from support.matrices import Array, low_rank
from support.reads import EDGES, READS, V, counted_matrix, no_scheduler
from support.servers import PATIENCE
from support.strategies import cuts
from threadpoolctl import threadpool_limits

from dask_nmf import nmf
from dask_nmf.errors import InvalidEntryError
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes, reduction
from dask_nmf.execution.graphs.reduction import PanelTasks, PassInputs
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.execution.tasks import blas, block_pass, factor_store
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.registry import open_matrix

H = low_rank(3, 12, 2)
SOLVER = HALS()


def sweep(edges: tuple[int, ...], v: Any = V) -> row_sums.Sums:
    panels = PanelEngine(open_matrix(v), edges)
    return panels.run_pass(H, PassSpec(SOLVER.solve_w, SOLVER, residual=True))


def test_building_passes_computes_nothing() -> None:
    opened = counted_matrix()
    with dask.config.set(scheduler=no_scheduler):
        panels = PanelTasks(open_panels(opened, EDGES))
        given = dask.delayed(PassInputs(H, EDGES), traverse=False)
        for build in BUILDS.values():
            build(panels, given)
    assert not READS


BUILDS: dict[str, Callable[[Any, Any], Any]] = {
    "sweep": lambda panels, given: panels.reduce(
        passes.sweep(PassSpec(SOLVER.solve_w, SOLVER, residual=True, check=True)), given
    ),
    "sweep_keeping_w": lambda panels, given: passes.sweep_keeping_w(
        panels, given, PassSpec(SOLVER.solve_w, SOLVER)
    ),
    "summarize": lambda panels, given: panels.reduce(passes.summarize(SampleSpec(60, 10, 0)), given),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_pass_reads_each_panel_once(build: Callable[[Any, Any], Any]) -> None:
    panels = PanelTasks(open_panels(counted_matrix(), EDGES))
    dask.compute(build(panels, dask.delayed(PassInputs(H, EDGES), traverse=False)))
    assert dict.fromkeys(pairwise(EDGES), 1) == READS


def test_a_fit_reads_v_once_a_pass_and_twice_more(several_panels: None) -> None:
    nmf(counted_matrix(), 3, max_iter=4, tol=0, cache="off")
    panels = [count for (first, last), count in READS.items() if last - first > 1]  # one row: a fingerprint
    assert len(panels) > 1
    assert set(panels) == {4 + 2}


@pytest.mark.parametrize("panels", [1, 7, 40])
def test_a_pass_is_one_task_a_panel_and_a_tree(panels: int) -> None:
    edges = tuple(np.linspace(0, 60, panels + 1, dtype=int).tolist())
    delayed = PanelTasks(open_panels(counted_matrix(), edges)).reduce(
        passes.sweep(PassSpec(SOLVER.solve_w, SOLVER)),
        dask.delayed(PassInputs(H, edges), traverse=False),
    )
    (optimised,) = dask.optimize(delayed)
    tree, level = 0, panels
    while tree == 0 or level > 1:
        level = -(-level // reduction.FAN_IN)
        tree += level
    constants = 2  # the work of a task with its reader; H and the edges
    assert panels + tree <= len(dict(optimised.dask)) <= panels + tree + constants


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
@given(edges=cuts(60))
def test_sums_do_not_depend_on_the_cut(make: Any, edges: tuple[int, ...]) -> None:
    whole = sweep((0, 60), make(V))
    for one, other in zip(sweep(edges, make(V)), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_sums_of_one_cut_are_the_same_bits() -> None:
    for one, other in zip(sweep(EDGES), sweep(EDGES), strict=True):
        np.testing.assert_array_equal(one, other)


@given(edges=cuts(60))
def test_weights_and_projection_are_the_direct_ones(edges: tuple[int, ...]) -> None:
    panels = PanelEngine(open_matrix(V), edges)
    w, totals, _ = panels.run_pass_keeping_w(H, PassSpec(SOLVER.solve_w_final, SOLVER))
    direct = least_squares.exact_w(V, H)
    np.testing.assert_allclose(w, direct, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(totals.num, direct.T @ V, rtol=1e-9)
    across = np.random.default_rng(0).random((4, 60))
    held = np.ascontiguousarray(across.T)
    projected = panels.run_pass(H, PassSpec(block_pass.keep_w, SOLVER), held)
    np.testing.assert_allclose(projected.num, across @ V, rtol=1e-12)
    np.testing.assert_allclose(projected.gram, across @ across.T, rtol=1e-12)


def test_a_single_panel_is_computed_in_the_calling_thread_and_as_by_a_graph() -> None:
    threads = []

    def solve_w(v: Any, h: Array, w: Array | None) -> Array:
        threads.append(threading.get_ident())
        return SOLVER.solve_w(v, h, w)

    panels, spec = PanelEngine(open_matrix(V), (0, 60)), PassSpec(solve_w, SOLVER, residual=True)
    direct = panels.run_pass(H, spec)
    assert threads == [threading.get_ident()]
    ran = []
    with dask.config.set(scheduler=lambda graph, keys, **_: ran.append(keys) or dask.get(graph, keys)):
        by_graph = panels.run_pass(H, spec)
    assert len(ran) == 1  # a scheduler that the caller has set is used
    for one, other in zip(direct, by_graph, strict=True):
        np.testing.assert_array_equal(one, other)


def test_carried_weights_go_from_pass_to_pass() -> None:
    panels = PanelEngine(open_matrix(V), EDGES)
    before, after = factor_store.InMemoryFactor(60, 3, V.dtype), factor_store.InMemoryFactor(60, 3, V.dtype)
    before.array[:] = np.random.default_rng(0).random((60, 3))
    totals = panels.run_pass(H, PassSpec(lambda v, h, w: 2 * w, SOLVER, before, after))
    np.testing.assert_array_equal(after.array, 2 * before.array)
    np.testing.assert_allclose(totals.num, after.array.T @ V, rtol=1e-12)


def test_a_checking_pass_names_the_row_of_v() -> None:
    v = V.copy()
    v[41, 5] = np.nan
    panels = PanelTasks(open_panels(open_matrix(v), EDGES))
    with pytest.raises(InvalidEntryError, match="row 41, column 5"):
        dask.compute(BUILDS["sweep"](panels, dask.delayed(PassInputs(H, EDGES), traverse=False)))


def test_blas_has_one_thread_in_a_task_and_its_own_number_after(unlimited_blas: None) -> None:
    before, inside = blas_threads(), set()

    def weigh(v: Any, h: Array, w: Array | None) -> Array:
        inside.update(blas_threads())
        return SOLVER.solve_w(v, h, w)

    PanelEngine(open_matrix(V), EDGES).run_pass(H, PassSpec(weigh, SOLVER))
    assert inside == {1}
    assert blas_threads() == before


def test_blas_is_released_after_a_fit() -> None:
    with threadpool_limits(2, user_api="blas"):
        nmf(np.ones((60, 12)), 2, max_iter=1)
        assert blas_threads() == {2}


def test_a_fit_does_not_depend_on_the_threads_of_blas() -> None:
    v, found = low_rank(500, 1000, 8, noise=3), []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(np.asarray(nmf(v, 8, max_iter=1, tol=0).H))
    np.testing.assert_array_equal(*found)


def test_a_task_that_runs_on_after_its_pass_failed_has_one_blas_thread_until_it_ends(
    unlimited_blas: None,
) -> None:
    before, fails, ends, inside = blas_threads(), Event(), Event(), []

    def weigh(v: Any, h: Array, w: Array | None) -> Array:
        if v[0, 0] == V[0, 0]:
            assert fails.wait(PATIENCE)
            raise RuntimeError
        fails.set()
        assert ends.wait(PATIENCE)
        inside.append(blas_threads())
        return SOLVER.solve_w(v, h, w)

    with dask.config.set(num_workers=2):
        with pytest.raises(RuntimeError):
            PanelEngine(open_matrix(V), (0, 30, 60)).run_pass(H, PassSpec(weigh, SOLVER))
        ends.set()
    wait_until_unlimited()
    assert inside == [{1}]
    assert blas_threads() == before


def test_blas_is_released_after_a_failure(unlimited_blas: None) -> None:
    before = blas_threads()
    with pytest.raises(RuntimeError), blas.one_blas_thread():
        raise RuntimeError
    assert blas_threads() == before


def least_of_a_moment(count: Callable[[], int]) -> int:
    """The least count within a tenth of a second: on a busy machine a release takes its time."""
    found = [count()]
    for _ in range(10):
        time.sleep(0.01)
        found.append(count())
    return min(found)


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_the_scheduler_forgets_every_pass(
    solver: str, client: Client, cluster: LocalCluster, several_panels: None
) -> None:
    counts = []
    result = nmf(
        V,
        3,
        solver=solver,
        tol=0,
        max_iter=12,
        callback=lambda _: counts.append(least_of_a_moment(lambda: len(cluster.scheduler.tasks))),
    )
    assert result.n_iter == 12
    assert max(counts[6:]) <= max(counts[:6]) + 2  # a release may lag behind; else 20 a pass


def test_results_of_a_cluster_outlive_the_fit(client: Client, several_panels: None) -> None:
    result = nmf(V, 3, max_iter=3)
    w, h = dask.compute(result.W, result.H)
    assert np.linalg.norm(V - w @ h) == pytest.approx(result.reconstruction_err)


@given(data=st.data())
def test_merging_bad_entries_keeps_the_first(data: st.DataObject) -> None:
    v = V.copy()
    rows = data.draw(st.lists(st.integers(0, 59), min_size=1, max_size=3))
    v[rows, 4] = -1
    edges = data.draw(cuts(60))
    bad = PanelEngine(open_matrix(v), edges).summarize(SampleSpec(60, 10, 0)).invalid
    assert bad is not None
    assert (bad.row, bad.column) == (min(rows), 4)


@pytest.mark.parametrize("name", ["sums-of-x", "nmf-sums-of-x", "pass-1"])
def test_keys_of_users_may_look_like_ours(name: str) -> None:
    v = np.random.default_rng(0).random((40, 12))
    halves = [
        delayed_of_user(lambda x: x)(part, dask_key_name=f"{name}-{i}")
        for i, part in enumerate((v[:20], v[20:]))
    ]
    whole = da.concatenate([da.from_delayed(half, (20, 12), float) for half in halves])
    assert nmf(whole, 3, max_iter=2).relative_error == pytest.approx(nmf(v, 3, max_iter=2).relative_error)
    assert reduction.panel_of((name, 3)) is reduction.panel_of(name) is reduction.panel_of((v, 0)) is None
