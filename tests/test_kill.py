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

FIT = [sys.executable, "-c", "from dask_nmf.cli import main; main()", "fit", "v.zarr", "-k", "8"]
FIT += [
    "--tol",
    "0",
    "--max-iter",
    "12",
    "--workers",
    "2",
    "--threads-per-worker",
    "1",
    "--log-format",
    "json",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V on which a pass takes some tenths of a second, in 40 panels."""
    folder = tmp_path_factory.mktemp("kill")
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, size=(40_000, 8)).astype(np.float32) @ rng.gamma(0.5, size=(8, 1000)).astype(
        np.float32
    )
    stored = zarr.create_array(folder / "v.zarr", shape=v.shape, chunks=(1000, 1000), dtype=v.dtype)
    stored[:] = v * rng.random(v.shape, dtype=np.float32)
    return folder


def begin(folder: Path, output: str, solver: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [*FIT, "--output", output, "--solver", solver],
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


def factors(folder: Path, run: str) -> tuple[np.ndarray, np.ndarray]:
    """W and H of a run."""
    group = zarr.open_group(folder / run, mode="r")
    return np.asarray(group["W"][:]), np.asarray(group["H"][:])


@pytest.fixture(scope="module", params=["hals", "mu", "sgd"])
def solver(folder: Path, request: pytest.FixtureRequest) -> str:
    """A solver, of which there is a run that nobody disturbed."""
    name: str = request.param
    assert end(begin(folder, f"{name}-whole.zarr", name)) == 0
    return name


def test_sigkill_of_everything_at_random_moments(folder: Path, solver: str) -> None:
    moments = random.Random(solver)
    for event in ("plan", "pass", "pass"):
        process = begin(folder, f"{solver}-killed.zarr", solver)
        wait_for(process, event)
        time.sleep(moments.uniform(0, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert end(begin(folder, f"{solver}-killed.zarr", solver)) == 0
    for ours, theirs in zip(
        factors(folder, f"{solver}-killed.zarr"), factors(folder, f"{solver}-whole.zarr"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_sigkill_of_a_worker_in_mid_pass(folder: Path, solver: str) -> None:
    process = begin(folder, f"{solver}-shaken.zarr", solver)
    wait_for(process, "pass")
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if is_worker(p)]
    assert len(workers) == 2
    workers[0].kill()
    assert end(process) == 0
    shaken, whole = (factors(folder, f"{solver}-{how}.zarr") for how in ("shaken", "whole"))
    for ours, theirs in zip(shaken, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def is_worker(process: psutil.Process) -> bool:
    """Whether this is one of the nannies' children, and not the tracker of their resources."""
    return "spawn_main" in " ".join(process.cmdline())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_committed_run(folder: Path, number: signal.Signals, code: int) -> None:
    output = f"{number.name}.zarr"
    process = begin(folder, output, "hals")
    wait_for(process, "pass")
    # Ctrl-C on a terminal reaches the workers too; SIGTERM comes to the command alone.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert end(process) == code
    record = zarr.open_group(folder / output, mode="r").attrs["dask_nmf"]
    assert isinstance(record, dict)
    assert record["pass"] >= 1
    assert not record["finished"]
    assert not (folder / f"{output}.lock").exists()


def test_a_second_command_on_the_same_output_is_told_to_wait(folder: Path) -> None:
    first = begin(folder, "shared.zarr", "hals")
    wait_for(first, "plan")
    second = begin(folder, "shared.zarr", "hals")
    assert end(second) == 75
    assert end(first) == 0
