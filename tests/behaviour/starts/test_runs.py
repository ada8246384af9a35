"""The run of a fit from several starts: killed, stopped, overwritten, damaged, and what it says of itself."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.runs import Crash, assert_same_bits
from support.starts import STARTS, V, fit

from dask_nmf import NMF, Run
from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.runs.commits import Commits


def test_starts_commit_what_they_go_on_from_and_show_nothing(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    seen = []

    def look(step: Any) -> None:
        seen.append({path.name for path in (place / "start-0").iterdir()})

    fit(V, store=place, max_iter=2, tol=0, init="random", callback=look)
    assert seen
    assert all(names == {"data", "zarr.json"} for names in seen)
    assert {"H", "W", "error_history"} <= set(zarr.open_group(place, mode="r"))


@pytest.mark.parametrize(("solver", "step"), [("hals", 3), ("mu", 3)])
def test_a_fit_that_is_killed_after_any_commit_ends_the_same(
    solver: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"solver": solver, "init": "random", "max_iter": 2, "tol": 0, "n_init": 2}
    whole = fit(V, **options)
    publish, commits = Commits.publish, 0

    def killed(self: Commits, *given: Any, **options: Any) -> None:
        nonlocal commits
        publish(self, *given, **options)
        commits -= 1
        if commits == 0:
            raise Crash

    place, crashes = tmp_path / "run.zarr", 0
    for last in range(1, 30, step):
        place, commits = tmp_path / f"{last}.zarr", last
        with monkeypatch.context() as patch:
            patch.setattr(Commits, "publish", killed)
            try:
                fit(V, **options, store=place)
                break
            except Crash:
                crashes += 1
        assert_same_bits(fit(V, **options, store=place), whole)
        assert not list(place.glob("start-*"))
    assert crashes >= 8 // step  # a commit of each start, two passes each, one of the fit, and its result


def test_a_time_limit_leaves_the_best_so_far_and_the_same_call_goes_on(tmp_path: Path) -> None:
    place, options = tmp_path / "run.zarr", {"init": "random", "max_iter": 3, "tol": 0}
    whole = fit(V, **options)
    short = fit(V, **options, store=place, time_limit=0)
    assert (short.outcome, short.n_iter, short.n_init) == ("time limit", 1, STARTS)
    assert Run.load(place).summary()["state"] == "stopped"
    found = Run.load(place).summary()["starts"]
    assert found["objectives"] == list(short.objectives)  # type: ignore[arg-type]
    assert_same_bits(fit(V, **options, store=place), whole)
    assert Run.load(place).summary()["state"] == "finished"


def test_the_spread_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "run.zarr"
    with caplog.at_level(logging.INFO, "dask_nmf"):
        found = fit(V, init="random", store=place)
    assert found.objectives is not None
    kept = int(np.argmin(found.objectives))
    least, most = found.objectives.min(), found.objectives.max()
    spread = f"3, objective {least:.6g} to {most:.6g}, {100 * (most / least - 1):.2g} % apart"
    assert f"starts: {spread}; start {kept} is kept (seed {5 + (kept << 32)})" in caplog.text
    assert "pass 1: 3 of 3 starts go on, relative error 0." in caplog.text
    assert spread in repr(found)
    described = json.loads(json.dumps(Run.load(place).summary()))
    assert described["starts"] == {"objectives": list(found.objectives), "kept": kept}
    assert described["settings"]["n_init"] == STARTS
    loaded = NMF.load(place)
    np.testing.assert_array_equal(loaded.objectives_, found.objectives)
    assert loaded.n_init == STARTS


def test_starts_in_progress_are_described(tmp_path: Path) -> None:
    def stop(step: Any) -> None:
        if step.number == 2:
            raise Crash

    with pytest.raises(Crash):
        fit(V, init="random", store=tmp_path / "run.zarr", callback=stop)
    starts = Run.load(tmp_path / "run.zarr").summary()["starts"]
    assert starts["passes"] == [2, 2, 2]
    assert all(0 < error < 1 for error in starts["relative_errors"])


def test_an_unfinished_fit_is_overwritten_with_its_starts(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    fit(V, init="random", store=place, time_limit=0)
    assert len(list(place.glob("start-*"))) == STARTS
    with pytest.raises(RunMismatch, match="n_init is 1, the run has 3"):
        fit(V, init="random", store=place, n_init=1)
    single = fit(V, init="random", store=place, n_init=1, overwrite=True)
    assert_same_bits(single, fit(V, init="random", n_init=1))
    assert not list(place.glob("start-*"))


def _lose(start: Path) -> None:
    shutil.rmtree(start)


def _cut_root_short(start: Path) -> None:
    (start / "zarr.json").write_text("{")


def _lose_arrays(start: Path) -> None:
    shutil.rmtree(start / "data")


@pytest.mark.parametrize("damage", [_lose, _cut_root_short, _lose_arrays])
def test_a_fit_whose_start_is_lost_is_refused_or_begun_anew(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    place, options = tmp_path / "run.zarr", {"init": "random", "n_init": 2}
    fit(V, **options, store=place, overwrite=True, time_limit=0)
    damage(place / "start-1")
    for _ in range(2):
        with pytest.raises(InvalidRunError, match=r"run\.zarr.*; restore it, or remove it|path or remove it"):
            fit(V, **options, store=place)
    assert_same_bits(fit(V, **options, store=place, overwrite=True), fit(V, **options))
    assert not list(place.glob("start-*"))


def test_a_run_of_before_there_were_several_starts_goes_on(tmp_path: Path) -> None:
    place, options = tmp_path / "run.zarr", {"init": "random", "n_init": 1}
    fit(V, **options, store=place, time_limit=0)
    root = zarr.open_group(place)
    record = dict(root.attrs["dask_nmf"])  # type: ignore[arg-type]
    del record["starts"], record["settings"]["n_init"]
    stored = json.loads((place / "zarr.json").read_text())
    stored["attributes"]["dask_nmf"] = record
    (place / "zarr.json").write_text(json.dumps(stored))
    assert_same_bits(fit(V, **options, store=place), fit(V, **options))
