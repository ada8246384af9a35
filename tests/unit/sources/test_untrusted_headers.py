"""Nothing is allocated for what is only claimed, and what cannot be is refused; see docs/security.md."""

import tracemalloc
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.headers import CLAIMS, MOST, csr_npz, npz_claiming, parts
from support.matrices import Array, low_rank, sparse

from dask_nmf import nmf
from dask_nmf.errors import DataError
from dask_nmf.sources.registry import open_matrix


@pytest.mark.parametrize("case", CLAIMS)
def test_what_is_only_claimed_is_refused_before_it_is_allocated(case: str, tmp_path: Path) -> None:
    make, words = CLAIMS[case]
    source = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words) as refused:
            open_matrix(source)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)


def test_an_archive_that_would_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = npz_claiming((2**20, 8), size=2**26)(tmp_path)
    assert source.stat().st_size < 2**19
    monkeypatch.setattr("dask_nmf.sources.checks.MEMORY_LIMIT", 2**25)
    with pytest.raises(DataError, match=r"takes 0\.0625 GiB in memory, and this machine has 0\.0312 GiB"):
        open_matrix(source)


def test_of_an_archive_only_what_is_asked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "v.npz", X=np.ones((3, 3)), other=np.ones((500, 500)))
    read = []
    real = np.lib.format.read_array

    def counted(file: Any, **more: Any) -> Array:
        read.append(file.name)
        return real(file, **more)

    monkeypatch.setattr(np.lib.format, "read_array", counted)
    open_matrix(tmp_path / "v.npz")
    assert read == ["X.npy"]


def test_a_factor_of_another_shape_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "w.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10)}
        )
        file.truncate(8 * 10**10 + 1000)  # no disk is used
    with pytest.raises(ValueError, match="W has shape"):
        nmf(np.ones((5, 4)), 2, init="custom", W=str(tmp_path / "w.npy"))


def test_a_chunk_of_more_than_it_says_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "v.zarr", shape=(4, 4), chunks=(4, 4), dtype="f8", zarr_format=2)
    array[...] = 1
    codec = array.metadata.compressor  # type: ignore[union-attr]
    (tmp_path / "v.zarr" / "0.0").write_bytes(codec.encode(np.ones(10**6).tobytes()))
    with pytest.raises(DataError, match="cannot be read"):
        nmf(str(tmp_path / "v.zarr"), 2)


TWICE = {
    "npz csr": lambda held, path: csr_npz(**parts(held), shape=np.array(held.shape))(path),
    "npz csc": lambda held, path: csr_npz(
        **parts(held.T), shape=np.array(held.shape[::-1]), format=np.array(b"csc")
    )(path),
    "in memory": lambda held, path: held,
    "dask": lambda held, path: da.from_array(held, chunks=(-1, -1), asarray=False),
    "csr in zarr": lambda held, path: group_of(held, path / "v.zarr"),
}


def group_of(held: Any, path: Path) -> str:
    attributes = {"encoding-type": "csr_matrix", "shape": list(held.shape)}
    group = zarr.create_group(path, attributes=attributes)
    for name, values in parts(held).items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(64,))[...] = values
    return str(path)


@pytest.mark.parametrize("kind", ["npz csr", "in memory", "dask", "csr in zarr"])
def test_entries_that_are_stored_twice_or_in_disorder_are_summed(kind: str, tmp_path: Path) -> None:
    v = sparse(40, 12)
    once = scipy.sparse.csr_array(v)
    order = np.concatenate(
        [np.arange(b - 1, a - 1, -1).repeat(2) for a, b in zip(once.indptr, once.indptr[1:], strict=False)]
    )
    twice = scipy.sparse.csr_array((once.data[order] / 2, once.indices[order], 2 * once.indptr), v.shape)
    before = twice.data.copy()
    result = nmf(TWICE[kind](twice, tmp_path), 3, max_iter=3)
    np.testing.assert_allclose(result.error_history, nmf(v, 3, max_iter=3).error_history, rtol=1e-9)
    np.testing.assert_array_equal(twice.data, before)


@pytest.mark.parametrize("scale", [1e-200, 1e160, 1e300])
def test_a_v_whose_squares_are_no_numbers_is_refused(scale: float) -> None:
    with pytest.raises(DataError, match="brings its mean near 1"):
        nmf(scale * low_rank(30, 10, 2), 2)


def test_a_divergence_that_is_no_number_is_refused() -> None:
    v = np.random.default_rng(0).random((30, 12))
    v[3, 4] = 1e160
    with (
        np.errstate(all="ignore"),
        pytest.raises(DataError, match="differ so much in size that the loss is no"),
    ):
        nmf(v, 2, beta_loss="kullback-leibler")
