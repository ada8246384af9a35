"""What breaks around a fit: it goes on by itself, or ends soon with its code and a line; nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dask
import numpy as np
import pytest
from support import holds
from support.fits import (
    OWN,
    Cluster,
    Fit,
    begin,
    cluster,
    ends_well,
    frozen,
    kill,
    make_v,
    refused,
    same_factors,
    wait_for,
    workers,
)
from support.servers import PATIENCE, needs, until

from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.errors import WorkersLost
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

PASSES = 40
HELD = f"pass {PASSES - 1}"  # a fit is disturbed before it is over
WAIT = {"DASK_DASK_NMF__WAIT": "6"}  # seconds, for workers
HERE = ("--cache", "off")  # in the threads of the command, reading V anew


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small V, and what two fits make of it that nobody disturbs."""
    folder = tmp_path_factory.mktemp("failures")
    make_v(folder / "v.zarr", 4000)
    ends_well(begin(folder, "whole.zarr", "hals", PASSES))
    ends_well(begin(folder, "here.zarr", "hals", PASSES, *HERE))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def servers(folder: Path) -> Iterator[Cluster]:
    """A cluster to be started."""
    with cluster(folder) as servers:
        yield servers


def test_workers_die_all_at_once_and_again_and_again(folder: Path) -> None:
    fit = begin(folder, "again.zarr", "hals", PASSES, held=HELD)
    wait_for(fit, "pass")
    for worker in workers(fit.pid):
        kill(worker)
    chosen = random.Random(0)
    for _ in range(3):
        time.sleep(2)
        if found := workers(fit.pid):
            kill(chosen.choice(found))
    ends_well(fit)
    same_factors(folder / "again.zarr", folder / "whole.zarr")


def test_workers_that_die_as_soon_as_they_start(folder: Path) -> None:
    fit = begin(folder, "loop.zarr", "hals", PASSES, held=HELD, **WAIT)
    wait_for(fit, "pass")
    deadline = time.monotonic() + PATIENCE
    while fit.process.poll() is None and time.monotonic() < deadline:
        for worker in workers(fit.pid):
            kill(worker)
        fit.release()
        time.sleep(0.1)
    refused(fit, 75, "no worker", "run this again")
    ends_well(begin(folder, "loop.zarr", "hals", PASSES))
    same_factors(folder / "loop.zarr", folder / "whole.zarr")


def test_the_last_worker_is_lost_and_then_the_scheduler(folder: Path, servers: Cluster) -> None:
    scheduler, worker = servers.scheduler(), servers.ready_worker("--no-nanny")
    asked = ("last.zarr", "hals", PASSES, "--scheduler", servers.address)
    fit = begin(folder, *asked, held=HELD, **WAIT)
    wait_for(fit, "pass", 3)
    worker.kill()
    worker.wait()
    refused(fit, 75, servers.address, "no worker", "run this again")
    servers.ready_worker("--no-nanny")
    fit = begin(folder, *asked, held=HELD)
    wait_for(fit, "pass", 3)
    scheduler.kill()
    scheduler.wait()
    refused(fit, 75, servers.address, "the scheduler", "lost", "run this again")
    servers.scheduler()
    servers.ready_worker("--no-nanny")
    ends_well(begin(folder, *asked))
    same_factors(folder / "last.zarr", folder / "whole.zarr")


def test_a_scheduler_that_comes_back(folder: Path, servers: Cluster) -> None:
    scheduler, _ = servers.scheduler(), servers.ready_worker("--no-nanny")
    patient = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s"}
    fit = begin(folder, "back.zarr", "hals", PASSES, "--scheduler", servers.address, held=HELD, **patient)
    wait_for(fit, "pass", 3)
    scheduler.kill()
    scheduler.wait()
    servers.scheduler()
    servers.ready_worker("--no-nanny")
    ends_well(fit)
    same_factors(folder / "back.zarr", folder / "whole.zarr")


def test_a_scheduler_that_hangs(folder: Path, servers: Cluster) -> None:
    scheduler, _ = servers.scheduler(), servers.ready_worker("--no-nanny")
    fit = begin(folder, "hangs.zarr", "hals", PASSES, "--scheduler", servers.address, held=HELD, **WAIT)
    wait_for(fit, "pass", 3)
    scheduler.send_signal(signal.SIGSTOP)
    try:
        refused(fit, 75, servers.address, "run this again")
    finally:
        scheduler.send_signal(signal.SIGCONT)


def test_a_worker_that_hangs(folder: Path) -> None:
    fit = begin(folder, "hung.zarr", "hals", PASSES, held=HELD, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="8s")
    wait_for(fit, "pass", 2)
    workers(fit.pid)[0].suspend()
    ends_well(fit)
    same_factors(folder / "hung.zarr", folder / "whole.zarr")


TOO_MUCH = 900_000_000  # bytes of an array that a worker of 600 MB is ended for


@dataclass(frozen=True)
class Greedy(ReaderDefaults):
    """A V of which one panel takes more memory than a worker has: always, or the first time."""

    noted: str
    always: bool
    shape = (40, 20)
    dtype = np.dtype(np.float64)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        if index[0].start == 20 and (self.always or not Path(self.noted).exists()):
            Path(self.noted).touch()
            taken = np.ones(TOO_MUCH // 8)
            while len(taken):  # the nanny ends it, but a busy machine may let it wait
                time.sleep(0.02)
        return np.random.default_rng(index[0].start).random((index[0].stop - index[0].start, 20))


@pytest.mark.parametrize("always", [False, True])
def test_a_worker_runs_out_of_memory(always: bool, tmp_path: Path) -> None:
    source = Greedy(str(tmp_path / "noted"), always)
    matrix = Matrix(source.shape, source.dtype, "made", Orientation.ROWS, Layout(*source.shape, 8), source)
    panels, h = PanelEngine(matrix, (0, 10, 20, 30, 40)), np.ones((3, 20))
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local_cluster(1, 1, "600MB"):
        if always:
            with pytest.raises(WorkersLost, match=r"lost 4 times.*want of memory"):
                panels.run_pass(h, PassSpec(HALS().solve_w, HALS()))
        else:
            found = panels.run_pass(h, PassSpec(HALS().solve_w, HALS()))
    if not always:
        expected = panels.run_pass(h, PassSpec(HALS().solve_w, HALS()))
        np.testing.assert_allclose(found.num, expected.num, rtol=1e-12)


def days_ahead(fit: Fit) -> int:
    """Return by how many days the clock of the last pass is ahead."""
    whole = fit.log.read_text().splitlines(keepends=True)
    told = next(line for line in reversed(whole) if '"event": "pass"' in line and line.endswith("\n"))
    return round((datetime.fromisoformat(json.loads(told)["time"]).timestamp() - time.time()) / 86400)


@needs("faketime")
@pytest.mark.parametrize(("output", "where"), [("clock.zarr", HERE), ("clocks.zarr", OWN)])
def test_the_clock_jumps(output: str, where: tuple[str, ...], folder: Path) -> None:
    clock = folder / "clock"
    clock.write_text("+0")
    environment = {
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # it ends waits for Python's lock at once: 20 times slower
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
    }
    fit = begin(folder, output, "hals", PASSES, *where, held="pass 2", **environment)
    wait_for(fit, "pass", 2)
    for days, held in ((1, 12), (-1, 22), (0, 32)):
        (folder / "next").write_text(f"{days:+}d")
        (folder / "next").rename(clock)
        holds.hold(fit.hold, f"pass {held}")
        until(lambda days=days: days_ahead(fit) == days or fit.process.poll() is not None)
        assert fit.process.poll() is None, fit.log.read_text()
    ends_well(fit)
    same_factors(folder / output, folder / "here.zarr")


def a_chunk(v: Path) -> Path:
    return v / "c" / "4" / "0"


def delete(v: Path) -> None:
    a_chunk(v).unlink()


def truncate(v: Path) -> None:
    os.truncate(a_chunk(v), a_chunk(v).stat().st_size // 2)


def flip(v: Path) -> None:
    content = bytearray(a_chunk(v).read_bytes())
    content[len(content) // 2] ^= 0xFF
    a_chunk(v).write_bytes(content)


@pytest.mark.parametrize("harm", [delete, truncate, flip])
def test_a_chunk_of_v_is_lost_during_the_fit(
    harm: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
    fit = begin(tmp_path, "run.zarr", "hals", PASSES, *HERE, held=HELD)
    wait_for(fit, "pass", 2)
    with frozen(fit):
        harm(tmp_path / "v.zarr")
    refused(fit, 3, "v.zarr", "cannot be read", "restore")
    shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr", dirs_exist_ok=True)
    ends_well(begin(tmp_path, "run.zarr", "hals", PASSES, *HERE))
    same_factors(tmp_path / "run.zarr", folder / "here.zarr")


def test_v_has_changed_when_a_run_goes_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
    fit = begin(tmp_path, "run.zarr", "hals", PASSES, *HERE, held=HELD)
    wait_for(fit, "pass", 2)
    os.kill(fit.pid, signal.SIGKILL)
    fit.process.wait()
    delete(tmp_path / "v.zarr")
    fit = begin(tmp_path, "run.zarr", "hals", PASSES, *HERE)
    refused(fit, 2, "V is not the same in rows")
    assert "9 of its 10 chunks" in fit.log.read_text()


def test_a_worker_sees_that_a_chunk_is_lost(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
    fit = begin(tmp_path, "run.zarr", "hals", PASSES, "--cache", "off", *OWN, held=HELD)
    wait_for(fit, "pass", 2)
    delete(tmp_path / "v.zarr")
    refused(fit, 3, "c/4/0 was there", "restore")
