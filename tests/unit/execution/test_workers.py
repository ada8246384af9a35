"""Workers that come and go between passes, and answer while they read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from support.matrices import Array, low_rank
from support.servers import PATIENCE, until

from dask_nmf import nmf
from dask_nmf.cluster.watch import run_on_live_workers
from dask_nmf.errors import NoWorkers
from dask_nmf.iteration.loop import Step
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

PANELS, ROWS, COLUMNS = 40, 10, 20
H = np.ones((3, COLUMNS))
SHAPE = (PANELS * ROWS, COLUMNS)


class Waits(ReaderDefaults):
    """A V that is read for as long as the worker that reads it does not answer."""

    shape, dtype = SHAPE, np.dtype(np.float64)
    answered = Event()

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        assert self.answered.wait(PATIENCE), "the worker answers nobody"
        return np.ones((index[0].stop - index[0].start, COLUMNS))


def answer() -> None:
    Waits.answered.set()


def test_a_worker_answers_while_it_reads_the_fingerprint(client: Client) -> None:
    Waits.answered.clear()
    matrix = Matrix(SHAPE, H.dtype, "made", Orientation.ROWS, Layout(*SHAPE, 8), Waits())
    with ThreadPoolExecutor(1) as pool:
        ours = "" if Waits.answered.is_set() else "the client reads it too"
        assert ours
        found = pool.submit(run_on_live_workers, matrix.fingerprint)
        time.sleep(0.2)
        assert not found.done()
        client.run(answer)
        assert set(found.result(PATIENCE).values()) == {matrix.fingerprint()}


@contextmanager
def adaptive() -> Iterator[Client]:
    """A cluster of threads that begins without a worker, and soon ends those that are idle."""
    quick = {
        "distributed.adaptive.interval": "50ms",
        "distributed.adaptive.wait-count": 2,
        "dask_nmf.wait": PATIENCE,
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
            until(lambda: not client.nthreads())
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
        until(lambda: not running.scheduler.tasks)
