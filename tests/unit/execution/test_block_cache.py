"""Blocks of V that stay in memory between passes: how many, where, and that nothing else changes."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import low_rank
from support.runs import assert_same_bits
from support.servers import process, until

from dask_nmf import nmf
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks import block_cache
from dask_nmf.execution.tasks.block_cache import BlockCache, CachingReader, Lease, Place, block_bytes
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources import dense
from dask_nmf.sources.dense import DenseRows
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A V in storage chunks of 20 rows."""
    v = low_rank(240, 30, 3, noise=1)
    stored = zarr.create_array(tmp_path / "v.zarr", shape=v.shape, chunks=(20, 30), dtype=v.dtype)
    stored[:] = v
    return str(tmp_path / "v.zarr")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[slice]:
    """The rows that are read, as they are."""
    rows: list[slice] = []
    read = dense.DenseRows.__getitem__

    def counted(self: dense.DenseRows, index: Any) -> Any:
        rows.append(index[0])
        return read(self, index)

    monkeypatch.setattr(dense.DenseRows, "__getitem__", counted)
    return rows


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers in processes of their own."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 50)), max_size=30))
def test_a_cache_is_never_fuller_than_its_room(puts: list[tuple[str, int, int]]) -> None:
    shelf, room = BlockCache(), 800
    for name in ("a", "b", "new"):
        shelf.grant(name)
    for name, first, size in puts:
        shelf.put(name, (first, first + 1, 0, size), np.zeros(size), room)
        assert shelf.used == sum(map(block_bytes, shelf.blocks.values())) <= room
        assert {of for of, _ in shelf.blocks} <= {"a", "b"}
    shelf.put("new", (0, 1, 0, 100), np.zeros(100), room)
    assert shelf.held("new") == [(0, 1, 0, 100)]  # the other fits made way
    shelf.drop("new")
    assert not shelf.held("new")


def test_blocks_stay_for_as_long_as_a_lease() -> None:
    """Each of several workers in one process may have one, and Dask may move it."""
    reader = DenseRows(np.zeros((2, 3)), Orientation.ROWS, np.dtype(float))
    everything = (slice(0, 2), slice(0, 3))

    def read(name: str) -> list[Place]:
        assert CachingReader(reader, name, 1000)[everything] is not None
        return block_cache.cached_blocks(name)

    assert read("lease-a") == []
    one, other = Lease("lease-a", "lease-b"), pickle.loads(pickle.dumps(Lease("lease-a")))
    assert read("lease-a") == read("lease-b") == [(0, 2, 0, 3)]
    del one
    assert (block_cache.cached_blocks("lease-a"), read("lease-b")) == ([(0, 2, 0, 3)], [])
    del other
    assert block_cache.cached_blocks("lease-a") == []
    again = Lease("lease-a")
    assert read("lease-a") != []
    block_cache.evict_fit("lease-a")
    assert read("lease-a") == []
    del again
    assert block_cache._cache.leases.total() == 0


def test_a_lease_that_ends_while_blocks_are_kept_blocks_nobody() -> None:
    """Python's collector may end one at any line of the thread that holds the lock."""
    lease = [Lease("lease-c")]
    with block_cache._cache.lock:
        lease.clear()
    assert not block_cache._cache.leases["lease-c"]


def test_a_sparse_block_counts_whole() -> None:
    block = scipy.sparse.csr_array(np.eye(5, dtype=np.float32))
    assert block_bytes(block) == 5 * 4 + block.indices.nbytes + block.indptr.nbytes


def test_what_fits_is_read_once(path: str, reads: list[slice]) -> None:
    kept_fit = nmf(path, 3, max_iter=4, tol=0)
    once = [rows for rows in reads if rows.stop - rows.start > 1]  # not those of the fingerprint
    assert len(once) == len({(rows.start, rows.stop) for rows in once})
    reads.clear()
    read_anew = nmf(path, 3, max_iter=4, tol=0, cache="off")
    assert len([rows for rows in reads if rows.stop - rows.start > 1]) == len(once) * 6
    assert_same_bits(kept_fit, read_anew)


def test_reads_fall_as_room_grows(path: str, reads: list[slice]) -> None:
    counts = []
    for share in (0, 0.4, 0.75, 1):
        reads.clear()
        nmf(path, 3, max_iter=4, tol=0, cache=int(share * 240 * 30 * 8))
        counts.append(sum(rows.stop - rows.start for rows in reads if rows.stop - rows.start > 1))
    assert counts[0] == 6 * 240
    assert counts[-1] == 240
    assert counts[1] <= 0.8 * counts[0]
    assert counts[2] <= 0.6 * counts[0]


@pytest.mark.parametrize("options", [{}, {"solver": "mu", "missing": "nan"}, {"solver": "sgd"}], ids=str)
def test_workers_keep_panels_and_let_them_go(client: Client, path: str, options: dict[str, Any]) -> None:
    held: list[int] = []

    def look(step: Any) -> None:
        held.append(sum(client.run(lambda: len(block_cache._cache.blocks)).values()))

    found = nmf(path, 3, max_iter=4, tol=0, callback=look, **options)
    assert client.run(lambda: block_cache._cache.used, on_error="raise") == dict.fromkeys(
        client.nthreads(), 0
    )
    assert_same_bits(found, nmf(path, 3, max_iter=4, tol=0, cache="off", **options))
    if options.get("solver") == "sgd":  # whose blocks have no home
        assert set(held) == {0}
    else:
        assert held[-1] >= 3
        assert held[-1] <= held[0] + 3  # they went where they were, or a few were taken by an idle worker


def used(client: Client) -> int:
    """Bytes that its workers keep."""
    return sum(client.run(lambda: block_cache._cache.used).values())


def test_a_client_that_is_gone_keeps_nothing(client: Client, path: str) -> None:
    """It did not say that its fit is over."""
    with Client(client.scheduler.address) as other, other.as_current():
        matrix = open_matrix(path)
        panels = PanelEngine(matrix, (0, 80, 160, 240), cache_bytes=10**6)
        panels.lease = block_cache.Lease()
        panels.run_pass(np.ones((3, 30)), PassSpec(HALS().solve_w, HALS()))
        panels.run_pass(np.ones((3, 30)), PassSpec(HALS().solve_w, HALS()))
        assert used(client) >= matrix.bytes  # or more, if an idle worker took a panel of a busy one
    until(lambda: used(client) == 0)


KILLED = """
import sys, time
from distributed import Client
from dask_nmf import nmf
from dask_nmf.planning import row_panels
from dask_nmf.types import Orientation

row_panels.SMALLEST, row_panels.PANELS = 1, 3
with Client(sys.argv[1]):
    nmf(sys.argv[2], 3, max_iter=100, tol=0, callback=lambda step: time.sleep(0 if step.number < 3 else 600))
"""


@pytest.mark.real
def test_a_command_that_is_killed_leaves_nothing_in_the_memory_of_workers(
    client: Client, path: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", KILLED, client.scheduler.address, path]
    with process(*words, log=tmp_path / "log") as fit:
        until(lambda: used(client) >= 240 * 30 * 8)  # or more, if an idle worker took a panel of a busy one
        fit.kill()
        until(lambda: used(client) == 0)


@pytest.mark.parametrize("cache", ["much", "-1 GB", -5])
def test_a_cache_that_is_no_size_is_refused(path: str, cache: Any) -> None:
    with pytest.raises(ValueError, match="give 'auto', 'off' or a size such as '2GiB'"):
        nmf(path, 3, cache=cache)
