"""Whatever holds V gives the same panels."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from dask.sizeof import sizeof
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import LIBRARIES, SOURCES, Array, anndata_group, dask_csr, panels_of, read, sparse
from support.strategies import chunkings
from zarr.storage import LocalStore

from dask_nmf import nmf
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.planning import row_panels
from dask_nmf.sources.registry import open_matrix

SHAPES = {"tall": (30, 20), "wide": (20, 30)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
HOLDERS = SOURCES | LIBRARIES
sources = pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)

pytestmark = pytest.mark.usefixtures("several_panels")


@pairwise({"make": HOLDERS, "shape": SHAPES, "dtype": [np.float32, np.float64]})
def test_every_source_gives_v(dtype: Any, shape: tuple[int, int], make: Any, tmp_path: Path) -> None:
    v = sparse(*shape, dtype=dtype)
    opened = open_matrix(make(v, tmp_path / "v"))
    assert (opened.shape, opened.dtype) == (shape, dtype)
    blocks = panels_of(opened)
    assert len(blocks) > 1 or opened.layout.chunk_rows == opened.layout.rows
    kinds = (np.ndarray, scipy.sparse.csr_array)
    assert all(isinstance(block, kinds) and block.dtype == dtype for block in blocks)
    np.testing.assert_array_equal(read(opened), v)


@shapes
@pytest.mark.parametrize("kind", ["dense", "csr"])
@given(data=st.data())
def test_any_dask_chunking_gives_v(kind: str, shape: tuple[int, int], data: st.DataObject) -> None:
    v, chunks = sparse(*shape), data.draw(chunkings(shape))
    array = (
        da.from_array(v, chunks=chunks) if kind == "dense" else dask_csr(v, scipy.sparse.csr_array, chunks)
    )
    np.testing.assert_array_equal(read(open_matrix(array)), v)


@pytest.mark.parametrize(
    ("stored", "working"),
    [
        ("?", "f4"), ("i1", "f4"), ("u1", "f4"), ("i2", "f4"), ("f2", "f4"), ("f4", "f4"), (">f4", "f4"),
        ("i4", "f8"), ("u4", "f8"), ("i8", "f8"), ("u8", "f8"), ("f8", "f8"), (">f8", "f8"), (">i4", "f8"),
        ("g", "f8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["numpy", "dask", "npy F"])
def test_dtypes_of_the_panels(stored: str, working: str, kind: str, tmp_path: Path) -> None:
    v = np.round(3 * sparse(30, 20)).astype(stored)
    opened = open_matrix(HOLDERS[kind](v, tmp_path / "v"))
    assert all(block.dtype == np.dtype(working) == opened.dtype for block in panels_of(opened))
    np.testing.assert_array_equal(read(opened), v.astype(working))


@pytest.mark.parametrize("kind", ["zarr v2", "zarr v3", "csr_array", "csr in zarr"])
@pytest.mark.parametrize("stored", ["i2", "i8", "u1"])
def test_stored_integers_are_cast(stored: str, kind: str, tmp_path: Path) -> None:
    v = np.round(3 * sparse(30, 20)).astype(stored)
    np.testing.assert_array_equal(read(open_matrix(HOLDERS[kind](v, tmp_path / "v"))), v)


@sources
@pytest.mark.parametrize("dtype", ["float32", np.float64])
def test_an_asked_dtype_is_that_of_the_panels(dtype: Any, make: Any, tmp_path: Path) -> None:
    v = sparse(30, 20, dtype=np.float32)
    blocks = panels_of(open_matrix(make(v, tmp_path / "v"), dtype))
    assert all(block.dtype == dtype for block in blocks)


def zarr_group(path: Path, **attributes: Any) -> str:
    zarr.create_group(str(path), attributes=attributes)
    return str(path)


def text(path: Path, name: str = "notes.txt") -> str:
    (path / name).write_text("V")
    return str(path / name)


def npz(path: Path, **arrays: Array) -> str:
    np.savez(path / "v.npz", **arrays)
    return str(path / "v.npz")


def odd_npz(path: Path) -> str:
    return npz(path, format=np.array(b"lil"), shape=np.array([2, 2]), data=np.ones(2))


def bent_group(path: Path) -> str:
    held = anndata_group(np.eye(4), path / "v", "csr_matrix")
    zarr.open_array(f"{held}/indptr", mode="r+")[2] = 4
    return held


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda _: np.ones((3, 3), complex), ValueError, "complex128.*real part"),
        (lambda _: np.full((3, 3), "1", object), ValueError, "type object.*real numbers"),
        (lambda _: np.full((3, 3), "a"), ValueError, "real numbers"),
        (lambda _: np.full((3, 3), np.datetime64(1, "s")), ValueError, "real numbers"),
        (lambda _: np.ones(3), ValueError, r"1 dimension.*\(3,\)"),
        (lambda _: np.ones((3, 3, 3)), ValueError, "3 dimension"),
        (lambda _: np.ones((0, 3)), ValueError, r"empty, shape \(0, 3\)"),
        (lambda _: scipy.sparse.csr_array((3, 0)), ValueError, "empty"),
        (lambda _: da.ones((4, 4))[da.ones(4) > 0], ValueError, r"unknown.*compute_chunk_sizes\(\)"),
        (lambda _: [[1, 2], [3]], ValueError, "rows of equal length"),
        (lambda _: None, TypeError, "V is NoneType"),
        (lambda path: str(path / "nowhere"), FileNotFoundError, "nothing at .*nowhere"),
        (lambda path: text(path), ValueError, r"notes\.txt"),
        (lambda path: str(path), ValueError, "Zarr"),
        (lambda path: zarr_group(path / "v"), ValueError, "encoding-type None holding nothing"),
        (lambda path: bent_group(path), ValueError, "indptr does not fit"),
        (lambda path: npz(path, a=np.ones((2, 2)), b=np.ones((2, 2))), ValueError, "'a', 'b'.*array named X"),
        (lambda path: npz(path, a=np.ones(2)), ValueError, "two-dimensional"),
        (lambda path: odd_npz(path), ValueError, "format 'lil'"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_refused(
    make: Callable[[Path], Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        open_matrix(make(tmp_path))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_what_scipy_saves_is_read(kind: str, shape: tuple[int, int], tmp_path: Path) -> None:
    held = scipy.sparse.random_array(shape, density=0.3, rng=np.random.default_rng(0)).asformat(kind)
    for one in (held, scipy.sparse.csr_matrix(held).asformat(kind)):
        scipy.sparse.save_npz(tmp_path / "v.npz", one)
        np.testing.assert_array_equal(read(open_matrix(tmp_path / "v.npz")), held.toarray())


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex128"])
def test_other_working_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        open_matrix(np.ones((3, 3)), dtype)


@pytest.mark.parametrize("kind", HOLDERS)
def test_fingerprint_sees_the_first_row_and_no_chunking(kind: str, tmp_path: Path) -> None:
    v = sparse(30, 20) + 1  # Zarr leaves out chunks of zeros, and which ones are left out is seen
    other = v.copy()
    other[0, 0] += 1
    same, twice, changed = (
        open_matrix(HOLDERS[kind](data, tmp_path / str(number))).fingerprint()
        for number, data in enumerate((v, v, other))
    )
    assert same == twice != changed
    if kind in ("dask", "zarr v3"):
        assert same == open_matrix(v).fingerprint()


@given(data=st.data())
def test_fingerprint_does_not_depend_on_chunking(data: st.DataObject) -> None:
    v = sparse(30, 20)
    cut = da.from_array(v, chunks=data.draw(chunkings(v.shape)))
    assert open_matrix(cut).fingerprint() == open_matrix(v).fingerprint()


@pytest.mark.parametrize("make", [scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_dask_knows_the_size_of_a_sparse_block(make: Any) -> None:
    held = make(np.ones((100, 100)))
    assert sizeof(held) >= held.data.nbytes + held.indices.nbytes


@shapes
@pytest.mark.parametrize("kind", ["zarr v2", "zarr v3", "zarr shards"])
def test_a_pass_reads_each_storage_chunk_once(
    kind: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_matrix(HOLDERS[kind](sparse(*shape) + 1, tmp_path / "v"))
    gets: Counter[tuple[str, str]] = Counter()  # by key, and by range of bytes in a shard
    real = LocalStore.get

    async def counted(self: LocalStore, key: str, prototype: Any, byte_range: Any = None) -> Any:
        gets[key, repr(byte_range)] += key[-1].isdigit()
        return await real(self, key, prototype, byte_range)

    monkeypatch.setattr(LocalStore, "get", counted)
    assert len(panels_of(opened)) > 1
    cuts = (14, 18) if kind == "zarr shards" else (7, 9)
    expected = -(-shape[0] // cuts[0]) * -(-shape[1] // cuts[1])
    assert len({key for (key, _), count in gets.items() if count}) == expected
    assert max(gets.values()) == 1


@pytest.mark.parametrize("kind", HOLDERS)
def test_opening_reads_no_panel(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = HOLDERS[kind](sparse(30, 20), tmp_path / "v")

    async def no_chunk(self: LocalStore, key: str, prototype: Any, byte_range: Any = None) -> Any:
        assert "indptr" in key or not key[-1].isdigit(), f"{key} is read"
        return await real(self, key, prototype, byte_range)

    real = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", no_chunk)
    opened = open_matrix(source)
    open_panels(opened, row_panels.plan_panels(opened.layout, 3, None, 2).edges)


CLUSTERED = [
    "numpy", "csr_array", "npy", "zarr v3", "zarr zip", "csr in zarr", "dask csr_array", "hdf5", "hdf5 csr",
    "xarray lazy", "dask frame", "dask masked",
]  # fmt: skip


@pytest.mark.parametrize("kind", CLUSTERED)
def test_panels_reach_a_cluster(kind: str, client: Client, tmp_path: Path) -> None:
    v = sparse(30, 20)
    np.testing.assert_array_equal(read(open_matrix(HOLDERS[kind](v, tmp_path / "v"))), v)


def test_a_matrix_may_be_opened_before(tmp_path: Path) -> None:
    opened = open_matrix(sparse(30, 20) + 1)
    assert open_matrix(opened) is opened
    assert nmf(opened, 2, max_iter=1).n_iter == 1
