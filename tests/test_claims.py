"""Nothing is allocated for what is only claimed, and what cannot be is refused; see docs/security.md."""

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from sources import Array, anndata_group, low_rank, sparse

from dask_nmf import nmf
from dask_nmf.errors import DataError
from dask_nmf.opening import open_matrix

MOST = 100 * 2**20  # bytes that a refusal may take


def npy_claiming(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with (folder / "v.npy").open("wb") as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "<f8", "fortran_order": False, "shape": shape}
            )
            file.write(b"\0" * 800)
        return folder / "v.npy"

    return make


def npz_claiming(shape: tuple[int, ...], size: int = 800, lie: int = 0) -> Callable[[Path], Path]:
    """A member that says its shape, has ``size`` bytes, and in the archive's directory ``lie`` more."""

    def make(folder: Path) -> Path:
        npy = npy_claiming(shape)(folder).read_bytes()[:-800]
        with zipfile.ZipFile(folder / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("X.npy", "w") as member:
                member.write(npy)
                for _ in range(size // 2**20):
                    member.write(b"\0" * 2**20)
                member.write(b"\0" * (size % 2**20))
            archive.getinfo("X.npy").file_size += lie
        return folder / "v.npz"

    return make


def csr_npz(**parts: Any) -> Callable[[Path], Path]:
    """The 3 × 3 identity as SciPy saves it, with other parts."""

    def make(folder: Path) -> Path:
        held = {
            "data": np.ones(3),
            "indices": np.arange(3, dtype=np.int32),
            "indptr": np.arange(4, dtype=np.int32),
            "shape": np.array([3, 3]),
            "format": np.array(b"csr"),
        }
        np.savez(folder / "v.npz", **{**held, **parts})
        return folder / "v.npz"

    return make


def zarr_claiming(
    version: int, shape: Any, chunks: Any, one: bool = True, **more: Any
) -> Callable[[Path], Path]:
    """An array of which there is one chunk, or none."""

    def make(folder: Path) -> Path:
        path = folder / "v.zarr"
        array = zarr.create_array(
            path,
            shape=(4, 4),
            chunks=(2, 2),
            dtype="f8",
            compressors=None,
            zarr_format=version,
            **more,  # type: ignore[arg-type]
        )
        if one:
            array[:2, :2] = 1
        file = path / ("zarr.json" if version == 3 else ".zarray")
        told = json.loads(file.read_text())
        told["shape"] = shape
        if version == 2:
            told["chunks"] = chunks
        elif not more:
            told["chunk_grid"]["configuration"]["chunk_shape"] = chunks
        file.write_text(json.dumps(told))
        return path

    return make


def group_claiming(
    lengths: dict[str, int], shape: list[int], kind: str = "csr_matrix"
) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "v.zarr"
        anndata_group(np.eye(4), path, "csr_matrix")
        for name, length in lengths.items():
            told = json.loads((path / name / "zarr.json").read_text())
            told["shape"] = [length]
            (path / name / "zarr.json").write_text(json.dumps(told))
        zarr.open_group(path, mode="r+").attrs["shape"] = shape
        return path

    return make


def metadata(text: str, name: str = "zarr.json") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "v.zarr").mkdir()
        (folder / "v.zarr" / name).write_text(text)
        return folder / "v.zarr"

    return make


CLAIMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "npy": (npy_claiming((10**12, 10)), "at most"),
    "npy overflow": (npy_claiming((2**32, 2**32)), "at most"),
    "npy negative": (npy_claiming((-1, -100)), "shape"),
    "npz": (npz_claiming((10**12, 10)), "at most 9"),
    "npz lies": (npz_claiming((10**7, 10), lie=8 * 10**8), "at most"),
    "npz bomb": (npz_claiming((2**28, 10)), "at most"),
    "csr columns": (csr_npz(shape=np.array([3, 10**15])), "3 entries; leave out"),
    "csr rows": (csr_npz(shape=np.array([10**15, 3])), "indptr does not fit"),
    "csr shape": (csr_npz(shape=np.array(3)), "cannot be read"),
    "csr negative shape": (csr_npz(shape=np.array([3, -3])), "cannot be read"),
    "csr column outside": (csr_npz(indices=np.array([0, 1, 3])), "cannot be read"),
    "csr column negative": (csr_npz(indices=np.array([0, -1, 2])), "cannot be read"),
    "csr column huge": (csr_npz(indices=np.array([0, 1, 2**62])), "cannot be read"),
    "csc row outside": (csr_npz(indices=np.array([0, 1, 10**8]), format=np.array("csc")), "cannot be read"),
    "csr pointer outside": (csr_npz(indptr=np.array([0, 1, 2, 10**9])), "indptr does not fit"),
    "csr pointer back": (csr_npz(indptr=np.array([0, 3, 1, 3])), "indptr does not fit"),
    "csr pointer back, unsigned": (csr_npz(indptr=np.array([0, 3, 1, 3], np.uint64)), "indptr does not fit"),
    "csr pointer late": (csr_npz(indptr=np.array([1, 1, 2, 3])), "indptr does not fit"),
    "csr pointer of floats": (csr_npz(indptr=np.array([0, 1, 2, 3.0])), "indptr does not fit"),
    "csr fewer indices": (csr_npz(indices=np.array([0, 1])), "cannot be read"),
    "zarr v2 rows": (zarr_claiming(2, [10**12, 4], [2, 2]), "1 are there"),
    "zarr v3 rows": (zarr_claiming(3, [10**12, 4], [2, 2]), "1 are there"),
    "zarr shards": (zarr_claiming(3, [10**12, 4], None, shards=(2, 4)), "1 are there"),
    "zarr beyond integers": (zarr_claiming(3, [10**30, 4], [2, 2]), "1 are there"),
    "zarr with no chunk": (zarr_claiming(3, [4, 4], [2, 2], one=False), "0 are there"),
    "zarr v2 chunk": (zarr_claiming(2, [10**12, 4], [10**12, 4]), "GiB"),
    "zarr v3 chunk": (zarr_claiming(3, [10**9, 10**9], [10**9, 10**9]), "GiB"),
    "zarr v2 chunk of nothing": (zarr_claiming(2, [4, 4], [0, 2]), "chunks of shape"),
    "zarr v3 chunk of nothing": (zarr_claiming(3, [4, 4], [2, 0]), "chunks of shape"),
    "zarr negative": (zarr_claiming(3, [-4, 4], [2, 2]), "cannot be read"),
    "group rows": (group_claiming({"indptr": 10**12 + 1}, [10**12, 4]), "indptr has shape"),
    "group rows alone": (group_claiming({}, [10**12, 4]), "indptr does not fit"),
    "group columns": (group_claiming({}, [4, 10**12]), "4 entries"),
    "group entries": (group_claiming({"data": 10**12}, [4, 4]), "data has shape"),
    "deep": (metadata("[" * 10**5), "cannot be read"),
    "deep v2": (metadata('{"a":' * 10**5, ".zarray"), "cannot be read"),
    "no object": (metadata("[]"), "cannot be read"),
    "no text": (metadata("\0"), "cannot be read"),
    "long number": (metadata('{"zarr_format":' + "9" * 10**4 + "}"), "cannot be read"),
}  # fmt: skip


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
    monkeypatch.setattr("dask_nmf.claims.MEMORY_LIMIT", 2**25)
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


def parts(held: Any) -> dict[str, Array]:
    return {name: getattr(held, name) for name in ("data", "indices", "indptr")}


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
    np.testing.assert_allclose(result.loss_history, nmf(v, 3, max_iter=3).loss_history, rtol=1e-9)
    np.testing.assert_array_equal(twice.data, before)


@pytest.mark.parametrize("scale", [1e-200, 1e160, 1e300])
def test_a_v_whose_squares_are_no_numbers_is_refused(scale: float) -> None:
    with pytest.raises(DataError, match="brings its mean near 1"):
        nmf(scale * low_rank(30, 10, 2), 2)
