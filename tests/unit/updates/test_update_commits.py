"""Updates as commits: several, none twice, what is linked, what a crash leaves, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.changed_runs import NEW, OLD, RANK, V, factors, fitted, loss
from support.matrices import low_rank
from support.runs import Crash

from dask_nmf import Run
from dask_nmf.cli.app import app
from dask_nmf.results import verify
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.updates import update


def test_whole_chunks_of_w_are_linked_and_the_run_is_shown_under_plain_names(
    tmp_path: Path, several_panels: None
) -> None:
    run = fitted(tmp_path / "run")
    rows = Run.load_result(run).array("W").chunks[0]
    assert rows < 190
    before = {path.stat().st_ino for path in (run / "data").glob("result-*/W/*")}
    update(run, NEW)
    after = {path.stat().st_ino for path in (run / "data").glob("result-*/W/*")}
    assert len(before & after) == 190 // rows
    group = zarr.open_group(run, mode="r")
    for name, factor in zip("WH", factors(run), strict=True):
        np.testing.assert_array_equal(group[name][...], factor)


def test_several_updates_follow_each_other_and_none_is_made_twice(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V[:180])
    for first in (180, 190):
        update(run, V[first : first + 10])
        state = run.joinpath("zarr.json").read_bytes()
        for rows in (V[180 : first + 10], V[first : first + 10]):
            if len(rows) == 10:
                assert update(run, rows).already
        assert run.joinpath("zarr.json").read_bytes() == state
    assert [entry["rows"] for entry in Run.load(run).summary()["lineage"]] == [[180, 190], [190, 200]]
    W, H = factors(run)
    assert loss(V, W, H, 2) < 1.005 * loss(V, *factors(fitted(tmp_path / "all", V)), 2)
    assert Run.load(run).summary()["shape"] == [200, 20]


@pytest.mark.parametrize("stage", ["link_rows", "write_w", "commit"])
def test_a_crash_leaves_the_run_as_it_was_and_the_same_call_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(tmp_path / "run")
    before = factors(run)

    def crash(*given: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ChangedResult, stage, crash)
        with pytest.raises(Crash):
            update(run, NEW)
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert all(check.passed for check in verify(run, OLD))
    assert not update(run, NEW).already
    assert len(list((run / "data").glob("result-*"))) == 1
    assert factors(run)[0].shape == (200, RANK)


def test_the_command_reports_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path / "run")
    for name, rows in {"new": NEW, "other": low_rank(10, 20, 6, seed=9)}.items():
        zarr.create_array(tmp_path / f"{name}.zarr", data=rows)
    assert app(["update", str(run), str(tmp_path / "new.zarr")], standalone_mode=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{run}: rows 190 to 199 added; relative error 0.")
    assert len(lines) == 3 + RANK
    app(["update", str(run), str(tmp_path / "new.zarr")], standalone_mode=False)
    assert capsys.readouterr().out == f"{run}: these rows are in it already, as rows 190 to 199\n"
    app(["update", str(run), str(tmp_path / "other.zarr")], standalone_mode=False)
    assert "the new rows are of another kind; fit all rows anew" in capsys.readouterr().out.splitlines()[-1]
    app(["update", str(run), str(tmp_path / "other.zarr"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["already"] is True


def test_the_rows_of_the_fit_are_not_added_to_it(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    found = update(run, OLD)
    assert (found.first, found.last, found.already) == (0, 190, True)
    update(run, NEW)
    assert update(run, OLD).already
