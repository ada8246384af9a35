"""Processes of workers that come and go between passes and in one: who reads what, and how often."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
from distributed import Client, LocalCluster
from support.matrices import Array
from support.servers import PATIENCE, until

from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

READ = 0.05  # seconds
PANELS, ROWS, COLUMNS = 40, 10, 20
H = np.ones((3, COLUMNS))
OTHERS = PANELS - PANELS // 4  # panels that an idle worker reads in place of a slow one, at least
SHAPE = (PANELS * ROWS, COLUMNS)


@dataclass(frozen=True)
class Noted(ReaderDefaults):
    """A V that is made where it is read; each read is a line in a file, with the process.

    Files beside it keep reads from their end: ``held`` from the middle of a pass on, until it is deleted, and
    ``slow`` those of the process that it names, until other processes have read their share.
    """

    log: Path
    shape = SHAPE
    dtype = np.dtype(np.float64)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        with self.log.open("a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(READ)
        until(lambda: not self.is_held() and not self.is_slow())
        return np.random.default_rng(index[0].start).random((index[0].stop - index[0].start, COLUMNS))

    def is_held(self) -> bool:
        return self.log.with_suffix(".held").exists() and reads(self.log).total() >= PANELS // 2

    def is_slow(self) -> bool:
        file, found = self.log.with_suffix(".slow"), reads(self.log)
        slow = file.exists() and int(file.read_text()) == os.getpid()
        return slow and found.total() - found[os.getpid()] < OTHERS


def one_pass(log: Path) -> Sums:
    matrix = Matrix(SHAPE, H.dtype, "made", Orientation.ROWS, Layout(*SHAPE, 8), Noted(log))
    panels = PanelEngine(matrix, tuple(range(0, PANELS * ROWS + 1, ROWS)), prefetch=True)
    return panels.run_pass(H, PassSpec(HALS().solve_w, HALS()))


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
        client.wait_for_workers(2, timeout=PATIENCE)
        both = one_pass(tmp_path / "both")
    assert list(reads(tmp_path / "alone").values()) == [PANELS]
    assert list(reads(tmp_path / "both").values()) == [PANELS // 2] * 2
    np.testing.assert_array_equal(alone.num, both.num)


def test_a_worker_that_is_killed_costs_its_own_panels_only(tmp_path: Path) -> None:
    with local_cluster(2, 1, None) as client, ThreadPoolExecutor(1) as pool:
        expected = one_pass(tmp_path / "whole")
        pids = list(client.run(os.getpid).values())
        (tmp_path / "log.held").touch()
        future = pool.submit(one_pass, tmp_path / "log")
        until(lambda: reads(tmp_path / "log").total() >= PANELS // 2)
        os.kill(pids[0], signal.SIGKILL)
        (tmp_path / "log.held").unlink()
        found = future.result(timeout=PATIENCE)
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
    assert 0 < counts[slow] <= PANELS - OTHERS
    assert sum(counts.values()) == PANELS
    np.testing.assert_array_equal(found.num, expected.num)
