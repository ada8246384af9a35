"""Results as files of other kinds, read back with the libraries that people read them with."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from click.testing import CliRunner
from support.matrices import low_rank
from support.named import names, write_named

from dask_nmf import Run, nmf
from dask_nmf.cli.app import app
from dask_nmf.errors import InvalidRunError
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.ingest import convert
from dask_nmf.results import sides
from dask_nmf.results.exports.export import FORMATS, export, export_to
from dask_nmf.storage.locations import locate, locate_file

ROWS, COLUMNS = [*names('cell, "ü" ', 39), ""], names("gene ", 15)
SUFFIXES = list(FORMATS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of a V with names, and one of a wide V without."""
    folder = tmp_path_factory.mktemp("exports")
    v = low_rank(40, 15, 3, noise=0.3)
    nmf(write_named(folder / "V.zarr", v, ROWS, COLUMNS), 3, max_iter=5, tol=0, store=folder / "named.zarr")
    nmf(v.T.astype(np.float64), 3, max_iter=5, tol=0, store=folder / "plain.zarr")
    return folder


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "BYTES", 1)  # a piece for each chunk


def factors(run: Path) -> tuple[np.ndarray, np.ndarray]:
    result = Run.load_result(run)
    return result.read("W"), result.read("H")


def exported(folder: Path, output: Path, run: str, what: str | None = None) -> Path:
    export(folder / f"{run}.zarr", output, what)
    return output


def index_of(dimension: str, run: str, size: int) -> list[Any]:
    """Return the names of a dimension, or its numbers where it has none."""
    return {"row": ROWS, "column": COLUMNS}[dimension] if run == "named" else list(range(size))


@pytest.mark.parametrize("what", ["W", "H"])
@pytest.mark.parametrize("run", ["named", "plain"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_pandas_reads_tables(suffix: str, run: str, what: str, folder: Path, tmp_path: Path) -> None:
    place = exported(folder, tmp_path / f"out{suffix}", run, what)
    W, H = factors(folder / f"{run}.zarr")
    lines, dimension = (W, "row") if what == "W" else (H.T, "column")
    if suffix == ".csv":
        table = pd.read_csv(place, keep_default_na=False, dtype={f"nmf{i}": lines.dtype for i in range(3)})
    else:
        table = pd.read_parquet(place)
    index = table.pop(dimension).tolist()
    expected = index_of(dimension, run, len(lines))
    assert index == (expected if suffix == ".csv" else [str(name) for name in expected])
    assert list(table) == ["nmf0", "nmf1", "nmf2"]
    assert {kind.name for kind in table.dtypes} == {lines.dtype.name}
    np.testing.assert_array_equal(table, lines)


@pytest.mark.parametrize("run", ["named", "plain"])
def test_numpy_reads_arrays(run: str, folder: Path, tmp_path: Path) -> None:
    W, H = factors(folder / f"{run}.zarr")
    for what, factor in (("W", W), ("H", H)):
        np.testing.assert_array_equal(
            np.load(exported(folder, tmp_path / f"{what}.npy", run, what)), factor, strict=True
        )
    with np.load(exported(folder, tmp_path / "both.npz", run)) as archive:
        np.testing.assert_array_equal(archive["W"], W, strict=True)
        np.testing.assert_array_equal(archive["H"], H, strict=True)
        assert len(archive["error_history"]) == 5
        assert ("row_names" in archive) == ("column_names" in archive) == (run == "named")
        if run == "named":
            assert archive["row_names"].tolist() == ROWS
            assert archive["column_names"].tolist() == COLUMNS


@pytest.mark.parametrize("run", ["named", "plain"])
def test_anndata_reads_h5ad(run: str, folder: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(exported(folder, tmp_path / "out.h5ad", run))
    W, H = factors(folder / f"{run}.zarr")
    assert data.shape == (len(W), H.shape[1])
    assert data.obs_names.tolist() == [str(name) for name in index_of("row", run, len(W))]
    assert data.var_names.tolist() == [str(name) for name in index_of("column", run, H.shape[1])]
    np.testing.assert_array_equal(data.obsm["X_nmf"], W, strict=True)
    np.testing.assert_array_equal(data.varm["nmf"], H.T, strict=True)
    told = data.uns["nmf"]
    assert (told["params"]["n_components"], told["params"]["solver"]) == (3, "hals")
    assert len(told["error_history"]) == told["params"]["n_iter"] == 5


@pytest.mark.parametrize("run", ["named", "plain"])
def test_xarray_reads_netcdf(run: str, folder: Path, tmp_path: Path) -> None:
    W, H = factors(folder / f"{run}.zarr")
    with xarray.open_dataset(exported(folder, tmp_path / "out.nc", run), engine="h5netcdf") as data:
        np.testing.assert_array_equal(data.W, W, strict=True)
        np.testing.assert_array_equal(data.H, H, strict=True)
        assert (data.W.dims, data.H.dims) == (("row", "component"), ("component", "column"))
        assert data.attrs["n_components"] == 3
        assert data.error_history.dims == ("pass",)
        assert set(data.coords) == ({"row", "column"} if run == "named" else set())
        if run == "named":
            assert data.row.values.tolist() == ROWS
            np.testing.assert_array_equal(data.H.sel(column="gene 4"), H[:, 4])


def what_of(suffix: str) -> str | None:
    return None if FORMATS[suffix].both else "W"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_replaces_its_own_alone(suffix: str, folder: Path, tmp_path: Path) -> None:
    out, what = tmp_path / f"out{suffix}", what_of(suffix)
    export(folder / "named.zarr", out, what)
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match="exists; give another output, or ask to overwrite it"):
        export(folder / "plain.zarr", out, what)
    assert out.read_bytes() == before
    export(folder / "plain.zarr", out, what, overwrite=True)
    assert out.read_bytes() != before
    out.write_text("row,value\n3,4\n")
    with pytest.raises(FileExistsError, match="is not an output of an export of this kind"):
        export(folder / "named.zarr", out, what, overwrite=True)
    assert out.read_text() == "row,value\n3,4\n"
    assert {path.name for path in tmp_path.iterdir()} - {f"out{suffix}"} <= {f".out{suffix}.lock"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_of_an_export_that_fails(
    suffix: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> Any:
        raise InvalidRunError("a chunk was lost")
        yield

    monkeypatch.setattr(sides.Side, "pieces", damaged)
    with pytest.raises(InvalidRunError, match="a chunk was lost"):
        export(folder / "named.zarr", tmp_path / f"out{suffix}", what_of(suffix))
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("name", "what", "words"),
    [
        ("out.xlsx", None, r"out\.xlsx has no suffix of a file to export to; give one of \.csv, \.parquet"),
        ("out.csv", None, r"a \.csv file holds W or H; say which, with what='W'"),
        ("out.npz", "W", r"a \.npz file holds W and H, and what is 'W'; leave it out"),
        ("named.zarr/out.npz", None, "is inside of run"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, what: str | None, words: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=words):
        export_to(locate(folder / "named.zarr"), locate_file(folder / name), what)


def test_a_missing_library_is_named_with_the_cure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5netcdf", None)
    with pytest.raises(ValueError, match=r"h5netcdf is needed .* run: pip install 'dask_nmf\[export\]'"):
        export(folder / "named.zarr", tmp_path / "out.nc")


def test_the_command_says_what_it_wrote(folder: Path, tmp_path: Path) -> None:
    words = ["export", str(folder / "named.zarr"), str(tmp_path / "H.csv"), "--what", "H"]
    assert CliRunner().invoke(app, words, standalone_mode=False).output.endswith("H.csv: H, 3 x 15\n")
    words = ["export", str(folder / "named.zarr"), str(tmp_path / "all.npz")]
    assert (
        CliRunner().invoke(app, words, standalone_mode=False).output.endswith(": W, 40 x 3, and H, 3 x 15\n")
    )


@pytest.mark.parametrize("suffix", [".h5ad", ".nc"])
def test_a_name_that_hdf5_cannot_hold_is_refused(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(low_rank(4, 3, 1), ["a", "b\0c", "d", "e"])
    nmf(frame, 1, max_iter=1, tol=0, store=tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"row 1 is called 'b\\x00c', and HDF5 holds no name with a NUL"):
        export(tmp_path / "run.zarr", tmp_path / f"out{suffix}")
    assert not (tmp_path / f"out{suffix}").exists()


def test_top_writes_names_with_line_ends_as_csv_has_them(tmp_path: Path) -> None:
    nmf(pd.DataFrame(np.ones((3, 1)), columns=["a\nb"]), 1, max_iter=1, tol=0, store=tmp_path / "run.zarr")
    printed = CliRunner().invoke(app, ["top", str(tmp_path / "run.zarr"), "--format", "csv"]).stdout
    assert '"a\nb"' in printed


def test_a_group_of_another_command_is_called_what_it_is(folder: Path, tmp_path: Path) -> None:
    w, v = tmp_path / "W.zarr", tmp_path / "V.zarr"
    convert(np.ones((3, 15)), v)
    done = CliRunner().invoke(app, ["transform", str(folder / "named.zarr"), str(v), "-o", str(w)])
    assert done.exit_code == 0, done.output
    for place, what in ((w, "an output of dask-nmf transform"), (v, "a matrix, made by dask-nmf convert")):
        with pytest.raises(InvalidRunError, match=f"is {what}.*; give another path"):
            Run.load_result(place)
    with pytest.raises(InvalidRunError, match="a matrix, made by dask-nmf convert"):
        export(v, tmp_path / "out.npz")


@pytest.mark.parametrize("named", [True, False])
def test_an_output_of_transform_is_exported(folder: Path, tmp_path: Path, named: bool) -> None:
    v = low_rank(40, 15, 3, noise=0.3)[::-1]
    V = write_named(tmp_path / "V2.zarr", v, ROWS[::-1], COLUMNS) if named else v
    run, place = locate(folder / "named.zarr"), locate(tmp_path / "W2.zarr")
    transform_to(run, V, place, False, lambda matrix: nullcontext())
    W = zarr.open_group(tmp_path / "W2.zarr", mode="r")["W"][:]
    export(tmp_path / "W2.zarr", tmp_path / "w.csv")
    table = pd.read_csv(tmp_path / "w.csv", index_col="row", keep_default_na=False, dtype={"row": str})
    assert list(table.index) == (ROWS[::-1] if named else [str(number) for number in range(40)])
    np.testing.assert_array_equal(table.to_numpy(W.dtype), W)
    assert export_to(place, locate_file(tmp_path / "w.npy"), "W") == "W, 40 x 3"
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), W)
    for output, what in (("w.npz", None), ("h.csv", "H")):
        with pytest.raises(
            ValueError, match=r"W2.zarr is an output of transform, which has W and no H; export"
        ):
            export(tmp_path / "W2.zarr", tmp_path / output, what)
    with pytest.raises(ValueError, match="holds W or H; say which"):
        export(tmp_path / "W2.zarr", tmp_path / "x.csv", "X")
    next(path for path in (tmp_path / "W2.zarr" / "W" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(InvalidRunError):
        export(tmp_path / "W2.zarr", tmp_path / "lost.csv")
    assert not (tmp_path / "lost.csv").exists()
