"""The scheduler that Dask is set to: threads, one thread, processes, clients; what cannot work says so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from dask.delayed import delayed
from distributed import Client, LocalCluster
from support.matrices import low_rank

from dask_nmf import NMF, nmf, predict
from dask_nmf.cluster.client import active_client, shares_memory
from dask_nmf.errors import NoWorkers
from dask_nmf.execution.executor import prefer_workers
from dask_nmf.execution.graphs import passes, reduction
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.execution.tasks import prefetch
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.registry import open_matrix

V = low_rank(120, 12, 3)
HERE: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """V in Zarr, so that panels are read ahead."""
    zarr.create_array(tmp_path / "v.zarr", data=V, chunks=(10, 12))
    return tmp_path / "v.zarr"


def fit(source: Any, **settings: Any) -> float:
    return nmf(source, 3, max_iter=3, tol=0, **settings).relative_error


@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
@pytest.mark.parametrize(
    "way",
    [
        {"scheduler": "sync"},
        {"scheduler": "single-threaded"},
        {"pool": 3},
        {"scheduler": 3},
        {"num_workers": 1},
    ],
    ids=str,
)
def test_a_fit_is_the_same_on_any_scheduler_of_this_process(
    path: Path, way: dict[str, Any], solver: str
) -> None:
    with ThreadPoolExecutor(3) as pool, dask.config.set({k: pool if v == 3 else v for k, v in way.items()}):
        assert shares_memory()
        assert fit(path, solver=solver) == pytest.approx(fit_in_threads(path, solver), rel=1e-9)


def fit_in_threads(path: Path, solver: str) -> float:
    with dask.config.set(scheduler="threads", pool=None, num_workers=None):
        return fit(path, solver=solver)


def test_a_process_that_dask_starts_takes_turns_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_slots", {})  # as it is there: no pass was begun in that process
    with (
        dask.config.set(num_workers=2),
        prefetch.compute_slot(on_cluster=False),
        prefetch.compute_slot(on_cluster=False),
    ):
        assert not prefetch._slots[""].work.acquire(blocking=False)


@pytest.mark.real
def test_a_fit_is_the_same_in_processes(path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for solver, way in (
            ("hals", {"scheduler": "processes", "pool": pool}),
            ("mu", {"pool": pool}),
            ("hals", {"scheduler": pool}),
        ):
            expected = fit(path, solver=solver)
            with dask.config.set(way):
                assert not shares_memory()
                assert fit(path, solver=solver) == pytest.approx(expected, rel=1e-9)


def test_threads_of_the_callers_pool_share_memory_and_processes_do_not() -> None:
    def shared(**way: Executor) -> bool:
        with dask.config.set(way):
            return shares_memory()

    with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as processes:
        assert shared(pool=threads)
        assert shared(scheduler=threads)
        assert not shared(pool=processes)
        assert not shared(scheduler=processes)


def test_distributed_without_a_client_is_refused() -> None:
    with dask.config.set(scheduler="distributed"), pytest.raises(ValueError, match="connect a Client"):
        fit(V)


def test_an_asynchronous_client_is_refused_and_works_from_a_thread() -> None:
    factors = dask.array.ones((40, 3)), dask.array.ones((3, 12))

    async def main() -> float:
        async with Client(asynchronous=True, n_workers=1, threads_per_worker=1, **HERE):
            with pytest.raises(ValueError, match=r"asynchronous.*asyncio\.to_thread"):
                fit(V)
            with pytest.raises(ValueError, match="asynchronous"):
                NMF(3).fit(V)
            with pytest.raises(ValueError, match=r"^the active client, .* is asynchronous"):
                predict(*factors, [0], [0])
            return await asyncio.to_thread(fit, V)

    assert asyncio.run(main()) == pytest.approx(fit(V), rel=1e-9)


def test_arrays_of_a_client_that_is_closed_say_why_they_are_gone(cluster: LocalCluster) -> None:
    with Client(cluster):
        result = nmf(V, 3, max_iter=3, tol=0)
        W = NMF(3, max_iter=3).fit_transform(dask.array.from_array(V, chunks=(40, 12)))
        product = result.W @ result.H
        loss = np.linalg.norm(V - product.compute()) / np.linalg.norm(V)
        assert loss == pytest.approx(result.relative_error)
    for array in result.W, product, W[:5]:
        assert repr(array).startswith("dask.array<")
        assert "Dask graph" in array._repr_html_()
        with pytest.raises(RuntimeError, match=r"client is closed; compute the array before .*store="):
            array.compute()
    with pytest.raises(RuntimeError, match=r"^the blocks of this array .* client is closed"):
        predict(result.W, result.H, [0], [0])
    with Client(cluster), pytest.raises(RuntimeError, match="client is closed"):
        result.W.compute()


def test_a_closed_client_that_is_still_current_is_named(cluster: LocalCluster) -> None:
    client = Client(cluster)
    client.close()
    for way in client.as_current, partial(dask.config.set, scheduler=client):
        with way(), pytest.raises(NoWorkers, match="client is closed; connect a new Client"):
            fit(V)
    assert active_client() is None


def test_the_current_client_of_several_is_used(cluster: LocalCluster) -> None:
    with Client(cluster) as older, Client(cluster) as newer:
        assert active_client() is newer
        with older.as_current():
            assert active_client() is older
            assert fit(V) == pytest.approx(fit_in_threads_of(V), rel=1e-9)


def fit_in_threads_of(source: Any) -> float:
    with dask.config.set(scheduler="threads"):
        return fit(source)


def fit_alone(path: Path, scheduler: str) -> float:
    with dask.config.set(scheduler=scheduler):
        return fit(path)


def test_tasks_may_fit(client: Client, path: Path) -> None:
    """More of them than the cluster has threads."""
    futures = [client.submit(fit, path, pure=False) for _ in range(3)]
    expected = pytest.approx(fit_in_threads_of(path), rel=1e-9)
    assert [future.result(timeout=250) for future in futures] == [expected] * 3


def test_many_tasks_of_one_worker_may_fit_at_once(path: Path) -> None:
    """Where panels are best sent to holds for one fit: tasks begin in the context of one that secedes."""
    with LocalCluster(n_workers=1, threads_per_worker=4, **HERE) as running, Client(running) as client:
        futures = [client.submit(fit, path, pure=False) for _ in range(8)]
        errors = client.gather(futures)
    assert errors == [pytest.approx(fit(path), rel=1e-9)] * 8


def test_workers_that_the_caller_chose_are_kept_to() -> None:
    """Where a panel is best sent to is a wish, and theirs is none: it would be one if both were there."""
    given = delayed(reduction.PassInputs(np.ones((3, 12)), (0, 60, 120)), traverse=False)

    def pass_over_v() -> Any:
        panels = reduction.PanelTasks(open_panels(open_matrix(V), (0, 60, 120)))
        return panels.reduce(passes.sweep(PassSpec(HALS().solve_w, HALS())), given)

    def annotations(node: Any) -> list[Any]:
        prefer_workers([node], {0: "tcp://a", 1: "tcp://b"})
        return [layer.annotations for layer in node.dask.layers.values() if layer.annotations]

    with dask.annotate(workers=["tcp://theirs"]):
        theirs = pass_over_v()
    assert set(map(str, annotations(theirs))) == {"{'workers': ['tcp://theirs']}"}
    assert {wish["allow_other_workers"] for wish in annotations(pass_over_v())} == {True}


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_tasks_may_fit_with_a_scheduler_of_their_own(client: Client, path: Path, scheduler: str) -> None:
    expected = pytest.approx(fit_in_threads_of(path), rel=1e-9)
    worker = list(client.nthreads())[:1]
    for _ in range(2):  # on one thread: Dask's configuration is that of the process
        assert client.submit(fit_alone, path, scheduler, pure=False, workers=worker).result(250) == expected


def test_threads_may_fit_at_the_same_time(client: Client, path: Path) -> None:
    expected = fit(path)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, [path] * 4)) == pytest.approx([expected] * 4, rel=1e-9)


FORK = """
import multiprocessing, os, sys, threading
import dask
from distributed import Client
from dask_nmf import nmf
from dask_nmf.planning import row_panels
row_panels.SMALLEST, row_panels.PANELS = 1, 3

def fit():
    return nmf(sys.argv[1], 3, max_iter=3, tol=0).relative_error

def in_child(call):
    child = os.fork()
    if child == 0:
        os._exit(not call())
    assert os.waitpid(child, 0)[1] == 0

def refused():
    try:
        fit()
    except ValueError as error:
        with dask.config.set(scheduler="threads"):
            return "forked" in str(error) and fit() == expected

expected = fit()
in_child(lambda: fit() == expected)
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.apply(fit) == expected
busy = threading.Thread(target=lambda: [fit() for _ in range(3)])
busy.start()
while busy.is_alive():
    in_child(lambda: fit() == expected)
with Client(n_workers=1, processes=False, dashboard_address="127.0.0.1:0", memory_limit=0):
    assert fit() == expected
    in_child(refused)
"""


def test_a_forked_process_fits_too(path: Path) -> None:
    """After a fit of its parent, during one, and with a client that it inherits and cannot use."""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, path],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert told.returncode == 0, told.stderr
