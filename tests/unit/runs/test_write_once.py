"""Data of a run are written once: who comes late, or is interrupted, changes nothing of what others have."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
import xarray
import zarr
from click.testing import CliRunner
from distributed import Client, Scheduler, Worker
from support import fits
from support.cuts import cut_both_ways
from support.matrices import Array, low_rank
from support.runs import OPTIONS, Crash, assert_same_bits, crash_after
from support.servers import until

from dask_nmf import NMF, Result, Run, nmf
from dask_nmf.cli.main import app
from dask_nmf.errors import ConcurrentCommitError, InvalidRunError, RunLocked, RunMismatch
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import recommend_to
from dask_nmf.inference.transform import transform_to
from dask_nmf.runs import resume
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import LocalLocation

M, N = 40, 15
PASSES = 4
V = low_rank(M, N, 3)
CARRIED: dict[str, dict[str, Any]] = {  # fits that keep a W, or an H in pieces, from pass to pass
    "mu": {"solver": "mu"},
    "mu of a wide V": {"solver": "mu"},
    "sgd": {"solver": "sgd"},
    "pieces": {"init": "random"},
}
kinds = pytest.mark.parametrize("kind", CARRIED)
pytestmark = pytest.mark.usefixtures("several_panels")
Write = tuple[ZarrFactor, int, Array]


def fit(store: Path, **options: Any) -> Result:
    return nmf(V, **{**OPTIONS, "max_iter": PASSES, "store": store, **options})


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


def data_of(run: Path) -> list[str]:
    """Return what the folders of data in a run are for."""
    return sorted(place.name.split("-")[0] for place in (run / "data").iterdir())


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
    assert "weights" in data_of(run)
    assert_same_bits(carried(run), whole)
    assert data_of(run) == ["answer", "layout"]


@kinds
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
    record = Run.load(str(run)).record
    place = run / record["weights"][str(record["state"]["slot"])]
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


@pytest.mark.parametrize("content", [None, b""], ids=["lost", "empty"])
@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_damage_to_the_last_commit_costs_one_pass(solver: str, content: bytes | None, tmp_path: Path) -> None:
    """Also a file without content, as a power cut leaves one that was not synchronised."""
    whole = fit(tmp_path / "whole.zarr", solver=solver)
    damaged = tmp_path / "run.zarr"
    with pytest.raises(Crash):
        fit(damaged, solver=solver, callback=crash_after(3))
    record = Run.load(str(damaged)).record
    folders = {record["commit"], *(path.split("/")[1] for path in record["weights"].values())}
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
    assert data_of(run) == ["answer", "layout"]
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
        patch.setattr(Run, "_publish", interrupt)
        with pytest.raises(Crash):
            fit(run)
    assert len(data_of(run)) == 2
    fit(run)
    assert data_of(run) == ["answer", "layout"]


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
    assert data_of(run) == ["answer", "layout"]
    assert not list(run.rglob("*.partial"))


@pytest.mark.parametrize("name", ["data/run-1/thesis.txt", "data/thesis.txt", "thesis/data/answer-1"])
def test_a_folder_with_data_of_others_is_no_place_for_a_run(name: str, tmp_path: Path) -> None:
    thesis = tmp_path / "run.zarr" / name
    thesis.parent.mkdir(parents=True)
    thesis.write_text("precious")
    with pytest.raises(InvalidRunError, match="is not a run"):
        fit(tmp_path / "run.zarr", overwrite=True)
    assert thesis.read_text() == "precious"


def test_a_run_that_is_deleted_during_the_last_read_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, new_answer = tmp_path / "run.zarr", Run.new_answer

    def deleted(self: Run) -> Any:
        shutil.rmtree(run)
        return new_answer(self)

    monkeypatch.setattr(Run, "new_answer", deleted)
    with pytest.raises(InvalidRunError, match="damaged"):
        fit(run)
    assert not (run / "zarr.json").exists()


def readings(run: Path, folder: Path) -> list[Array]:
    """Return all that a user reads of an answer: in Python, by other tools, and by commands."""
    folder.mkdir(exist_ok=True)
    (folder / "cells.csv").write_text("row,column\n3,4\n39,14\n")
    with xarray.open_zarr(run) as seen:
        shown = [seen[name].values for name in ("W", "H", "error_history")]
    model = NMF.load(run)
    transform_to(str(run), V, str(folder / "W.zarr"), True, lambda _: nullcontext())
    predict_to(str(run), str(folder / "cells.csv"), str(folder / "values.csv"), True)
    recommend_to(str(run), -V + V, 2, str(folder / "best.csv"), True, lambda _: nullcontext())
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
        assert (found["state"], found["passes"], found["answer"]["passes"]) == ("unfinished", number, 1)
        assert found["answer"]["relative_error"] == first.relative_error > found["relative_error"]
        assert "unfinished" in text
        assert str(first.relative_error)[:6] in text
    fit(run, solver=solver)
    same_readings(readings(run, tmp_path / "out"), readings(whole, tmp_path / "out"))
    found, _ = told(run)
    assert (found["state"], found["answer"]["passes"]) == ("finished", PASSES)


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
        assert (found["n_components"], found["answer"]["n_components"], found["state"]) == (
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
    assert data_of(run) == ["answer", "layout"]
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
    assert told(run)[0]["answer"]["n_components"] == 3
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


def test_a_run_that_another_command_began_while_v_was_read_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of the first was lost meanwhile: it does not even take notice of that."""
    run = tmp_path / "run.zarr"
    monkeypatch.setattr(LocalLocation, "lock", lambda _: nullcontext(lambda: None))
    real = resume.NewRun.create

    def late(self: Any, mine: Any) -> Run:
        monkeypatch.setattr(resume.NewRun, "create", real)
        fit(run, n_components=2)
        return real(self, mine)

    monkeypatch.setattr(resume.NewRun, "create", late)
    with pytest.raises(ConcurrentCommitError, match="changed by another process meanwhile"):
        fit(run)
    assert_same_bits(fit(run, n_components=2), fit(tmp_path / "whole.zarr", n_components=2))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("when", ["create", "commit", "finish"])
def test_who_lost_the_lock_of_a_run_commits_and_deletes_nothing(
    when: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk has no flock: the lock is a lease, which another has taken over."""
    run, lost = tmp_path / "run.zarr", []
    if overwrite:
        fit(run, n_components=2)

    def check() -> None:
        if lost:
            raise RunLocked("another process has taken over")

    monkeypatch.setattr(LocalLocation, "lock", lambda _: nullcontext(check))
    owner: Any = resume.NewRun if when == "create" else Run
    real = getattr(owner, when)

    def slow(self: Any, *asked: Any) -> Any:
        lost.append(True)
        before.append({str(path): path.read_bytes() for path in run.rglob("zarr.json")})
        return real(self, *asked)

    before: list[dict[str, bytes]] = []
    with monkeypatch.context() as patch:
        patch.setattr(owner, when, slow)
        with pytest.raises(RunLocked):
            fit(run, overwrite=overwrite)
    assert {str(path): path.read_bytes() for path in run.rglob("zarr.json")} == before[0]
    lost.clear()
    assert_same_bits(fit(run, overwrite=overwrite), fit(tmp_path / "whole.zarr"))


@pytest.mark.parametrize("pattern", ["weights-*", "layout-*"])
def test_who_lost_the_lock_is_told_that_and_not_of_damage(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process has gone on, and deleted what is old."""
    run, lost = tmp_path / "run.zarr", []

    def check() -> None:
        if lost:
            raise RunLocked("another process has taken over")

    def taken_over(_: Any) -> None:
        for place in (run / "data").glob(pattern):
            shutil.rmtree(place)
        lost.append(True)

    monkeypatch.setattr(LocalLocation, "lock", lambda _: nullcontext(check))
    with pytest.raises(RunLocked):
        fit(run, solver="mu", callback=taken_over)


@pytest.mark.real
@pytest.mark.parametrize("solver", ["mu", "sgd"])
def test_a_worker_that_is_stopped_before_it_writes_and_goes_on_passes_later(
    solver: str, tmp_path: Path
) -> None:
    """The test gives it up, as a scheduler does after its ttl: a busy machine makes all workers miss that."""
    v, run, stop, told, late = (tmp_path / name for name in ("v.zarr", "run.zarr", "stop", "told", "late"))
    zarr.create_array(v, data=V, chunks=(10, N))
    asked: dict[str, Any] = {**OPTIONS, "solver": solver, "max_iter": 7}

    def hang_once(dask_worker: Worker) -> None:
        real, address = ZarrFactor.write, dask_worker.address

        def write(self: ZarrFactor, first: int, w: Array) -> None:
            try:
                stop.unlink()  # by the first worker that writes: any may, where another one is slow
            except FileNotFoundError:
                real(self, first, w)
                return
            told.write_text(json.dumps([address, os.getpid(), self.array.store_path.path]))
            os.kill(os.getpid(), signal.SIGSTOP)
            real(self, first, w)
            late.touch()

        ZarrFactor.write = write  # type: ignore[method-assign]

    async def remove_worker(dask_scheduler: Scheduler, address: str) -> None:
        await dask_scheduler.remove_worker(address, stimulus_id="given-up")

    with fits.cluster(tmp_path) as cluster, ThreadPoolExecutor(1) as beside:
        cluster.scheduler()
        for _ in range(2):
            cluster.worker("--no-nanny")
        with Client(cluster.address) as client:
            client.wait_for_workers(2, timeout=60)
            whole = nmf(str(v), store=tmp_path / "whole.zarr", **asked)
            client.run(hang_once)

            def give_up() -> tuple[int, str]:
                until(lambda: told.exists() and told.read_text())
                address, process, place = json.loads(told.read_text())
                until(lambda: psutil.Process(process).status() == psutil.STATUS_STOPPED)
                client.run_on_scheduler(remove_worker, address=address)
                return process, place

            def callback(step: Any) -> None:
                if step.number == 1:
                    stop.touch()
                    stopped.append(beside.submit(give_up))
                elif step.number == 2:
                    commits.append(Run.load(str(run)).record["weights"])
                elif step.number == 5:
                    os.kill(stopped[0].result()[0], signal.SIGCONT)
                    until(late.exists)

            stopped: list[Future[tuple[int, str]]] = []
            commits: list[dict[str, str]] = []
            found = nmf(str(v), store=run, callback=callback, **asked)
            place = stopped[0].result()[1]
            assert place in commits[0].values()  # what it was to write in pass 2, which others wrote then
            assert_same_bits(found, whole)
            assert (run / place).exists()
            assert_same_bits(nmf(str(v), store=run, **asked), whole)
            assert data_of(run) == ["answer", "layout"]
