"""The old answer stays, for all readers, until there is a newer one."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from click.testing import CliRunner
from support.matrices import Array
from support.runs import Crash, assert_same_bits, crash_after
from support.writes import PASSES, V, data_of, fit

from dask_nmf import NMF, Result
from dask_nmf.cli.app import app
from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import ListOptions, recommend_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.storage.locations import locate, locate_file

pytestmark = pytest.mark.usefixtures("several_panels")


def readings(run: Path, folder: Path) -> list[Array]:
    """Return all that a user reads of an answer: in Python, by other tools, and by commands."""
    folder.mkdir(exist_ok=True)
    (folder / "cells.csv").write_text("row,column\n3,4\n39,14\n")
    with xarray.open_zarr(run) as seen:
        shown = [seen[name].values for name in ("W", "H", "error_history")]
    model = NMF.load(run)
    transform_to(locate(run), V, locate(folder / "W.zarr"), True, lambda _: nullcontext())
    predict_to(locate(run), folder / "cells.csv", locate_file(folder / "values.csv"), True)
    recommend_to(
        locate(run), -V + V, ListOptions(2), locate_file(folder / "best.csv"), True, lambda _: nullcontext()
    )
    return [
        *shown,
        zarr.open_array(run / "H", mode="r")[:],
        model.components_,
        model.transform(V[:5]),
        zarr.open_group(folder / "W.zarr", mode="r")["W"][:],
        *(np.loadtxt(folder / name, delimiter=",", skiprows=1) for name in ("values.csv", "best.csv")),
    ]


def same_readings(mine: list[Array], theirs: list[Array]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def told(run: Path) -> tuple[dict[str, Any], str]:
    """Return what `info` tells, as JSON and as text."""
    as_json, as_text = (
        CliRunner().invoke(app, ["info", str(run), *more], standalone_mode=False).output
        for more in (["--json"], [])
    )
    return json.loads(as_json), as_text


def test_last_nights_answer_stays_until_there_is_a_newer_one(tmp_path: Path) -> None:
    solver = "mu"
    run, whole = tmp_path / "run.zarr", tmp_path / "whole.zarr"
    fit(whole, solver=solver)
    first = fit(run, solver=solver, time_limit=0)
    before = readings(run, tmp_path / "out")
    for number in (2, 3):
        with pytest.raises(Crash):
            fit(run, solver=solver, callback=crash_after(number))
        same_readings(readings(run, tmp_path / "out"), before)
        found, text = told(run)
        assert (found["state"], found["passes"], found["result"]["passes"]) == ("unfinished", number, 1)
        assert found["result"]["relative_error"] == first.relative_error > found["relative_error"]
        assert "unfinished" in text
        assert str(first.relative_error)[:6] in text
    fit(run, solver=solver)
    same_readings(readings(run, tmp_path / "out"), readings(whole, tmp_path / "out"))
    found, _ = told(run)
    assert (found["state"], found["result"]["passes"]) == ("finished", PASSES)


def test_the_old_answer_stays_while_it_is_overwritten_and_the_same_call_goes_on(tmp_path: Path) -> None:
    solver = "mu"
    run, whole = tmp_path / "run.zarr", tmp_path / "whole.zarr"
    fit(run)
    before = readings(run, tmp_path / "out")
    fit(whole, n_components=2, solver=solver)
    passes: list[int] = []

    def again(step: Any) -> None:
        passes.append(step.number)
        raise Crash

    def overwrite(**options: Any) -> Result:
        return fit(run, n_components=2, solver=solver, overwrite=True, **options)

    for _ in range(PASSES):
        with pytest.raises(Crash):
            overwrite(callback=again)
        same_readings(readings(run, tmp_path / "out"), before)
        found, text = told(run)
        assert (found["n_components"], found["result"]["n_components"], found["state"]) == (
            2,
            3,
            "unfinished",
        )
        assert "unfinished" in text
        with pytest.raises(RunMismatch, match="n_components is 3, the run has 2"):
            fit(run)
    overwrite(callback=again)
    assert passes == [1, 2, 3, 4]
    same_readings(readings(run, tmp_path / "out"), readings(whole, tmp_path / "out"))
    assert data_of(run) == ["layout", "result"]
    with pytest.raises(Crash):
        overwrite(callback=again)  # it is finished: the same call begins anew
    assert passes[-1] == 1


@pytest.mark.parametrize("there", ["nothing", "an unfinished run", "a finished run"])
def test_overwriting_goes_on_whatever_was_there_when_it_began(there: str, tmp_path: Path) -> None:
    run = tmp_path / "run.zarr"
    if there != "nothing":
        fit(run, time_limit=0 if "un" in there else None)
    passes: list[int] = []

    def note(step: Any) -> None:
        passes.append(step.number)
        if step.number in (1, 3):
            raise Crash

    for _ in range(2):
        with pytest.raises(Crash):
            fit(run, overwrite=True, callback=note)
    found = fit(run, overwrite=True, callback=note)
    assert passes == [1, 2, 3, 4]
    assert_same_bits(found, fit(tmp_path / "whole.zarr"))


def test_an_overwriting_fit_of_other_settings_begins_anew(tmp_path: Path) -> None:
    run = tmp_path / "run.zarr"
    fit(run)
    for rank in (2, 4):
        with pytest.raises(Crash):
            fit(run, n_components=rank, overwrite=True, callback=crash_after(2))
    assert told(run)[0]["result"]["n_components"] == 3
    assert_same_bits(fit(run, n_components=4, overwrite=True), fit(tmp_path / "whole.zarr", n_components=4))


def test_a_damaged_fit_that_overwrites_begins_anew(tmp_path: Path) -> None:
    run = tmp_path / "run.zarr"
    fit(run)
    with pytest.raises(Crash):
        fit(run, n_components=2, overwrite=True, callback=crash_after(2))
    for place in (run / "data").glob("pass-*"):
        shutil.rmtree(place)
    assert_same_bits(fit(run, n_components=2, overwrite=True), fit(tmp_path / "whole.zarr", n_components=2))


def test_h_of_the_run_that_is_overwritten_begins_the_new_fit_also_when_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run.zarr"
    old = np.asarray(fit(run).H)
    whole = fit(tmp_path / "whole.zarr", H=old, solver="mu")

    def again(**options: Any) -> Result:
        return fit(run, H=run / "H", solver="mu", overwrite=True, **options)

    for number in (1, 3):
        with pytest.raises(Crash):
            again(callback=crash_after(number))
        np.testing.assert_array_equal(zarr.open_array(run / "H", mode="r")[:], old)
    assert_same_bits(again(), whole)


def test_a_result_whose_run_was_overwritten_raises(tmp_path: Path) -> None:
    """Zarr would read NaN, its fill value."""
    old = fit(tmp_path / "run.zarr", missing="nan")
    new = fit(tmp_path / "run.zarr", n_components=2, overwrite=True)
    assert old.means is not None
    for gone in (old.W, old.H, old.means.rows, old.means.columns):
        with pytest.raises(
            InvalidRunError, match=r"run\.zarr.* was there and is no more: .*load the run anew"
        ):
            gone.compute()
    assert np.isfinite(new.W.compute()).all()
