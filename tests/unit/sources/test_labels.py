"""Names of rows and columns beside a stored V: where they are, how they are read, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray
import zarr
from support.named import FRAME, names, write_anndata, write_matrix, write_named, write_text

from dask_nmf.errors import DataError
from dask_nmf.ingest.conversion import convert
from dask_nmf.sources.labels import names as labels_module
from dask_nmf.sources.labels.names import Names, as_text
from dask_nmf.sources.registry import open_matrix

V = np.arange(1.0, 25.0, dtype=np.float32).reshape(6, 4)
ROWS, COLUMNS = names("r", 6), names("c", 4)


def read(found: Names | None) -> list[str] | None:
    return None if found is None else found.read(0, len(found)).tolist()


def labels(source: Any) -> tuple[list[str] | None, list[str] | None]:
    """Return the names of a matrix as lists, None where it has none."""
    found = open_matrix(source).labels
    return read(found.rows), read(found.columns)


@pytest.mark.parametrize("inside", ["", "X", "layers/counts"])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_names_of_anndata_are_found_from_each_place_of_v(kind: Any, inside: str, tmp_path: Path) -> None:
    write_anndata(tmp_path / "V.zarr", kind(V), ROWS, COLUMNS)
    assert labels(tmp_path / "V.zarr" / inside) == (ROWS, COLUMNS)
    assert labels(zarr.open_group(tmp_path / "V.zarr")[inside or "X"]) == (ROWS, COLUMNS)


@pytest.mark.filterwarnings("ignore")
def test_names_are_found_in_what_anndata_writes(tmp_path: Path) -> None:
    index = [pd.DataFrame(index=pd.Index(side, dtype=object, name="id")) for side in (ROWS, COLUMNS)]
    data = anndata.AnnData(scipy.sparse.csr_matrix(V), *index)
    data.layers["counts"] = V
    data.write_zarr(tmp_path / "V.zarr")
    data.write_h5ad(tmp_path / "V.h5ad")
    for inside in ("", "X", "layers/counts"):
        assert labels(tmp_path / "V.zarr" / inside) == (ROWS, COLUMNS)
    backed = anndata.read_h5ad(tmp_path / "V.h5ad", backed="r")
    assert labels(backed.X) == (ROWS, COLUMNS)
    backed.file.close()


def test_raw_has_the_columns_of_its_own(tmp_path: Path) -> None:
    root = write_anndata(tmp_path / "V.zarr", V, ROWS, COLUMNS)
    raw = root.create_group("raw")
    write_matrix(raw, "X", np.ones((6, 5), np.float32))
    write_text(raw.create_group("var", attributes=FRAME), "_index", names("g", 5))
    assert labels(tmp_path / "V.zarr/raw/X") == (ROWS, names("g", 5))


def test_names_of_a_conversion_are_found(tmp_path: Path) -> None:
    pd.DataFrame(V, index=ROWS, columns=COLUMNS).to_csv(tmp_path / "v.csv")
    convert(tmp_path / "v.csv", tmp_path / "V.zarr")
    assert labels(tmp_path / "V.zarr") == (ROWS, COLUMNS)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_coordinates_of_xarray_are_found(zarr_format: Any, tmp_path: Path) -> None:
    times = np.array(["2026-01-01", "2026-01-02", "2026-01-04", "2026-01-05"], "M8[ns]")
    coordinates = {"site": ROWS, "year": [2020, 2021, 2022, 2024]}
    array = xarray.DataArray(V, coordinates, ("site", "year"), name="v")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text of fixed length has no specification in Zarr v3
        array.to_dataset().to_zarr(tmp_path / "V.zarr", zarr_format=zarr_format)
        array.assign_coords(year=times).to_dataset().to_zarr(tmp_path / "T.zarr", zarr_format=zarr_format)
    assert labels(tmp_path / "V.zarr/v") == (ROWS, ["2020", "2021", "2022", "2024"])
    assert labels(tmp_path / "T.zarr/v") == (ROWS, np.datetime_as_string(times, "D").tolist())


def test_names_in_files_of_hdf5_are_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5ad", "w") as file:
        file["X"] = V
        for side, index in (("obs", ROWS), ("var", COLUMNS)):
            file[f"{side}/cell_id"] = index
            file[side].attrs["_index"] = "cell_id"
        assert labels(file["X"]) == (ROWS, COLUMNS)


def test_encoded_names_are_read(tmp_path: Path) -> None:
    root = write_anndata(tmp_path / "V.zarr", V, ROWS, COLUMNS)
    root["obs"].attrs["_index"] = "kind"  # type: ignore[union-attr]
    root["var"].attrs["_index"] = "gene"  # type: ignore[union-attr]
    kind = root.create_group("obs/kind", attributes={"encoding-type": "categorical", "ordered": False})
    write_text(kind, "categories", ["b", "a"])
    kind.create_array("codes", data=np.array([1, 1, 0, -1, 0, 1], np.int8))
    gene = root.create_group("var/gene", attributes={"encoding-type": "nullable-string-array"})
    write_text(gene, "values", COLUMNS)
    gene.create_array("mask", data=np.array([False, True, False, False]))
    assert labels(tmp_path / "V.zarr") == (["a", "a", "b", "", "b", "a"], ["c0", "", "c2", "c3"])


def test_other_encodings_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_anndata(tmp_path / "V.zarr", V, ROWS, COLUMNS)
    root["obs"].attrs["_index"] = "odd"  # type: ignore[union-attr]
    root.create_group("obs/odd", attributes={"encoding-type": "awkward-array"})
    assert labels(tmp_path / "V.zarr") == (None, COLUMNS)
    assert "'awkward-array'" in caplog.text


@pytest.mark.parametrize("piece", [2, 6, 100])
def test_names_that_only_count_are_none(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "PIECE", piece)
    write_anndata(tmp_path / "V.zarr", V, names("", 6), COLUMNS)
    assert labels(tmp_path / "V.zarr") == (None, COLUMNS)
    write_anndata(tmp_path / "U.zarr", V, [*names("", 5), "six"], COLUMNS)
    assert labels(tmp_path / "U.zarr") == ([*names("", 5), "six"], COLUMNS)


def test_a_plain_array_has_no_names(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "V.zarr", data=V)
    zarr.create_array(tmp_path / "W.zarr", data=V, dimension_names=("row", "column"))
    assert labels(tmp_path / "V.zarr") == labels(tmp_path / "W.zarr") == (None, None)
    assert not open_matrix(V).labels


def test_more_or_fewer_names_are_refused(tmp_path: Path) -> None:
    write_anndata(tmp_path / "V.zarr", V, ROWS[:-1], COLUMNS)
    with pytest.raises(DataError, match=r"V\.zarr/obs/_index has 5 names and V has 6 rows; write a name for"):
        open_matrix(tmp_path / "V.zarr")
    place = write_named(tmp_path / "U.zarr", V, ROWS, [*COLUMNS, "more"])
    with pytest.raises(DataError, match=r"U\.zarr/gene has 5 names and V has 4 columns"):
        open_matrix(place)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([3, 12]), ["3", "12"]),
        (np.array([0.1, 2.0], np.float32), ["0.1", "2.0"]),
        (np.array([b"a", "ü".encode()]), ["a", "ü"]),
        (np.array(["2026-01-02", "2026-01-03"], "M8[ns]"), ["2026-01-02", "2026-01-03"]),
        (np.array([None, b"x", 7, "y"], object), ["", "x", "7", "y"]),
        (np.array([True, False]), ["True", "False"]),
    ],
)
def test_what_is_not_text_becomes_text(values: np.ndarray, text: list[str]) -> None:
    assert as_text(values).tolist() == text
