"""Names of the rows and columns of V in a run: beside H and W, from the first commit on, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray
import zarr
from obstore.store import MemoryStore
from support.disks import recorded, write
from support.matrices import low_rank
from support.named import names, write_anndata, write_named
from support.runs import Crash, crash_after

from dask_nmf import Run, nmf, select_rank
from dask_nmf.errors import InvalidRunError
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.options.settings import Settings
from dask_nmf.runs.commits import FIT, KEY
from dask_nmf.runs.record.contents import current_folders, new_record
from dask_nmf.runs.record.validation import validate
from dask_nmf.sources.labels import names as labels_module
from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects import object_lock, object_store, requests

OPTIONS: dict[str, Any] = {"n_components": 2, "max_iter": 2, "tol": 0, "random_state": 7}
SHAPES = {"tall": (12, 7), "wide": (7, 12)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

pytestmark = pytest.mark.usefixtures("several_panels")


def named(folder: Path, shape: tuple[int, int]) -> tuple[Path, list[str], list[str]]:
    """Return the path of a V with names, and the names of its rows and columns."""
    rows, columns = names("cell ü", shape[0]), names("gene ", shape[1])
    return write_named(folder, low_rank(*shape, 2, noise=1), rows, columns), rows, columns


def stored(run: Any) -> tuple[list[str], list[str]]:
    result = Run.load_result(run)
    assert result.row_names is not None
    assert result.column_names is not None
    return result.row_names[:].tolist(), result.column_names[:].tolist()


@shapes
def test_names_are_shown_beside_the_factors(shape: tuple[int, int], tmp_path: Path) -> None:
    place, rows, columns = named(tmp_path / "V.zarr", shape)
    nmf(place, **OPTIONS, store=tmp_path / "run.zarr")
    seen = xarray.open_zarr(tmp_path / "run.zarr")
    assert stored(tmp_path / "run.zarr") == (rows, columns)
    assert (seen.row.values.tolist(), seen.column.values.tolist()) == (rows, columns)
    result = Run.load_result(tmp_path / "run.zarr")
    np.testing.assert_array_equal(seen.H.sel(column=columns[3]), result.read("H")[:, 3])
    np.testing.assert_array_equal(seen.W.sel(row=rows[5]), result.read("W")[5])
    assert Run.load(tmp_path / "run.zarr").summary()["names"] == ["row", "column"]
    alone = zarr.open_array(tmp_path / "run.zarr/column", mode="r")
    assert alone[2:4].tolist() == columns[2:4]


@shapes
def test_names_stand_beside_the_factor_of_an_unfinished_fit(shape: tuple[int, int], tmp_path: Path) -> None:
    place, rows, columns = named(tmp_path / "V.zarr", shape)
    with pytest.raises(Crash):
        nmf(place, **OPTIONS, store=tmp_path / "run.zarr", callback=crash_after(1))
    seen = xarray.open_zarr(tmp_path / "run.zarr")
    shown = {"row": rows} if shape[0] < shape[1] else {"column": columns}
    assert {name: values.values.tolist() for name, values in seen.coords.items()} == shown
    nmf(place, **OPTIONS, store=tmp_path / "run.zarr")
    assert stored(tmp_path / "run.zarr") == (rows, columns)


def test_a_run_without_names_has_no_trace_of_them(tmp_path: Path) -> None:
    v = low_rank(12, 7, 2, noise=1)
    nmf(v, **OPTIONS, store=tmp_path / "run.zarr")
    record = json.loads((tmp_path / "run.zarr" / "zarr.json").read_text())["attributes"][KEY]
    assert "labels" not in {*record, *record["result"]}
    assert {path.name for path in (tmp_path / "run.zarr").iterdir()} == {
        "zarr.json", "data", "H", "W", "error_history", "seconds_history"
    }  # fmt: skip
    result = Run.load_result(tmp_path / "run.zarr")
    assert (result.row_names, result.column_names) == (None, None)
    assert "names" not in Run.load(tmp_path / "run.zarr").summary()


def test_one_side_alone_may_have_names(tmp_path: Path) -> None:
    write_anndata(tmp_path / "V.zarr", low_rank(12, 7, 2, noise=1), names("", 12), names("g", 7))
    nmf(tmp_path / "V.zarr", **OPTIONS, store=tmp_path / "run.zarr")
    result = Run.load_result(tmp_path / "run.zarr")
    assert result.row_names is None
    assert set(xarray.open_zarr(tmp_path / "run.zarr").coords) == {"column"}


def test_names_of_a_replaced_fit_stay_until_there_is_a_newer_result(tmp_path: Path) -> None:
    old, rows, columns = named(tmp_path / "V.zarr", (12, 7))
    run = tmp_path / "run.zarr"
    nmf(old, **OPTIONS, store=run)
    with pytest.raises(Crash):
        nmf(low_rank(9, 5, 2, noise=1), **OPTIONS, store=run, overwrite=True, callback=crash_after(1))
    assert stored(run) == (rows, columns)
    assert set(xarray.open_zarr(run).coords) == {"row", "column"}
    nmf(low_rank(9, 5, 2, noise=1), **OPTIONS, store=run, overwrite=True)
    assert set(xarray.open_zarr(run).coords) == set()
    assert not [path for path in (run / "data").iterdir() if path.name.startswith("labels")]
    assert not (run / "row" / "zarr.json").exists()


def test_every_chunk_of_names_is_stored_and_a_lost_one_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (labels_module, __import__("dask_nmf.runs.record.layouts", fromlist=["PIECE"])):
        monkeypatch.setattr(module, "PIECE", 5)
    rows = ["", "", "", "", "", *names("r", 7)]  # a chunk of empty names, which is the fill value
    place = write_named(tmp_path / "V.zarr", low_rank(12, 7, 2, noise=1), rows, names("c", 7))
    nmf(place, **OPTIONS, store=tmp_path / "run.zarr")
    assert stored(tmp_path / "run.zarr")[0] == rows
    chunks = sorted((tmp_path / "run.zarr/data").glob("labels-*/row/*"))
    assert [chunk.name for chunk in chunks] == ["c.0", "c.1", "c.2"]
    chunks[1].unlink()
    with pytest.raises(InvalidRunError, match="is damaged: row has"):
        _ = Run.load_result(tmp_path / "run.zarr").row_names


@pytest.mark.parametrize(
    "labels", [5, {}, {"folder": "labels-0123456789ab-0", "named": []}, {"folder": "../x", "named": ["row"]}]
)
def test_a_record_with_invalid_labels_is_refused(labels: Any) -> None:
    settings, matrix = Settings(2).record(), {"source": "V", "shape": [5, 4], "dtype": "float32"}
    record = new_record(settings, {**matrix, "transposed": False}, False)
    validate(record)
    with pytest.raises(ValueError, match=r"labels is|it has no folder|folder is|named is"):
        validate({**record, "labels": labels})


def test_a_power_cut_leaves_names_whole_or_the_fit_to_go_on(tmp_path: Path) -> None:
    place, rows, columns = named(tmp_path / "V.zarr", (12, 7))

    def fit(run: Path) -> None:
        with dask.config.set(scheduler="synchronous"):
            nmf(place, **OPTIONS, store=run)

    (tmp_path / "disk").mkdir()
    with recorded(tmp_path / "disk") as disk:
        fit(disk.root / "run")
    found = {}
    for state in reversed(disk.states):
        root = state.get("run/zarr.json")
        folders = current_folders(json.loads(root)["attributes"][KEY]) if root else ()
        data = tuple(f"run/data/{folder}/" for folder in folders)
        found[root, frozenset(item for item in state.items() if item[0].startswith(data))] = state
    (tmp_path / "states").mkdir()
    for number, state in enumerate(found.values()):
        run = write(state, tmp_path / "states" / str(number)) / "run"
        if locate(run).exists() and Run.load(run).result is not None:
            assert stored(run) == (rows, columns)
            continue
        fit(run)
        assert stored(run) == (rows, columns)


def test_names_go_to_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores: dict[str, MemoryStore] = {}
    for module in (object_store, object_lock, requests):
        monkeypatch.setattr(module, "connect", lambda url: stores.setdefault(url, MemoryStore()))
    place, rows, columns = named(tmp_path / "V.zarr", (12, 7))
    nmf(place, **OPTIONS, store="s3://bucket/run")
    assert stored("s3://bucket/run") == (rows, columns)
    shown = zarr.open_group(locate("s3://bucket/run").store(), mode="r")
    assert shown["row"][:].tolist() == rows  # type: ignore[index]


def test_several_starts_and_selections_have_names(tmp_path: Path) -> None:
    place, rows, columns = named(tmp_path / "V.zarr", (12, 7))
    nmf(place, **OPTIONS, n_init=2, store=tmp_path / "run.zarr")
    assert stored(tmp_path / "run.zarr") == (rows, columns)
    select_rank(place, ranks=[1, 2], n_init=2, max_iter=3, store=tmp_path / "selection.zarr")
    assert stored(tmp_path / "selection.zarr") == (rows, columns)
    assert set(xarray.open_zarr(tmp_path / "selection.zarr" / FIT).coords) == {"row", "column"}


class TestTransform:
    """W of new rows has their names, and the columns must be those of the run."""

    @pytest.fixture(autouse=True)
    def _run(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.v = low_rank(12, 7, 2, noise=1)
        place = write_named(tmp_path / "V.zarr", self.v, names("r", 12), names("c", 7))
        nmf(place, **OPTIONS, store=tmp_path / "run.zarr")

    def transform(self, columns: list[str], rows: list[str]) -> xarray.Dataset:
        number = len(list(self.folder.iterdir()))
        v2 = write_named(self.folder / f"V{number}.zarr", self.v[: len(rows)], rows, columns)
        places = (locate(self.folder / name) for name in ("run.zarr", v2.relative_to(self.folder), "W.zarr"))
        transform_to(*places, True, lambda matrix: dask.config.set(scheduler="synchronous"))
        return xarray.open_zarr(self.folder / "W.zarr")

    def test_the_output_has_the_names_of_the_new_rows(self) -> None:
        seen = self.transform(names("c", 7), names("new", 5))
        assert seen.row.values.tolist() == names("new", 5)
        assert seen.W.dims == ("row", "component")
        assert set(self.transform(names("", 7), names("", 5)).coords) == set()

    def test_columns_in_another_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"column 0 is 'c6' in .*gene, and 'c0' in the run; .* order of"):
            self.transform(names("c", 7)[::-1], names("new", 5))

    def test_other_columns_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"column 6 is 'x' .*, and 'c6' in the run; 1 column of the run is not in V"
        ):
            self.transform([*names("c", 6), "x"], names("new", 5))
