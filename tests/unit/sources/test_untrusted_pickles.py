"""No pickle is loaded from a path that is named; see docs/security.md."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs.pickles
import numpy as np
import pytest
import zarr
from distributed import Client
from support.matrices import Array, anndata_group
from tools import fuzz

from dask_nmf import nmf
from dask_nmf.errors import DataError
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.sources.registry import open_matrix


class Marker:
    """What leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def objects(marker: Marker) -> Array:
    return np.array([[marker, 1.0], [2.0, 3.0]], object)


def npy_of_objects(folder: Path, marker: Marker) -> Path:
    np.save(folder / "v.npy", objects(marker), allow_pickle=True)
    return folder / "v.npy"


def npz_of_objects(folder: Path, marker: Marker) -> Path:
    np.savez(folder / "v.npz", X=objects(marker), allow_pickle=True)
    return folder / "v.npz"


def npz_csr(name: str) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        parts: dict[str, Any] = dict.fromkeys(("data", "indices", "indptr"), np.array([0, 1, 2]))
        parts |= {"shape": np.array([2, 3]), "format": np.array(b"csr"), name: np.array([marker], object)}
        np.savez(folder / "v.npz", **parts)
        return folder / "v.npz"

    return make


def only_a_pickle(name: str) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        (folder / name).write_bytes(pickle.dumps(marker))
        return folder / name

    return make


def zarr_v2(**metadata: Any) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        path = folder / "v.zarr"
        array = zarr.create_array(
            path, shape=(2, 2), chunks=(2, 2), dtype="f8", zarr_format=2, compressors=None
        )
        array[...] = 1
        told = json.loads((path / ".zarray").read_text())
        (path / ".zarray").write_text(json.dumps({**told, **metadata}))
        (path / "0.0").write_bytes(pickle.dumps(objects(marker)))
        return path

    return make


def zarr_v3(folder: Path, marker: Marker) -> Path:
    path = folder / "v.zarr"
    zarr.create_array(path, shape=(2, 2), chunks=(2, 2), dtype="f8", compressors=None)[...] = 1
    told = json.loads((path / "zarr.json").read_text())
    told["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"id": "pickle"}}]
    (path / "zarr.json").write_text(json.dumps(told))
    (path / "c" / "0" / "0").write_bytes(pickle.dumps(objects(marker)))
    return path


def group_with(folder: Path, marker: Marker) -> Path:
    path = folder / "v.zarr"
    anndata_group(np.eye(3), path, "csr_matrix")
    shutil.rmtree(path / "data")
    shutil.copytree(zarr_v3(folder / "other", marker), path / "data")
    return path


PICKLES: dict[str, Callable[[Path, Marker], Path]] = {
    "npy of objects": npy_of_objects,
    "npz of objects": npz_of_objects,
    "pickle as npy": only_a_pickle("v.npy"),
    "pickle as npz": only_a_pickle("v.npz"),
    **{f"scipy {name}": npz_csr(name) for name in ("data", "indices", "indptr", "shape", "format")},
    "zarr v2 filter": zarr_v2(filters=[{"id": "pickle"}]),
    "zarr v2 compressor": zarr_v2(compressor={"id": "pickle"}),
    "zarr v2 of objects": zarr_v2(dtype="|O", filters=[{"id": "pickle"}], fill_value=None),
    "zarr v3 codec": zarr_v3,
    "csr in zarr": group_with,
}


@pytest.mark.parametrize("way", ["V", "weights", "H", "fixed_W"])
@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_is_loaded(kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    (tmp_path / "other").mkdir()
    source = PICKLES[kind](tmp_path, Marker(tmp_path / "marker"))
    v = np.ones((2, 2))
    asked: dict[str, Any] = {} if way == "V" else {way: str(source)}
    if way == "H":
        asked["init"] = "custom"
    with pytest.raises(DataError) as refused:
        nmf(str(source) if way == "V" else v, 1, **asked)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "marker").exists()


def test_the_pickles_of_these_tests_do_leave_a_marker(tmp_path: Path) -> None:
    source = only_a_pickle("p")(tmp_path, Marker(tmp_path / "marker"))
    pickle.loads(source.read_bytes())
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["zarr v2 filter", "zarr v3 codec"])
def test_no_pickle_is_loaded_from_a_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    run = fuzz.a_run(tmp_path, "finished")
    source = PICKLES[kind](tmp_path, Marker(tmp_path / "marker"))
    (stored,) = (run / "data").glob("result-*/H")
    shown = run / "H"
    for h, outcomes in (
        (shown, {"read"}),  # what is shown is never read
        (stored, {"InvalidRunError", "DataError"}),
    ):
        shutil.rmtree(h)
        shutil.copytree(source, h)
        assert set(fuzz.checked_run(run).split()[1:4]) <= outcomes
    assert not (tmp_path / "marker").exists()


def test_no_worker_loads_a_pickle(client: Client, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((20, 3)))
    opened = open_matrix(tmp_path / "v.npy")
    panels = PanelEngine(opened, (0, 10, 20))
    npy_of_objects(tmp_path, Marker(tmp_path / "marker"))
    with pytest.raises(DataError, match="cannot be read"):
        panels.summarize(SampleSpec(20, 0, 0))
    assert not (tmp_path / "marker").exists()
