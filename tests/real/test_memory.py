"""The promise: a fit of a V several times the memory of its workers stays within that memory."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client, Worker
from support.matrices import Array
from support.servers import reads_peaks

from dask_nmf import nmf, transform
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.fitting.starts import nndsvd
from dask_nmf.planning import grid, row_panels
from dask_nmf.sources.registry import open_matrix

LIMIT = 652_000_000  # bytes of a worker: less than half of it is left beside the program
RANK = 8


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    """Two processes of one thread."""
    with local_cluster(2, 1, LIMIT) as client:
        yield client


def write(
    path: Path, shape: tuple[int, int], chunks: tuple[int, int], dtype: str, missing: float = 0.0
) -> str:
    """A V of rank 10 whose storage chunks are all the same file: gigabytes in no time."""
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype)
    rng = np.random.default_rng(0)
    chunk = (rng.integers(0, 4, (chunks[0], 10)) @ rng.integers(0, 4, (10, chunks[1]))).astype(dtype)
    if missing:
        chunk[rng.random(chunk.shape) < missing] = np.nan
    array[: chunks[0], : chunks[1]] = chunk
    for i, j in product(*(range(size // cut) for size, cut in zip(shape, chunks, strict=True))):
        (path / "c" / str(i)).mkdir(exist_ok=True)
        if i or j:
            os.link(path / "c/0/0", path / "c" / str(i) / str(j))
    return str(path)


def peaks(client: Client) -> dict[int, int]:
    """Peak resident bytes of each worker, by process."""
    statuses = {pid: Path(f"/proc/{pid}/status").read_text() for pid in client.run(os.getpid).values()}
    return {pid: 1024 * int(text.partition("VmHWM:")[2].split()[0]) for pid, text in statuses.items()}


@reads_peaks
@pytest.mark.parametrize(
    ("shape", "chunks", "dtype", "init"),
    [
        pytest.param((90_000, 5000), (400, 5000), "float32", "sample", id="three-times-the-limit"),
        pytest.param((2000, 166_000), (500, 2000), "int16", "sample", id="wide-and-cast"),
        pytest.param((66_000, 2500), (500, 1250), "float64", "sample", id="float64"),
        pytest.param((66_000, 5000), (500, 5000), "float32", "nndsvda", id="singular-vectors"),
    ],
)
def test_a_fit_stays_within_the_memory_of_its_workers(
    workers: Client, tmp_path: Path, shape: tuple[int, int], chunks: tuple[int, int], dtype: str, init: str
) -> None:
    path = write(tmp_path / "V.zarr", shape, chunks, dtype)
    solver = "hals" if init == "sample" else "mu"
    before = peaks(workers)
    result = nmf(path, RANK, solver=solver, init=init, store=tmp_path / "run.zarr", max_iter=1)
    after = peaks(workers)
    width = RANK if init == "sample" else nndsvd.width(RANK)
    planned = row_panels.plan_panels(replace(open_matrix(path).layout, prefetch=True), width, LIMIT, 1)
    assert planned.pass_bytes >= 2 * LIMIT
    assert result.n_iter == 1
    assert before.keys() == after.keys(), "a worker was restarted"
    assert max(after.values()) < max(1.1 * planned.worker_bytes, max(before.values()) + 1)
    assert max(after.values()) < LIMIT

    def keeps_in_memory(dask_worker: Worker) -> bool:  # a local function: a worker would import this module
        """Return whether the worker's values have no disk to go to."""
        return type(dask_worker.data) is dict

    assert all(workers.run(keeps_in_memory).values())


@reads_peaks
@pytest.mark.parametrize(
    "shape",
    [pytest.param((80_000, 2000), id="tall"), pytest.param((2000, 80_000), id="wide")],
)
def test_so_does_one_with_missing_entries(workers: Client, tmp_path: Path, shape: tuple[int, int]) -> None:
    class Nowhere:  # a local class: a worker would import this module
        """Where a W may go that nobody wants."""

        def read(self, first: int, last: int) -> Array:
            raise NotImplementedError

        def write(self, first: int, w: Array) -> None:
            assert np.isfinite(w).all()

    path = write(tmp_path / "V.zarr", shape, (1000, 2000), "float32", missing=0.97)
    before = peaks(workers)
    nmf(path, RANK, missing="nan", validation_fraction=0.1, store=tmp_path / "run.zarr", max_iter=1)
    h = zarr.open_array(tmp_path / "run.zarr/H")[:]  # to compute result.H, workers would import dask.array
    new = transform(path, h, missing="nan", into=lambda *_: (Nowhere(), None))
    after = peaks(workers)
    planned = row_panels.plan_panels(
        replace(open_matrix(path).layout, masked=True, prefetch=True), RANK, LIMIT, 1
    )
    assert new is None
    assert before.keys() == after.keys(), "a worker was restarted"
    assert max(after.values()) < max(1.1 * planned.worker_bytes, max(before.values()) + 1)
    assert max(after.values()) < LIMIT


def write_ratings(path: Path, chunks: int, columns: int) -> str:
    """A CSR matrix with 128 entries a row, whose chunks of data and of columns are all the same files."""
    each, rng = 2**20 // 128, np.random.default_rng(0)  # rows of a chunk
    places = np.argsort(rng.random((64, columns)), axis=1)[:, :128]
    places = np.sort(np.tile(places, (each // 64, 1)), axis=1).astype(np.int32).ravel()
    values = rng.integers(1, 6, len(places)).astype(np.float32)
    group = zarr.create_group(
        path, attributes={"encoding-type": "csr_matrix", "shape": [chunks * each, columns]}
    )
    for name, chunk in (("data", values), ("indices", places)):
        array = group.create_array(
            name, shape=(chunks * len(chunk),), chunks=(len(chunk),), dtype=chunk.dtype
        )
        array[: len(chunk)] = chunk
        for number in range(1, chunks):
            os.link(path / name / "c/0", path / name / "c" / str(number))
    group.create_array("indptr", data=128 * np.arange(chunks * each + 1))
    return str(path)


@reads_peaks
def test_so_does_one_of_ratings(tmp_path: Path) -> None:
    path = write_ratings(tmp_path / "V.zarr", 24, 10_000)
    with local_cluster(2, 1, LIMIT) as own:  # whose peaks are not those of other tests
        before = peaks(own)
        nmf(path, RANK, solver="mu", missing="unstored", store=tmp_path / "run.zarr", max_iter=1)
        after = peaks(own)
    layout = replace(open_matrix(path).layout, masked=True, listed=True, prefetch=True)
    planned = row_panels.plan_panels(layout, RANK, LIMIT, 1)
    assert len(planned.edges) - 1 <= 24, "a panel is smaller than a chunk, which is then decoded many times"
    assert before.keys() == after.keys(), "a worker was restarted"
    assert max(after.values()) < 1.1 * planned.worker_bytes
    assert max(after.values()) < LIMIT


@reads_peaks
def test_so_does_one_of_a_v_cut_both_ways(tmp_path: Path) -> None:
    path = write(tmp_path / "V.zarr", (18_000, 18_000), (2000, 2000), "float32")
    with local_cluster(2, 1, LIMIT) as own:  # whose peaks are not those of other tests
        before = peaks(own)
        result = nmf(path, RANK, store=tmp_path / "run.zarr", max_iter=1)
        after = peaks(own)
    planned = grid.plan_grid(open_matrix(path).layout, RANK, LIMIT, 1, None)
    assert result.n_iter == 1
    assert zarr.open_group(tmp_path / "run.zarr", mode="r")["H"].shape == (RANK, 18_000)
    assert before.keys() == after.keys(), "a worker was restarted"
    assert max(after.values()) < 1.1 * planned.worker_bytes
    assert max(after.values()) < LIMIT


def test_a_panel_that_fits_no_worker_is_refused_with_numbers(workers: Client, tmp_path: Path) -> None:
    path = tmp_path / "V.zarr"
    zarr.create_array(path, shape=(40_000, 5000), chunks=(20_000, 5000), dtype="float32")[:] = 1
    with pytest.raises(MemoryError, match=r"20000 rows x 5000 columns take 381 MiB.*its limit is 622 MiB"):
        nmf(path, RANK)
