"""Reading ahead, and what crosses the network: how many panels at once, where, and how many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import Any, ClassVar

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from support.matrices import Array, low_rank
from support.servers import PATIENCE

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.planning import row_panels, worker_memory
from dask_nmf.planning.worker_memory import MIB, Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

V = low_rank(240, 12, 3)
H = np.ones((3, 12))
EDGES = tuple(range(0, 241, 20))
NETWORK: dict[str, Any] = {
    "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0",
}  # fmt: skip


class Watch:
    """How many panels are held, and worked on, at once.

    Who works waits until ``more`` panels than are worked on at once are held, if as many are left:
    for ever, were they not read ahead.
    """

    def __init__(self, threads: int, more: int) -> None:
        self.changed, self.enough = Condition(), threads + more if more else 0
        self.read = self.done = self.working = self.missed = 0
        self.most = {"held": 0, "worked on": 0}

    def reading(self) -> None:
        with self.changed:
            self.read += 1
            self.most["held"] = max(self.most["held"], self.read - self.done)
            self.changed.notify_all()

    @contextmanager
    def work(self) -> Iterator[None]:
        with self.changed:
            self.working += 1
            self.most["worked on"] = max(self.most["worked on"], self.working)
            self.missed += not self.changed.wait_for(self.ahead, timeout=PATIENCE)
        yield
        with self.changed:
            self.working -= 1
            self.done += 1

    def ahead(self) -> bool:
        return self.read - self.done >= self.enough or self.read == len(EDGES) - 1


class Watched(ReaderDefaults):
    """V and its solver, watched."""

    shape, dtype = V.shape, V.dtype
    watch: ClassVar[Watch]

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        self.watch.reading()
        return V[index]

    def solve_w(self, v: Array, h: Array, w: Array | None) -> Array:
        with self.watch.work():
            return HALS().solve_w(v, h, w)

    def fail(self, v: Array, h: Array, w: Array | None) -> Array:
        raise RuntimeError("no W")


MATRIX = Matrix(V.shape, V.dtype, "here", Orientation.ROWS, Layout(*V.shape, 8), Watched())


def watched_pass(ahead: bool, threads: int = 1) -> tuple[Watch, Sums]:
    Watched.watch = Watch(threads, int(ahead))
    totals = PanelEngine(MATRIX, EDGES, prefetch=ahead).run_pass(H, PassSpec(Watched().solve_w, HALS()))
    return Watched.watch, totals


@contextmanager
def threads_of_a_worker(threads: int) -> Iterator[None]:
    with LocalCluster(n_workers=1, threads_per_worker=threads, **NETWORK) as cluster, Client(cluster):
        yield


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", ["worker", "this process"])
def test_one_panel_more_is_read_than_are_worked_on(place: str, threads: int) -> None:
    here = dask.config.set(num_workers=threads) if place == "this process" else threads_of_a_worker(threads)
    with here:
        expected = watched_pass(False, threads)
        found = watched_pass(True, threads)
    assert expected[0].most["held"] <= threads
    assert found[0].most["worked on"] <= threads
    assert found[0].most["held"] == threads + 1
    assert found[0].missed == 0
    np.testing.assert_array_equal(found[1].num, expected[1].num)


def test_a_failure_leaves_no_turn_taken() -> None:
    Watched.watch = Watch(1, 0)
    with threads_of_a_worker(1):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no W"):
                PanelEngine(MATRIX, EDGES, prefetch=True).run_pass(H, PassSpec(Watched().fail, HALS()))
        assert watched_pass(True)[0].missed == 0


def test_a_plan_reads_ahead_where_there_is_room() -> None:
    layout = Layout(1_000_000, 1000, 4, chunk_rows=1000, chunk_bytes=4_000_000)
    for limit in (worker_memory.PROGRAM * 2, 3000 * MIB, None):
        without = row_panels.plan_panels(layout, 8, limit, 2)
        made = row_panels.plan_panels(Layout(**{**vars(layout), "prefetch": True}), 8, limit, 2)
        assert made.prefetch == (limit != worker_memory.PROGRAM * 2)
        assert made.sample_rows == without.sample_rows
        if limit is not None:
            assert made.worker_bytes <= limit * worker_memory.USABLE
    assert made.worker_bytes > without.worker_bytes


def moved(client: Client, panels: int, rank: int) -> int:
    """Bytes between workers in a pass."""

    def sent(dask_worker: Any) -> int:
        return int(dask_worker.transfer_outgoing_bytes_total)

    shape, h = (20 * panels, 500), np.ones((rank, 500))
    matrix = Matrix(shape, h.dtype, "here", Orientation.ROWS, Layout(*shape, 8), Made(shape))
    cut, solver = PanelEngine(matrix, tuple(range(0, 20 * panels + 1, 20))), HALS()
    before = sum(client.run(sent).values())
    cut.run_pass(h, PassSpec(solver.solve_w, solver))
    return sum(client.run(sent).values()) - before


@dataclass(frozen=True)
class Made(ReaderDefaults):
    """A V that is made where it is read."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float64)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        return np.random.default_rng(index[0].start).random((index[0].stop - index[0].start, 500))


def test_bytes_that_cross_the_network_grow_with_workers_not_with_panels() -> None:
    workers, rank = 4, 8
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, **NETWORK) as cluster,
        Client(cluster) as client,
    ):
        moved(client, 32, rank)
        few, many = (min(moved(client, panels, rank) for _ in range(2)) for panels in (32, 160))
    factor = rank * 500 * 8  # of H; its sums are as large
    assert few >= workers * factor
    assert max(few, many) <= 8 * workers * factor
