"""What a run holds, and what it shows to xarray and other readers."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray
from support.runs import Crash, fit, in_turns

from dask_nmf import Run
from dask_nmf.runs.commits import KEY

pytestmark = pytest.mark.usefixtures("several_panels")


@in_turns
def test_xarray_shows_the_run(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    result = fit(shape, tmp_path / "run.zarr", solver=solver)
    seen = xarray.open_zarr(tmp_path / "run.zarr")
    assert set(seen) == {"H", "W", "error_history", "seconds_history"}
    assert dict(seen.sizes) == {"component": 3, "row": shape[0], "column": shape[1], "pass": 4}
    assert seen.W.dims == ("row", "component")
    assert seen.H.dims == ("component", "column")
    np.testing.assert_array_equal(seen.error_history, result.error_history)
    np.testing.assert_array_equal(seen.W, result.W)
    np.testing.assert_array_equal(seen.H, result.H)
    assert seen.attrs[KEY]["outcome"] == result.outcome


def test_run_is_plain_json_and_arrays(tmp_path: Path) -> None:
    fit((40, 15), tmp_path / "run.zarr")
    record = json.loads((tmp_path / "run.zarr" / "zarr.json").read_text())["attributes"][KEY]
    assert (record["format"], record["pass"], record["finished"]) == (6, 4, True)
    assert record["settings"]["n_components"] == 3
    assert record["matrix"]["shape"] == [40, 15]


def test_of_a_fit_with_a_fixed_factor_no_factor_is_shown_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "commit_result", lambda *_: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        fit((40, 15), tmp_path / "run.zarr", fixed_H=np.ones((3, 15)))
    assert set(xarray.open_zarr(tmp_path / "run.zarr")) == {"error_history", "seconds_history"}


def test_a_finished_run_holds_the_answer_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    fit((15, 40), path)
    files = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
    arrays = {
        "error_history": ["0"],
        "seconds_history": ["0"],
        "W": ["0/0"],
        "H": [f"0/{i}" for i in range(4)],
    }
    beside = {"residual_blocks": ["0/0/0"], "residual_rows": ["0/0"], "residual_columns": ["0/0"]}
    data = {
        "/".join((file.parts[1].split("-")[0], *file.parts[2:])) for file in files if file.parts[0] == "data"
    }
    assert data == {
        *(
            f"result/{name}/c.{chunk.replace('/', '.')}"
            for name, chunks in (arrays | beside).items()
            for chunk in chunks
        ),
        *(f"layout/{name}/c.0" for name in ("edges", "V")),
    }
    turn = Run.load(path).record["encoding"]
    named = {
        f"{name}/{'.'.join(('c', *chunk.split('/'))) if turn else f'c/{chunk}'}"
        for name, chunks in arrays.items()
        for chunk in chunks
    }
    shown = {str(file) for file in files if file.parts[0] != "data"}
    assert shown >= {"zarr.json", *(f"{name}/zarr.json" for name in arrays), *named}
    assert all((path / name).stat().st_nlink == 2 for name in named)


@in_turns
def test_half_an_answer_is_not_seen(
    solver: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "commit_result", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            fit(shape, path, solver=solver)
    with xarray.open_zarr(path) as seen:
        side, axis = ("H", "column") if shape[0] > shape[1] else ("W", "row")
        assert set(seen) == {side, "error_history", "seconds_history"}
        assert dict(seen.sizes) == {"component": 3, axis: min(shape), "pass": 4}
        assert (seen[side].values >= 0).all()
    assert Run.load(path).result is None
    fit(shape, path, solver=solver)
    assert {"H", "W"} <= set(xarray.open_zarr(path))


def test_a_finished_run_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit((40, 15), tmp_path / "run.zarr")
    (tmp_path / "run.zarr").chmod(0o500)
    if os.geteuid() == 0:  # who may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert Run.load(tmp_path / "run.zarr").record["finished"]


def test_w_has_the_chunks_of_the_panels(tmp_path: Path) -> None:
    result = fit((40, 15), tmp_path / "run.zarr")
    assert result.W.numblocks[0] > 1
    assert result.W.numblocks[1] == 1
