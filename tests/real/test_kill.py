"""Kill it: whatever dies, at whatever moment, the same command again ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.command import Forks
from support.fits import (
    OWN,
    RANK,
    begin,
    end,
    ends_well,
    kill,
    make_v,
    passes_done,
    same_factors,
    wait_for,
    words,
    workers,
)

from dask_nmf import nmf
from dask_nmf.cluster.backends.local import local_cluster

PASSES = 16
HELD = f"pass {PASSES - 1}"  # a fit is killed before it is over
MOMENTS = 0.4  # seconds within which a kill comes: some passes
SIGNALS = ((signal.SIGTERM, 143), (signal.SIGINT, 130))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a V, in 40 panels."""
    folder = tmp_path_factory.mktemp("kill")
    make_v(folder / "v.zarr")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Callable[[str], Path]:
    """Of a solver a run that nobody disturbed."""

    @cache
    def run(solver: str) -> Path:
        with local_cluster(2, 1, "1GiB"):
            store = folder / f"{solver}-whole.zarr"
            nmf(folder / "v.zarr", RANK, solver=solver, store=store, tol=0, max_iter=PASSES)
        return store

    return run


@pytest.mark.parametrize(
    ("solver", "events"),
    [
        ("hals", ("plan", "pass")),
        ("mu", ("pass", "pass")),
        ("sgd", ("pass", "pass")),
    ],
)
def test_sigkill_of_everything_at_random_moments_and_then_of_a_worker(
    folder: Path, whole: Callable[[str], Path], solver: str, events: tuple[str, ...]
) -> None:
    moments = random.Random(solver)
    output = f"{solver}-killed.zarr"
    for event, held in zip(events, ("pass 5", "pass 10"), strict=True):
        fit = begin(folder, output, solver, PASSES, held=held)
        wait_for(fit, event)
        time.sleep(moments.uniform(0, MOMENTS))
        os.killpg(fit.pid, signal.SIGKILL)
        fit.process.wait()
    fit = begin(folder, output, solver, PASSES, held=HELD)
    wait_for(fit, "pass")
    found = workers(fit.pid)
    assert len(found) == 2
    kill(found[0])
    ends_well(fit)
    same_factors(folder / output, whole(solver))


def test_a_v_cut_both_ways_is_killed_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((6000, 8), (8, 3600)))
    v = (w @ h) * rng.random((6000, 3600), dtype=np.float32)
    zarr.create_array(tmp_path / "v.zarr", data=v, chunks=(2000, 400))
    asked = ("hals", 3, "--workers", "2", "--threads-per-worker", "1", "--memory-limit", "550MB")
    ends_well(begin(tmp_path, "whole.zarr", *asked))
    fit = begin(tmp_path, "killed.zarr", *asked, held="pass 2")
    wait_for(fit, "pass")
    os.killpg(fit.pid, signal.SIGKILL)
    fit.process.wait()
    fit = begin(tmp_path, "killed.zarr", *asked, held="pass 2")
    wait_for(fit, "pass")
    kill(workers(fit.pid)[0])
    ends_well(fit)
    assert passes_done(tmp_path / "whole.zarr") == 3
    same_factors(tmp_path / "killed.zarr", tmp_path / "whole.zarr")


def test_several_starts_are_killed_too(tmp_path: Path) -> None:
    make_v(tmp_path / "v.zarr", 4000)
    asked = ("hals", 4, "--n-init", "3", "--init", "random", *OWN)
    ends_well(begin(tmp_path, "whole.zarr", *asked))
    for event, times, held in (("first read", 1, "first read 1"), ("shared pass", 2, "shared pass 3")):
        fit = begin(tmp_path, "killed.zarr", *asked, held=held)
        wait_for(fit, event, times)
        os.killpg(fit.pid, signal.SIGKILL)
        fit.process.wait()
    ends_well(begin(tmp_path, "killed.zarr", *asked))
    same_factors(tmp_path / "killed.zarr", tmp_path / "whole.zarr")
    assert not list((tmp_path / "killed.zarr").glob("start-*"))


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_leaves_a_committed_run(
    folder: Path, number: signal.Signals, code: int, forks: Forks
) -> None:
    output = f"{number.name}.zarr"
    fit = begin(folder, output, "hals", 1000)
    if number == signal.SIGTERM:
        wait_for(fit, "plan")
        second = forks.call(words(output, "hals", 1000, *OWN), folder)
        assert second.returncode == 75  # it is told to wait
        assert "another process" in second.stderr.splitlines()[-1]
    wait_for(fit, "pass")
    # Ctrl-C on a terminal reaches the workers too; SIGTERM comes to the command alone.
    (os.killpg if number == signal.SIGINT else os.kill)(fit.pid, number)
    assert end(fit)[0] == code
    record = zarr.open_group(folder / output, mode="r").attrs["dask_nmf"]
    assert isinstance(record, dict)
    assert record["pass"] >= 1
    assert not record["finished"]
    assert not (folder / f"{output}.lock").exists()


COLLECTED = """
import gc, os, threading
from pathlib import Path

def strike(phase, info):
    here = threading.current_thread() is threading.main_thread()
    if here and Path("{output}/data").exists() and not sent:
        sent.append(1)
        os.kill(os.getpid(), {number})
        for _ in range(1000):  # the handler is called here
            pass

sent = []
gc.callbacks.append(strike)
from dask_nmf.cli.main import main
main()
"""


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_comes_while_python_collects(folder: Path, number: signal.Signals, code: int) -> None:
    output = f"collected-{number.name}.zarr"
    script = COLLECTED.format(output=output, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", script, *words(output, "hals", 10**6)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr


def test_ctrl_c_twice_ends_at_once(folder: Path, whole: Callable[[str], Path]) -> None:
    fit = begin(folder, "twice.zarr", "hals", PASSES, held=HELD)
    wait_for(fit, "pass")
    for worker in workers(fit.pid):
        worker.suspend()  # so that the end in order would take long
    try:
        for _ in range(2):
            os.kill(fit.pid, signal.SIGINT)
            time.sleep(5)  # or a busy machine sees both as one
        assert end(fit, 30)[0] == 130  # in order it takes more than a minute
    finally:
        os.killpg(fit.pid, signal.SIGKILL)
    ends_well(begin(folder, "twice.zarr", "hals", PASSES))
    same_factors(folder / "twice.zarr", whole("hals"))
