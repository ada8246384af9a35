"""Blocks of V that stay in memory between passes: how many, where, and that nothing else changes."""

from __future__ import annotations

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
from sources import low_rank
from test_store import assert_same_bits

from dask_nmf import kept, nmf, readers
from dask_nmf.kept import Shelf, block_bytes

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
    read = readers.DenseRows.__getitem__

    def counted(self: readers.DenseRows, index: Any) -> Any:
        rows.append(index[0])
        return read(self, index)

    monkeypatch.setattr(readers.DenseRows, "__getitem__", counted)
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
def test_a_shelf_is_never_fuller_than_its_room(puts: list[tuple[str, int, int]]) -> None:
    shelf, room = Shelf(), 800
    for fit, first, size in puts:
        shelf.put(fit, (first, first + 1, 0, size), np.zeros(size), room)
        assert shelf.used == sum(map(block_bytes, shelf.blocks.values())) <= room
        assert {of for of, _ in shelf.blocks} <= {"a", "b"}
    shelf.put("new", (0, 1, 0, 100), np.zeros(100), room)
    assert shelf.held("new") == [(0, 1, 0, 100)]  # the other fits made way
    shelf.drop("new")
    assert not shelf.held("new")


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


@pytest.mark.parametrize("options", [{}, {"missing": "nan"}, {"solver": "mu"}, {"solver": "sgd"}], ids=str)
def test_workers_keep_panels_and_let_them_go(client: Client, path: str, options: dict[str, Any]) -> None:
    held: list[int] = []

    def look(step: Any) -> None:
        held.append(sum(client.run(lambda: len(kept._shelf.blocks)).values()))

    found = nmf(path, 3, max_iter=4, tol=0, callback=look, **options)
    assert client.run(lambda: kept._shelf.used, on_error="raise") == dict.fromkeys(client.nthreads(), 0)
    assert_same_bits(found, nmf(path, 3, max_iter=4, tol=0, cache="off", **options))
    if options.get("solver") == "sgd":  # whose blocks have no home
        assert set(held) == {0}
    else:
        assert held[-1] >= 3
        assert held[-1] <= held[0] + 3  # they went where they were, or a few were taken by an idle worker


@pytest.mark.parametrize("cache", ["much", "-1 GB", -5])
def test_a_cache_that_is_no_size_is_refused(path: str, cache: Any) -> None:
    with pytest.raises(ValueError, match="give 'auto', 'off' or a size such as '2GiB'"):
        nmf(path, 3, cache=cache)
