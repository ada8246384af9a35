"""Kill it: whatever dies, at whatever moment, the same command again ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from dask_nmf import Result, nmf
from dask_nmf.launch import local
from dask_nmf.settings import SOLVERS

RANK, PASSES = 8, 16
MOMENTS = 0.4  # seconds within which a kill comes: some passes
FIT = [sys.executable, "-c", "from dask_nmf.cli import main; main()", "fit", "v.zarr", "--rank", str(RANK)]
FIT += ["--tol", "0", "--workers", "2", "--threads-per-worker", "1", "--log-format", "json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V on which a pass takes a tenth of a second, in 40 panels."""
    folder = tmp_path_factory.mktemp("kill")
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((16_000, 8), (8, 1000)))
    v = w @ h
    stored = zarr.create_array(folder / "v.zarr", shape=v.shape, chunks=(400, 1000), dtype=v.dtype)
    stored[:] = v * rng.random(v.shape, dtype=np.float32)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Result]:
    """Of each solver a run that nobody disturbed."""
    with local(2, 1, None):
        return {
            solver: nmf(
                folder / "v.zarr",
                RANK,
                solver=solver,
                tol=0,
                max_iter=PASSES,
                store=folder / f"{solver}-whole.zarr",
            )
            for solver in SOLVERS
        }


def begin(folder: Path, output: str, solver: str, passes: int = PASSES, *more: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [*FIT, "--output", output, "--solver", solver, "--max-iter", str(passes), *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """The first log line of a kind. Whatever comes before it is read."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        told: dict[str, object] = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == event:
            return told
    raise AssertionError(f"no {event}: {''.join(seen)}")


def end(process: subprocess.Popen[str]) -> int:
    """Read the process out and wait for it."""
    _, log = process.communicate(timeout=120)
    assert "Traceback" not in log, log
    return process.returncode


@pytest.mark.parametrize(
    ("solver", "events"),
    [("hals", ("plan", "pass", "pass")), ("mu", ("pass", "pass")), ("sgd", ("pass", "pass"))],
)
def test_sigkill_of_everything_at_random_moments_and_then_of_a_worker(
    folder: Path, whole: dict[str, Result], solver: str, events: tuple[str, ...]
) -> None:
    moments = random.Random(solver)
    output = f"{solver}-killed.zarr"
    for event in events:
        process = begin(folder, output, solver)
        wait_for(process, event)
        time.sleep(moments.uniform(0, MOMENTS))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = begin(folder, output, solver)
    wait_for(process, "pass")
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if is_worker(p)]
    assert len(workers) == 2
    workers[0].kill()
    assert end(process) == 0
    run = zarr.open_group(folder / output, mode="r")
    for name in ("W", "H"):
        np.testing.assert_array_equal(run[name][:], getattr(whole[solver], name))


def test_a_v_cut_both_ways_is_killed_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((6000, 8), (8, 3600)))
    stored = zarr.create_array(tmp_path / "v.zarr", shape=(6000, 3600), chunks=(2000, 400), dtype="float32")
    stored[:] = (w @ h) * rng.random((6000, 3600), dtype=np.float32)
    memory = "--memory-limit", "480MB"  # no room for a panel of 2000 rows
    assert end(begin(tmp_path, "whole.zarr", "hals", 3, *memory)) == 0
    process = begin(tmp_path, "killed.zarr", "hals", 3, *memory)
    wait_for(process, "pass")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = begin(tmp_path, "killed.zarr", "hals", 3, *memory)
    wait_for(process, "pass")
    next(p for p in psutil.Process(process.pid).children(recursive=True) if is_worker(p)).kill()
    assert end(process) == 0
    whole, killed = (zarr.open_group(tmp_path / f"{name}.zarr", mode="r") for name in ("whole", "killed"))
    assert whole.attrs["dask_nmf"]["pass"] == 3
    for name in ("W", "H"):
        np.testing.assert_array_equal(killed[name][:], whole[name][:])


def is_worker(process: psutil.Process) -> bool:
    """Whether this is one of the nannies' children, and not the tracker of their resources."""
    return "spawn_main" in " ".join(process.cmdline())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_committed_run(folder: Path, number: signal.Signals, code: int) -> None:
    output = f"{number.name}.zarr"
    process = begin(folder, output, "hals", 1000)
    if number == signal.SIGTERM:
        wait_for(process, "plan")
        assert end(begin(folder, output, "hals", 1000)) == 75  # a second command is told to wait
    wait_for(process, "pass")
    # Ctrl-C on a terminal reaches the workers too; SIGTERM comes to the command alone.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert end(process) == code
    record = zarr.open_group(folder / output, mode="r").attrs["dask_nmf"]
    assert isinstance(record, dict)
    assert record["pass"] >= 1
    assert not record["finished"]
    assert not (folder / f"{output}.lock").exists()
