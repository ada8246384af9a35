"""A process or a worker that was given up changes nothing of what others have committed since."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import zarr
from distributed import Client, Scheduler, Worker
from support import fits
from support.matrices import Array
from support.runs import OPTIONS, assert_same_bits
from support.servers import PATIENCE, is_whole_json, until
from support.writes import N, V, data_of, fit

from dask_nmf import Run, nmf
from dask_nmf.errors import ConcurrentCommitError, RunLocked
from dask_nmf.runs import resume
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import LocalLocation

pytestmark = pytest.mark.usefixtures("several_panels")


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
@pytest.mark.parametrize("when", ["create", "commit", "commit_result"])
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


@pytest.mark.parametrize("pattern", ["carried-*", "layout-*"])
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
    v, run = tmp_path / "v.zarr", tmp_path / "run.zarr"
    stop, told, go_on, late = (tmp_path / name for name in ("stop", "told", "go-on", "late"))
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
            while not go_on.exists():  # the process is stopped meanwhile
                time.sleep(0.01)
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
            client.wait_for_workers(2, timeout=PATIENCE)
            whole = nmf(str(v), store=tmp_path / "whole.zarr", **asked)
            client.run(hang_once)

            def give_up() -> tuple[int, str]:
                until(lambda: is_whole_json(told))
                address, process, place = json.loads(told.read_text())
                os.kill(process, signal.SIGSTOP)
                until(lambda: psutil.Process(process).status() == psutil.STATUS_STOPPED)
                client.run_on_scheduler(remove_worker, address=address)
                return process, place

            def callback(step: Any) -> None:
                if step.number == 1:
                    stop.touch()
                    stopped.append(beside.submit(give_up))
                elif step.number == 2:
                    commits.append(Run.load(run).record["carried"])
                elif step.number == 5:
                    go_on.touch()
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
            assert data_of(run) == ["layout", "result"]
