"""AnnData's files, those of 10x Genomics, plain HDF5 and Zarr groups become X with its names."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.matrices import hierarchies, matrix_rows

V = (scipy.sparse.random_array((40, 15), density=0.3, rng=np.random.default_rng(0)) * 9).ceil()
CELLS, GENES = [f"cell {i}" for i in range(40)], [f"gene {i}" for i in range(15)]


def write_sparse(group: h5py.Group, name: str, v: scipy.sparse.csr_array | scipy.sparse.csc_array) -> None:
    stored = group.create_group(name)
    stored.attrs["encoding-type"] = f"{v.format}_matrix"
    stored.attrs["shape"] = v.shape
    for part in ("data", "indices", "indptr"):
        stored[part] = getattr(v, part)


def write_names(group: h5py.Group, frame: str, column: str, names: list[str]) -> None:
    group.create_group(frame).attrs["_index"] = column
    group[f"{frame}/{column}"] = names


@pytest.fixture
def anndata(tmp_path: Path) -> Path:
    """A file of AnnData: X is dense, a layer is CSR, raw is CSC and has more genes."""
    with h5py.File(tmp_path / "v.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X"] = V.toarray().astype(np.float32)
        write_sparse(file, "layers/counts", 2 * V.tocsr())
        write_sparse(file, "raw/X", scipy.sparse.hstack([V, V]).tocsc())
        write_names(file, "obs", "barcode", CELLS)
        write_names(file, "var", "_index", GENES)
        write_names(file, "raw/var", "_index", [f"raw {i}" for i in range(30)])
    return tmp_path / "v.h5ad"


@pytest.mark.parametrize("batch", [2**26, 300])
def test_x_a_layer_and_raw_of_anndata(anndata: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(matrix_rows, "BATCH", batch)
    place, v = anndata.with_name("v.zarr"), V.toarray()
    for options, expected, genes in (
        ({}, v, GENES),
        ({"layer": "counts"}, 2 * v, GENES),
        ({"dataset": "raw/X"}, np.hstack([v, v]), [f"raw {i}" for i in range(30)]),
    ):
        convert(anndata, place, overwrite=True, **options)
        np.testing.assert_array_equal(matrix_of(place), expected)
        assert (names_of(place, "obs"), names_of(place, "var")) == (CELLS, genes)


def test_a_matrix_beside_x_of_anndata(anndata: Path) -> None:
    with h5py.File(anndata, "a") as file:
        file["obsm/X_pca"], file["other"] = np.ones((40, 3)), np.ones((7, 5))
    place = anndata.with_name("v.zarr")
    for dataset, cells, shape in (("obsm/X_pca", CELLS, (40, 3)), ("other", list("0123456"), (7, 5))):
        assert convert(anndata, place, dataset=dataset, overwrite=True).shape == shape
        assert names_of(place, "obs") == cells
        assert names_of(place, "var") == [str(i) for i in range(shape[1])]


def write_10x(path: Path, stored: scipy.sparse.csc_array, cells: list[str], names: str = "genes") -> None:
    """Write features by cells as Cell Ranger does."""
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(stored, part)
        group["shape"], group["barcodes"], group[names] = stored.shape, cells, GENES


def test_10x_of_double_precision_stays_double(tmp_path: Path) -> None:
    write_10x(tmp_path / "v.h5", V.T.tocsc() / 3, CELLS)
    assert convert(tmp_path / "v.h5", tmp_path / "v.zarr").dtype == "float64"
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), (V / 3).toarray())


@pytest.mark.parametrize("cells", [CELLS[:-1], [*CELLS, "one more"]])
def test_10x_with_another_number_of_barcodes(tmp_path: Path, cells: list[str]) -> None:
    write_10x(tmp_path / "v.h5", V.T.tocsc().astype(np.int32), cells)
    with pytest.raises(DataError, match=f"has 40 cells and {len(cells)} names of them"):
        convert(tmp_path / "v.h5", tmp_path / "v.zarr")


def test_10x_sums_of_entries_that_float32_would_change(tmp_path: Path) -> None:
    stored = V.T.tocsc().astype(np.int32)
    stored.data[:2], stored.indices[1] = (2**24, 1), stored.indices[0]
    write_10x(tmp_path / "v.h5", stored, CELLS)
    with pytest.raises(DataError, match=r"cell 0, feature .*: 16777217\.0 is not exact as float32"):
        convert(tmp_path / "v.h5", tmp_path / "v.zarr")


@pytest.mark.parametrize("names", ["genes", "features/id"])
@pytest.mark.parametrize("batch", [2**26, 160])
def test_10x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, batch: int) -> None:
    monkeypatch.setattr(hierarchies, "BATCH", batch)
    stored = V.T.tocsc()  # features by cells
    write_10x(tmp_path / "v.h5", stored.astype(np.int32), CELLS, names)
    written = convert(tmp_path / "v.h5", tmp_path / "v.zarr")
    assert (written.dtype, written.entries) == ("float32", V.nnz)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V.toarray())
    assert (names_of(tmp_path / "v.zarr", "obs"), names_of(tmp_path / "v.zarr", "var")) == (CELLS, GENES)


def test_the_only_dataset_of_hdf5_or_the_one_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["counts"], file["time"] = V.toarray(), np.ones(40)
    convert(tmp_path / "v.h5", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V.toarray())
    with h5py.File(tmp_path / "v.h5", "a") as file:
        file["deep/er"] = 3 * V.toarray()
        file["other"] = np.ones((2, 2))
    with pytest.raises(DataError, match="holds counts, deep, other, time; say with --dataset which is V"):
        convert(tmp_path / "v.h5", tmp_path / "w.zarr")
    with pytest.raises(DataError, match="has nothing at none, and holds counts"):
        convert(tmp_path / "v.h5", tmp_path / "w.zarr", dataset="none")
    convert(tmp_path / "v.h5", tmp_path / "w.zarr", dataset="deep/er")
    np.testing.assert_array_equal(matrix_of(tmp_path / "w.zarr"), 3 * V.toarray())


def test_names_stay_when_a_group_is_converted_again(anndata: Path) -> None:
    one, other, last = (anndata.with_name(f"{name}.zarr") for name in ("one", "other", "last"))
    convert(anndata, one)
    convert(one, other, chunks=7)
    assert (names_of(other, "obs"), names_of(other, "var")) == (CELLS, GENES)
    np.testing.assert_array_equal(matrix_of(other), V.toarray())
    convert([other, other], last)
    assert names_of(last, "obs") == [*CELLS, *CELLS]


def test_numbers_do_not_become_names(tmp_path: Path) -> None:
    place = tmp_path / "v.zarr"
    convert(V.toarray(), tmp_path / "a.zarr")
    convert([tmp_path / "a.zarr", tmp_path / "a.zarr"], place)
    assert names_of(place, "obs") == [str(i) for i in range(80)]
    assert zarr.open_group(place).attrs["dask_nmf_convert"]["named"] == {"obs": False, "var": False}


def test_a_link_to_a_file_that_is_not_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["X"] = h5py.ExternalLink("other.h5", "/X")
    with pytest.raises(DataError, match=r"v\.h5 cannot be read \(KeyError: .*; write it anew"):
        convert(tmp_path / "v.h5", tmp_path / "v.zarr")


def test_options_that_do_not_fit(tmp_path: Path, anndata: Path) -> None:
    np.save(tmp_path / "v.npy", V.toarray())
    with pytest.raises(ValueError, match="dataset is a path inside of"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", dataset="X")
    with pytest.raises(ValueError, match="give one of them"):
        convert(anndata, tmp_path / "v.zarr", dataset="X", layer="counts")
    with h5py.File(anndata, "a") as file:
        del file["obs/barcode"]
        file["obs/barcode"] = CELLS[:5]
    with pytest.raises(DataError, match="has 5 names and V has 40 rows"):
        convert(anndata, tmp_path / "v.zarr")


@pytest.mark.parametrize("kind", ["plain", "10x"])
def test_a_file_is_closed_whatever_becomes_of_it(tmp_path: Path, kind: str) -> None:
    def write(v: scipy.sparse.csc_array) -> None:
        """Write the file; h5py refuses this where it is open."""
        if kind == "10x":
            write_10x(tmp_path / "v.h5", v, CELLS)
            return
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file["X"] = v.toarray()

    write(-V.T.tocsc())
    with pytest.raises(DataError, match="is negative") as refused:  # which keeps the frames of the conversion
        convert(tmp_path / "v.h5", tmp_path / "v.zarr")
    write(V.T.tocsc())
    convert(tmp_path / "v.h5", tmp_path / "v.zarr")
    write(V.T.tocsc())
    assert refused.value.__traceback__ is not None
