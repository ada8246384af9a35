"""Workers that come and go between passes and in one: who reads what, and how often."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from support.matrices import Array, low_rank
from support.servers import until

from dask_nmf import nmf
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.cluster.watch import run_on_live_workers
from dask_nmf.errors import NoWorkers
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.iteration.loop import Step
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.planning.row_panels import Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults

FAST, SLOW = 0.05, 0.5  # seconds, of a read
PANELS, ROWS, COLUMNS = 40, 10, 20
H = np.ones((3, COLUMNS))
SHAPE = (PANELS * ROWS, COLUMNS)


@dataclass(frozen=True)
class Noted(ReaderDefaults):
    """A V that is made where it is read; each read is a line in a file, with the process. One may be slow."""

    log: str
    shape = SHAPE
    dtype = np.dtype(np.float64)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()}\n")
        slow = Path(f"{self.log}.slow")
        time.sleep(SLOW if slow.exists() and int(slow.read_text()) == os.getpid() else FAST)
        return np.random.default_rng(index[0].start).random((index[0].stop - index[0].start, COLUMNS))


def one_pass(log: Path) -> Sums:
    matrix = Matrix(SHAPE, H.dtype, "made", False, Layout(*SHAPE, 8), Noted(str(log)))
    panels = PanelEngine(matrix, tuple(range(0, PANELS * ROWS + 1, ROWS)), ahead=True)
    return panels.run_pass(H, PassSpec(HALS().weigh, HALS()))


def reads(log: Path) -> Counter[int]:
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


def test_a_worker_that_joins_is_used_in_the_next_pass(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.scheduler.work-stealing": False}),  # which hangs on the load
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        alone = one_pass(tmp_path / "alone")
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        both = one_pass(tmp_path / "both")
    assert list(reads(tmp_path / "alone").values()) == [PANELS]
    assert list(reads(tmp_path / "both").values()) == [PANELS // 2] * 2
    np.testing.assert_array_equal(alone.num, both.num)


def test_a_worker_that_is_killed_costs_its_own_panels_only(tmp_path: Path) -> None:
    with local_cluster(2, 1, None) as client, ThreadPoolExecutor(1) as pool:
        expected = one_pass(tmp_path / "whole")
        pids = list(client.run(os.getpid).values())
        future = pool.submit(one_pass, tmp_path / "log")
        while sum(reads(tmp_path / "log").values()) < PANELS // 2:
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        found = future.result(timeout=60)
    counts = reads(tmp_path / "log")
    assert sum(counts.values()) <= PANELS + counts[pids[0]] + 1  # what it had read, and no more
    np.testing.assert_array_equal(found.num, expected.num)


def test_an_idle_worker_takes_panels_of_a_slow_one(tmp_path: Path) -> None:
    # by default each second, in which 20 panels are read here
    often = dask.config.set({"distributed.scheduler.work-stealing-interval": "100ms"})
    with often, local_cluster(2, 1, None) as client:
        expected = one_pass(tmp_path / "before")  # how long a panel takes is known then
        slow = next(iter(client.run(os.getpid).values()))
        (tmp_path / "log.slow").write_text(str(slow))
        found = one_pass(tmp_path / "log")
    counts = reads(tmp_path / "log")
    assert 0 < counts[slow] <= PANELS // 4
    assert sum(counts.values()) == PANELS
    np.testing.assert_array_equal(found.num, expected.num)


class Waits(ReaderDefaults):
    """A V that is read for as long as the worker that reads it does not answer."""

    shape, dtype = SHAPE, np.dtype(np.float64)
    answered = Event()

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        assert self.answered.wait(10), "the worker answers nobody"
        return np.ones((index[0].stop - index[0].start, COLUMNS))


def answer() -> None:
    Waits.answered.set()


def test_a_worker_answers_while_it_reads_the_fingerprint(client: Client) -> None:
    Waits.answered.clear()
    matrix = Matrix(SHAPE, H.dtype, "made", False, Layout(*SHAPE, 8), Waits())
    with ThreadPoolExecutor(1) as pool:
        ours = "" if Waits.answered.is_set() else "the client reads it too"
        assert ours
        found = pool.submit(run_on_live_workers, matrix.fingerprint)
        time.sleep(0.2)
        assert not found.done()
        client.run(answer)
        assert set(found.result(20).values()) == {matrix.fingerprint()}


@contextmanager
def adaptive() -> Iterator[Client]:
    """A cluster of threads that begins without a worker, and soon ends those that are idle."""
    quick = {
        "distributed.adaptive.interval": "50ms",
        "distributed.adaptive.wait-count": 2,
        "dask_nmf.wait": 5,
    }
    with (
        dask.config.set(quick),
        LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as made,
        Client(made) as client,
    ):
        made.adapt(minimum=0, maximum=2)
        yield client


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_an_adaptive_cluster_starts_workers_for_a_fit(
    tmp_path: Path, solver: str, several_panels: None
) -> None:
    """At its start, and when all of them were ended while the client was busy."""
    v = low_rank(120, 12, 3)
    zarr.create_array(tmp_path / "v.zarr", data=v, chunks=(10, 12))
    how: dict[str, Any] = {"solver": solver, "max_iter": 3, "tol": 0, "cache": "off"}
    expected = nmf(tmp_path / "v.zarr", 3, **how).relative_error
    with adaptive() as client:
        gone = []

        def busy(step: Step) -> None:
            until(lambda: not client.nthreads(), 20)
            gone.append(step.number)

        found = nmf(tmp_path / "v.zarr", 3, store=tmp_path / "run.zarr", callback=busy, **how)
    assert gone == [1, 2, 3]
    assert found.relative_error == pytest.approx(expected, rel=1e-9)


def test_a_cluster_that_gets_no_worker_is_given_up_and_its_wish_with_it() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as running,
        Client(running),
        dask.config.set({"dask_nmf.wait": 0.2}),
    ):
        with pytest.raises(NoWorkers):
            nmf(np.ones((20, 5)), 2)
        until(lambda: not running.scheduler.tasks, 10)
