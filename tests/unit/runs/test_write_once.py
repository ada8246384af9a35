"""Data of a run are written once: what is late, lost or killed changes nothing of what others have."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from support.cuts import cut_both_ways
from support.matrices import Array, low_rank
from support.runs import OPTIONS, Crash, assert_same_bits, crash_after
from support.writes import PASSES, M, N, V, data_of, fit

from dask_nmf import Result, Run, nmf
from dask_nmf.errors import InvalidRunError
from dask_nmf.runs.commits import Commits
from dask_nmf.storage.arrays.factors import ZarrFactor

CARRIED: dict[str, dict[str, Any]] = {  # fits that keep a W, or an H in pieces, from pass to pass
    "mu": {"solver": "mu"},
    "mu of a wide V": {"solver": "mu"},
    "sgd": {"solver": "sgd"},
    "pieces": {"init": "random"},
}
kinds = pytest.mark.parametrize("kind", CARRIED)
pytestmark = pytest.mark.usefixtures("several_panels")
Write = tuple[ZarrFactor, int, Array]


@pytest.fixture
def carried(kind: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A fit of one of the kinds that carry."""
    v: Any = low_rank(N, M, 3) if "wide" in kind else V
    if kind == "pieces":
        cut_both_ways(monkeypatch, (0, 20, 40), (0, 5, 10, 15), 1)
        v = da.from_array(V, chunks=(10, 5))

    def call(store: Path, **options: Any) -> Result:
        asked = {**OPTIONS, "max_iter": PASSES, "store": store, **CARRIED[kind], **options}
        return nmf(v, **asked)

    return call


@contextmanager
def writes_noted() -> Iterator[list[Write]]:
    """All that tasks write, to be written again by one that comes late."""
    noted: list[Write] = []
    real = ZarrFactor.write

    def write(self: ZarrFactor, first: int, w: Array) -> None:
        noted.append((self, first, np.array(w)))
        real(self, first, w)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZarrFactor, "write", write)
        yield noted


def write_late(noted: list[Write]) -> None:
    """What a worker does that hung before its write, was given up, and goes on."""
    for place, first, w in list(noted):
        ZarrFactor.write(place, first, w)


@kinds
def test_a_late_write_of_a_pass_changes_no_later_one_and_is_swept(
    carried: Callable[..., Result], tmp_path: Path
) -> None:
    whole = carried(tmp_path / "whole.zarr")
    run, late = tmp_path / "run.zarr", []

    def callback(step: Any) -> None:
        if step.number == 1:
            late.extend(noted)
        else:
            write_late(late)

    with writes_noted() as noted:
        found = carried(run, callback=callback)
    assert late
    assert_same_bits(found, whole)
    write_late(late)
    assert "carried" in data_of(run)
    assert_same_bits(carried(run), whole)
    assert data_of(run) == ["layout", "result"]


@kinds
def test_a_run_has_one_generation_more_on_disk_than_it_goes_on_from(
    kind: str, carried: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, scratch = tmp_path / "run.zarr", kind == "pieces"  # whose passes keep W until they end
    publish, seen = Commits.publish, []

    def counted(commits: Commits, *args: Any, **options: Any) -> None:
        """Publish a commit, before which the disk has the most."""
        there, needed = data_of(run), len(commits.record["carried"])
        written = len(commits.carried)
        assert there.count("carried") <= needed + 1 + written + scratch
        assert there.count("pass") <= 3
        publish(commits, *args, **options)
        there, needed = data_of(run), len(commits.record["carried"])
        assert there.count("carried") <= needed + 1
        assert there.count("pass") <= 2
        seen.append(written)

    monkeypatch.setattr(Commits, "publish", counted)
    carried(run)
    assert max(seen) == 1, "a pass writes one generation"
    assert data_of(run) == ["layout", "result"]


@pytest.mark.parametrize("kind", ["mu of a wide V", "pieces"])
def test_a_late_write_of_a_time_limited_answer_changes_no_later_one(
    carried: Callable[..., Result], tmp_path: Path
) -> None:
    whole = carried(tmp_path / "whole.zarr")
    with writes_noted() as noted:
        carried(tmp_path / "run.zarr", time_limit=0)
    found = carried(tmp_path / "run.zarr", callback=lambda _: write_late(noted))
    write_late(noted)
    assert_same_bits(found, whole)
    assert_same_bits(carried(tmp_path / "run.zarr"), whole)


def weights_of(run: Path) -> list[Path]:
    """Return the chunks of the W, or of the pieces of H, that the last commit of a run is to go on with."""
    record = Run.load(run).record
    place = run / record["carried"][str(record["state"]["w_slot"])]
    return sorted(path for path in place.rglob("*") if path.is_file())


@kinds
def test_a_lost_chunk_is_missed_in_a_pass_and_costs_one_pass(
    carried: Callable[..., Result], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, run = carried(tmp_path / "whole.zarr"), tmp_path / "run.zarr"

    def lose(step: Any) -> None:
        if step.number == 2:
            weights_of(run)[-1].unlink()

    with pytest.raises(InvalidRunError, match=r"damaged: a part of rows .* run the same command"):
        carried(run, callback=lose)
    numbers: list[int] = []
    found = carried(run, callback=lambda step: numbers.append(step.number))
    assert numbers == [2, 3, 4]
    assert "pass 2 of" in caplog.text
    assert "going on after pass 1" in caplog.text
    assert_same_bits(found, whole)


@pytest.mark.parametrize(("solver", "content"), [("hals", None), ("mu", b"")], ids=["lost", "empty"])
def test_damage_to_the_last_commit_costs_one_pass(solver: str, content: bytes | None, tmp_path: Path) -> None:
    """Also a file without content, as a power cut leaves one that was not synchronised."""
    whole = fit(tmp_path / "whole.zarr", solver=solver)
    damaged = tmp_path / "run.zarr"
    with pytest.raises(Crash):
        fit(damaged, solver=solver, callback=crash_after(3))
    record = Run.load(damaged).record
    folders = {record["commit"], *(path.split("/")[1] for path in record["carried"].values())}
    for number, name in enumerate(sorted(folders)):
        run = tmp_path / f"{number}.zarr"
        shutil.copytree(damaged, run)
        chunk = next(path for path in (run / "data" / name).rglob("*") if path.is_file())
        chunk.unlink()
        if content is not None:
            chunk.write_bytes(content)
        assert_same_bits(fit(run, solver=solver), whole)


@pytest.mark.parametrize(("solver", "limit"), [("hals", None), ("mu", None), ("mu", 0)])
def test_what_a_killed_command_leaves_is_swept_by_the_next_one(
    solver: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed after "finished" was committed and before anything is deleted."""
    run = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("dask_nmf.storage.arrays.write_once.delete_folders", lambda *_: None)
        fit(run, solver=solver, time_limit=limit)
    assert len(data_of(run)) > 3
    for name in (".zarr.json.{}.partial", "H/.zarr.json.{}.partial"):
        (run / name.format("0" * 32)).touch()
    fit(run, solver=solver)
    assert data_of(run) == ["layout", "result"]
    assert not list(run.rglob("*.partial"))


def test_a_kill_between_the_commit_and_the_metadata_of_arrays_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run.zarr"
    fit(run)
    with monkeypatch.context() as patch:
        patch.setattr("dask_nmf.storage.arrays.links.write_metadata", interrupt)
        with pytest.raises(Crash):
            fit(run, n_components=2, overwrite=True)
    found = fit(run, n_components=2)
    np.testing.assert_array_equal(zarr.open_array(run / "H", mode="r")[:], found.H)
    np.testing.assert_array_equal(zarr.open_array(run / "W", mode="r")[:], found.W)


def interrupt(*_: Any) -> None:
    raise Crash


def test_a_fit_that_is_killed_in_its_first_commit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Commits, "publish", interrupt)
        with pytest.raises(Crash):
            fit(run)
    assert len(data_of(run)) == 2
    fit(run)
    assert data_of(run) == ["layout", "result"]


@pytest.mark.parametrize("kind", ["mu", "pieces"])
def test_a_run_begins_where_late_workers_wrote_after_the_run_was_deleted(
    carried: Callable[..., Result], tmp_path: Path
) -> None:
    whole, run = carried(tmp_path / "whole.zarr"), tmp_path / "run.zarr"
    with writes_noted() as noted, pytest.raises(Crash):
        carried(run, callback=crash_after(2))
    shutil.rmtree(run)
    write_late(noted)
    (run / f".zarr.json.{'0' * 32}.partial").touch()
    assert_same_bits(carried(run), whole)
    assert data_of(run) == ["layout", "result"]
    assert not list(run.rglob("*.partial"))


@pytest.mark.parametrize("name", ["data/run-1/thesis.txt", "data/thesis.txt", "thesis/data/result-1"])
def test_a_folder_with_data_of_others_is_no_place_for_a_run(name: str, tmp_path: Path) -> None:
    thesis = tmp_path / "run.zarr" / name
    thesis.parent.mkdir(parents=True)
    thesis.write_text("precious")
    with pytest.raises(InvalidRunError, match="is not a run"):
        fit(tmp_path / "run.zarr", overwrite=True)
    assert thesis.read_text() == "precious"


def test_a_run_that_is_deleted_during_a_commit_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, write = tmp_path / "run.zarr", Commits.write_histories

    def deleted(self: Commits, folder: str, record: dict[str, Any]) -> None:
        write(self, folder, record)
        if record["pass"] == 2:
            shutil.rmtree(run)

    monkeypatch.setattr(Commits, "write_histories", deleted)
    with pytest.raises(InvalidRunError, match="damaged"):
        fit(run)
    assert not (run / "zarr.json").exists()


def test_a_run_that_is_deleted_during_the_last_read_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, new_answer = tmp_path / "run.zarr", Run.create_factors

    def deleted(self: Run) -> Any:
        shutil.rmtree(run)
        return new_answer(self)

    monkeypatch.setattr(Run, "create_factors", deleted)
    with pytest.raises(InvalidRunError, match="damaged"):
        fit(run)
    assert not (run / "zarr.json").exists()
