"""V cut both ways: the plan, the same results as panels, and what is refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import xarray
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuts import cut_both_ways, no_panels
from support.matrices import Array, dask_csr, low_rank, sparse
from support.strategies import many, seeds

from dask_nmf import nmf
from dask_nmf.errors import InvalidEntryError
from dask_nmf.fitting import finalize
from dask_nmf.iteration.loop import Step
from dask_nmf.planning import grid, row_panels, worker_memory
from dask_nmf.planning.worker_memory import MIB, Layout
from dask_nmf.storage.locations import locate

M, N, K = 40, 30, 4
READ: list[tuple[int, int]] = []  # blocks, in threads of this process


def counted(block: Array, block_info: Any = None) -> Array:
    """The block, noted."""
    READ.append(block_info[0]["chunk-location"])
    return block


@many
@given(
    layout=st.builds(
        Layout,
        rows=st.integers(1, 2_000_000),
        columns=st.integers(1, 2_000_000),
        itemsize=st.sampled_from([4, 8]),
        chunk_rows=st.integers(1, 5000),
        chunk_columns=st.integers(1, 5000),
        chunk_bytes=st.integers(0, 64 * MIB),
        needs_cast=st.booleans(),
    ),
    rank=st.integers(1, 100),
    limit=st.integers(300 * MIB, 64 * 1024 * MIB),
    threads=st.integers(1, 8),
)
def test_blocks_cover_v_and_fit(layout: Layout, rank: int, limit: int, threads: int) -> None:
    try:
        made = grid.plan_grid(layout, rank, limit, threads)
    except MemoryError as error:
        needed = int(str(error).split("give it at least ")[1].split(" MiB")[0]) + 1
        assert grid.plan_grid(layout, rank, needed * MIB, threads).reads in (1, 2)
        return
    across = layout.chunk_columns
    assert across is not None
    for edges, size, chunk in (
        (made.rows, layout.rows, layout.chunk_rows),
        (made.columns, layout.columns, across),
    ):
        assert (edges[0], edges[-1]) == (0, size)
        assert all(a < b for a, b in pairwise(edges))
        assert all(edge % chunk == 0 for edge in edges[:-1])
    assert made.worker_bytes <= limit * worker_memory.USABLE
    assert made.pass_bytes == made.reads * layout.rows * layout.columns * layout.itemsize
    if made.reads == 1:
        assert made.block[0] * layout.columns * layout.itemsize < limit
    again = grid.plan_grid(layout, rank, limit, threads, (made.rows, made.columns))
    assert again.reads <= made.reads


@settings(max_examples=4)
@given(
    height=st.integers(8, M),
    width=st.integers(8, N),
    reads=st.sampled_from([1, 2]),
    seed=seeds,
    wide=st.booleans(),
    kind=st.integers(0, 2),
)
def test_the_results_are_those_of_panels(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    reads: int,
    seed: int,
    wide: bool,
    kind: int,
) -> None:
    v = low_rank(M, N, K, seed=seed % 1000) if kind < 2 else sparse(M, N, seed=seed % 1000)
    v = v.T.copy() if wide else v
    options: dict[str, Any] = {
        "init": "random",
        "random_state": seed,
        "max_iter": 4,
        "tol": 0,
        "alpha_W": 1e-3,
    }
    options |= {"l1_ratio": 0.5, "normalize": "l2" if kind else None}
    source: Any = da.from_array(v, chunks=(7, 9))
    if kind == 1:
        source = str(tmp_path_factory.mktemp("v") / "v.zarr")
        zarr.create_array(source, shape=v.shape, dtype=v.dtype, chunks=(7, 9))[...] = v
    elif kind == 2:
        source = dask_csr(v, scipy.sparse.csr_array)
    panels = nmf(v, K, **options)
    with pytest.MonkeyPatch.context() as patch:
        down, across = (*range(0, M, height), M), (*range(0, N, width), N)
        cut_both_ways(patch, down, across, reads)
        found = nmf(source, K, **options)
    np.testing.assert_allclose(found.error_history, panels.error_history, rtol=1e-6)
    W, H = np.asarray(found.W), np.asarray(found.H)
    np.testing.assert_allclose(W, panels.W, rtol=1e-4, atol=1e-6 * W.max())
    np.testing.assert_allclose(H, panels.H, rtol=1e-4, atol=1e-6 * H.max())
    assert found.relative_error == pytest.approx(np.linalg.norm(v - W @ H) / np.linalg.norm(v), rel=1e-9)


@pytest.mark.parametrize("reads", [1, 2])
def test_blocks_are_read_as_often_as_the_plan_says(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    v = da.from_array(low_rank(M, N, K), chunks=(10, 10)).map_blocks(
        counted, dtype=float, meta=np.empty((0, 0))
    )
    cut_both_ways(monkeypatch, tuple(range(0, M + 1, 10)), tuple(range(0, N + 1, 10)), reads)
    counts: list[int] = []

    def note(step: Step) -> None:
        counts.append(len(READ))
        with xarray.open_zarr(tmp_path / "run.zarr") as seen:
            assert seen.H.dims == ("column", "component")
            assert seen.error_history.values[-1] == step.relative_error
            shown.append(seen.H.values)

    shown: list[Array] = []
    result = nmf(v, K, max_iter=3, tol=0, callback=note, store=tmp_path / "run.zarr")
    assert np.diff(counts).tolist() == [reads * 12] * 2
    np.testing.assert_array_equal(shown[-1].T, result.H)


def test_a_bad_entry_is_the_first_one_by_row(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    v = low_rank(M, N, K)
    v[12, 25], v[13, 2], v[31, 0] = -1, np.nan, -2
    cut_both_ways(monkeypatch, (0, 10, 20, 40), (0, 15, 30), 2)
    with pytest.raises(InvalidEntryError, match=r"-1\.0 at row 12, column 25"):
        nmf(da.from_array(v, chunks=(10, 10)), K)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"solver": "mu"}, "solver 'hals' and beta_loss 'frobenius'"),
        ({"beta_loss": "kullback-leibler"}, "solver 'hals' and beta_loss 'frobenius'"),
        ({"missing": "nan"}, "none missing, weighted or held out"),
        ({"init": "nndsvd"}, "init 'sample' or 'random'"),
    ],
)
def test_what_needs_panels_is_refused_with_both_cures(
    client: Client, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], needed: str
) -> None:
    monkeypatch.setattr(row_panels, "plan_panels", no_panels)
    with pytest.raises(MemoryError, match=f"panel does not fit; V may be cut both ways.*{needed}"):
        nmf(da.from_array(low_rank(M, N, K), chunks=(10, 10)), K, **options)


def test_a_v_in_memory_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_panels, "plan_panels", no_panels)
    with pytest.raises(MemoryError, match=r"takes a Zarr or Dask array or an \.npy file"):
        nmf(low_rank(M, N, K), K)


def test_an_answer_whose_run_is_gone_is_not_taken_for_zeros(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give store= to keep it"):
        finalize._read_in_time(np.zeros((1, 1)), locate(tmp_path / "gone"))
