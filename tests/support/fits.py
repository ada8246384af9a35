"""Fits by the command in processes of their own, and the clusters that tests start for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import zarr
from support import holds
from support.command import HELD, Process, the_forks
from support.servers import PATIENCE, free_port, listens, process, until
from zarr.codecs import ZstdCodec

RANK = 8
OWN = ("--workers", "2", "--threads-per-worker", "1", "--memory-limit", "1GiB")  # a local cluster
# A lost scheduler is given up soon, but not one that a busy machine keeps waiting for some seconds.
SOON = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s"}
DASK = [sys.executable, "-m", "dask"]

NUMBERS = count()


def make_v(path: Path, rows: int = 16_000) -> None:
    """Write a V with 400 rows a chunk; with the default size a pass takes a tenth of a second."""
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((rows, 8), (8, 1000)))
    v = (w @ h) * rng.random((rows, 1000), dtype=np.float32)
    zarr.create_array(path, data=v, chunks=(400, 1000), compressors=[ZstdCodec(checksum=True)])


def words(output: str, solver: str, passes: int, *more: str) -> list[str]:
    """Return the arguments of a fit that makes all of its passes."""
    fit = ["fit", "v.zarr", "--rank", str(RANK), "--tol", "0", "--log-format", "json", "--output", output]
    return [*fit, "--solver", solver, "--max-iter", str(passes), *more]


def hold_of(log: Path) -> Path:
    """Return the file that holds the command with a log."""
    return log.with_suffix(".hold")


@dataclass
class Fit:
    """The running command and its log."""

    process: Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def hold(self) -> Path:
        """The file that holds the command after an event, if it is there: see `holds`."""
        return hold_of(self.log)

    def release(self) -> None:
        """Let the command go on if it is held."""
        self.hold.unlink(missing_ok=True)

    def count(self, event: str) -> int:
        """Return the number of log lines of an event so far."""
        return self.log.read_text().count(f'"event": "{event}"')


def start(
    asked: Iterable[str],
    folder: Path,
    log: Path,
    output: Path | str = os.devnull,
    before: tuple[str, ...] = (),
    **environment: str,
) -> Fit:
    """Start the command in a process group of its own; ``before``: a command that runs it.

    It is forked from a process that has imported it, unless that process would have to start otherwise.
    """
    given = SOON | os.environ | {holds.VARIABLE: str(hold_of(log))} | environment
    with log.open("w") as errors, Path(output).open("w") as lines:
        if not before and "LD_PRELOAD" not in environment:
            return Fit(the_forks().begin(["dask-nmf", *asked], folder, (output, log), given, True), log)
        process = subprocess.Popen(
            [*before, *HELD, *asked],
            cwd=folder,
            env=given,
            stdout=lines,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    return Fit(process, log)


def begin(
    folder: Path,
    output: str,
    solver: str = "hals",
    passes: int = 16,
    *more: str,
    before: tuple[str, ...] = (),
    held: str = "",
    **environment: str,
) -> Fit:
    """Start a fit, as `start` does; its log has a name of its own.

    ``held``: after this, such as "pass 7", it stands still until `end`. So it is under way when a test
    disturbs it, however long a busy machine has kept the test waiting.
    """
    log = folder / f"{output.replace('/', '-')}.{next(NUMBERS)}.log"
    if held:
        holds.hold(hold_of(log), held)
    return start(words(output, solver, passes, *(more or OWN)), folder, log, before=before, **environment)


def wait_for(fit: Fit, event: str, times: int = 1) -> None:
    """Wait until the fit has logged an event so many times."""
    until(lambda: fit.count(event) >= times or fit.process.poll() is not None)
    assert fit.count(event) >= times, fit.log.read_text()


def end(fit: Fit, timeout: float = PATIENCE) -> tuple[int, str]:
    """Let the fit go on and end; return its exit code and its last line on standard error."""
    fit.release()
    try:
        code = fit.process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(fit.pid, signal.SIGKILL)
        fit.process.wait()
        raise
    log = fit.log.read_text()
    assert "Traceback" not in log, log
    return code, (log.splitlines() or [""])[-1]


@contextmanager
def frozen(fit: Fit) -> Iterator[None]:
    """Stop the process of the fit during the body (SIGSTOP, SIGCONT)."""
    os.kill(fit.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(fit.pid, signal.SIGCONT)


def ends_well(fit: Fit, timeout: float = PATIENCE) -> None:
    """Check that the fit ends with exit code 0."""
    code, line = end(fit, timeout)
    assert code == 0, line


def refused(fit: Fit, code: int, *parts: str, timeout: float = PATIENCE) -> None:
    """Check that the fit ends with an exit code and a last line that has these words."""
    found, line = end(fit, timeout)
    assert found == code, line
    assert line.startswith("dask-nmf: "), line
    assert all(part in line for part in parts), line


def workers(pid: int) -> list[psutil.Process]:
    """Return the worker processes below a process: children of nannies, without resource trackers."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill(worker: psutil.Process) -> None:
    """Kill a worker, which may have died meanwhile."""
    with suppress(psutil.NoSuchProcess):
        worker.kill()


def passes_done(run: Path) -> int:
    """Return the number of the last pass that a run has committed."""
    record = json.loads((run / "zarr.json").read_text())["attributes"]["dask_nmf"]
    return int(record["pass"])


def same_factors(one: Path, other: Path) -> None:
    """Check that both runs have equal W and H, bit for bit."""
    mine, theirs = (zarr.open_group(path, mode="r") for path in (one, other))
    for name in ("W", "H"):
        np.testing.assert_array_equal(mine[name][:], theirs[name][:])


@dataclass
class Cluster:
    """A scheduler at a fixed port and its workers, which a test starts and may kill and start again."""

    folder: Path
    port: int
    stack: ExitStack
    schedulers: list[subprocess.Popen[str]] = field(default_factory=list)
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    logs: dict[int, Path] = field(default_factory=dict)  # by the processes

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, *command: object) -> subprocess.Popen[str]:
        log = self.folder / f"cluster-{next(NUMBERS)}.log"
        started = self.stack.enter_context(
            process(*DASK, *command, "--no-dashboard", log=log, cwd=self.folder, env=SOON | os.environ)
        )
        self.logs[started.pid] = log
        return started

    def scheduler(self) -> subprocess.Popen[str]:
        self.schedulers.append(self.start("scheduler", "--host", "127.0.0.1", "--port", self.port))
        until(lambda: listens(self.port))
        return self.schedulers[-1]

    def worker(self, *more: str) -> subprocess.Popen[str]:
        words = ("worker", self.address, "--nthreads", 1, "--memory-limit", "1GiB")
        self.workers.append(self.start(*words, "--death-timeout", PATIENCE, *more))
        return self.workers[-1]

    def ready_worker(self, *more: str) -> subprocess.Popen[str]:
        """Start a worker, and wait until the scheduler has it; a fit may begin sooner than a worker."""
        started = self.worker(*more)
        until(lambda: "Registered to" in self.logs[started.pid].read_text() or started.poll() is not None)
        assert started.poll() is None, self.logs[started.pid].read_text()
        return started


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster without processes, and end those that are started during the body."""
    with ExitStack() as stack:
        yield Cluster(folder, free_port(), stack)
