"""A soak: random faults at random moments, for some minutes; each fit ends with the bits of one left alone.

    python tests/soak.py 10 [SEED]

A fit is begun, and begun again whenever it ends before it is done, on a cluster of its own or on one with a
scheduler and workers that come and go. Root also fills the disk of the run. The first line has the seed,
which repeats the choices; moments are those of the machine. Ends with 1 at the first hang, undocumented exit
code, traceback, or other bits, and leaves the folder.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from fits import SOON, Cluster, Fit, begin, cluster, end, ends_well, make_v, same_factors, workers

SOLVERS = ("hals", "mu", "sgd")
PASSES = {"hals": 60, "mu": 60, "sgd": 40}
FIRST = ("--workers", "2", "--threads-per-worker", "1", "--memory-limit", "1GiB")  # panels depend on it
HANG = 240  # seconds, in which every try must end
AGAIN = {75: "try again", 130: "SIGINT", 143: "SIGTERM", -signal.SIGKILL: "SIGKILL"}
AGAIN |= {-signal.SIGTERM: "SIGTERM", -signal.SIGINT: "SIGINT"}  # as Python starts, or ends
PAUSE = 1.5  # seconds between faults, in the mean
SHORT = SOON | {"DASK_DASK_NMF__WAIT": "20", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}


class Wrong(Exception):
    """What must not happen."""


class Soak:
    """One run of the soak."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.fits: Counter[str] = Counter()
        self.disk = folder / "disk"

    def until(self, deadline: float) -> None:
        """Fits until then; the one at work is ended well."""
        while time.monotonic() < deadline:
            self.fit(SOLVERS[self.fits.total() % len(SOLVERS)], deadline)

    def fit(self, solver: str, deadline: float) -> None:
        """One fit, however many tries it takes; after the deadline without faults."""
        run = self.disk / "run.zarr"
        for number in range(1000):
            started = (run / "zarr.json").exists()
            elsewhere = self.chance.random() < 0.4
            with self.servers() if elsewhere else ExitStack() as servers:
                where = self.where(started) if not elsewhere else ("--scheduler", servers.address)
                fit = begin(self.folder, "disk/run.zarr", solver, PASSES[solver], *where, **SHORT)
                filled = self.disturb(fit, servers if elsewhere else None, deadline)
                code, line = end(fit, HANG)
            told = "no disk" if code == 74 and filled else AGAIN.get(code)
            self.tries[told or "done"] += 1
            if code == 0:
                break
            if told is None:
                raise Wrong(f"{solver}, try {number}: exit code {code}, {line}")
        same_factors(run, self.folder / f"{solver}.zarr")
        shutil.rmtree(run)
        self.fits[solver] += 1
        print(f"{self.fits.total()} fits, {self.faults.total()} faults", flush=True)

    def where(self, started: bool) -> tuple[str, ...]:
        """A cluster of its own: of any size, once the panels are laid down."""
        if not started:
            return FIRST
        count, threads = self.chance.choice((1, 2, 3)), self.chance.choice((1, 2))
        return ("--workers", str(count), "--threads-per-worker", str(threads), "--memory-limit", "1GiB")

    @contextmanager
    def servers(self) -> Iterator[Cluster]:
        """A cluster of processes; the list of them is on it."""
        with cluster(self.folder) as servers:
            servers.scheduler()
            for _ in range(2):
                servers.worker()
            yield servers

    def disturb(self, fit: Fit, servers: Cluster | None, deadline: float) -> bool:
        """Faults until the try has ended; whether the disk was full."""
        filled = False
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                fit.process.wait(self.chance.expovariate(1 / PAUSE))
                break
            kinds = [self.kill_one, self.kill_all, self.end, self.stop]
            kinds += [self.fill] if os.geteuid() == 0 else []
            kinds += [self.restart, self.come_or_go, self.come_or_go] if servers else []
            chosen: Callable[[Fit, Cluster | None], str] = self.chance.choice(kinds)
            with suppress(psutil.Error, ProcessLookupError):
                told = chosen(fit, servers)
                self.faults[told] += 1
                filled |= told == "disk full for a moment"
        return filled

    def found(self, fit: Fit, servers: Cluster | None) -> list[psutil.Process]:
        """The workers."""
        return workers(fit.pid if servers is None else os.getpid())

    def kill_one(self, fit: Fit, servers: Cluster | None) -> str:
        found = self.found(fit, servers)
        if found:
            self.chance.choice(found).kill()
        return "worker SIGKILL"

    def kill_all(self, fit: Fit, servers: Cluster | None) -> str:
        for worker in self.found(fit, servers):
            worker.kill()
        return "all workers SIGKILL"

    def end(self, fit: Fit, servers: Cluster | None) -> str:
        number = self.chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        (os.killpg if number == signal.SIGKILL else os.kill)(fit.pid, number)
        return f"client {number.name}"

    def stop(self, fit: Fit, servers: Cluster | None) -> str:
        targets = [("client", psutil.Process(fit.pid))]
        targets += [("worker", worker) for worker in self.found(fit, servers)[:1]]
        targets += [("scheduler", psutil.Process(servers.schedulers[-1].pid))] if servers else []
        name, target = self.chance.choice(targets)
        target.suspend()
        time.sleep(self.chance.uniform(0.5, 5))
        target.resume()
        return f"{name} SIGSTOP for some seconds"

    def fill(self, fit: Fit, servers: Cluster | None) -> str:
        filler = self.disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(self.chance.uniform(0, 1))
        filler.unlink()
        return "disk full for a moment"

    def restart(self, fit: Fit, servers: Cluster | None) -> str:
        assert servers is not None
        servers.schedulers[-1].kill()
        servers.schedulers[-1].wait()
        time.sleep(self.chance.uniform(0, 2))
        servers.scheduler()
        servers.worker()
        return "scheduler SIGKILL, and a new one"

    def come_or_go(self, fit: Fit, servers: Cluster | None) -> str:
        assert servers is not None
        alive = [worker for worker in servers.workers if worker.poll() is None]
        if len(alive) < 2 or (len(alive) < 4 and self.chance.random() < 0.5):
            servers.worker()
            return "a worker more"
        self.chance.choice(alive).terminate()
        return "a worker less"


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A small disk in a folder, for root."""
    place.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {seed}, {minutes:g} minutes, in {folder}", flush=True)
    make_v(folder / "v.zarr", 8000)
    for solver in SOLVERS:
        ends_well(begin(folder, f"{solver}.zarr", solver, PASSES[solver], *FIRST))
    soak = Soak(folder, seed)
    with mounted(soak.disk):
        soak.until(time.monotonic() + 60 * minutes)
    shutil.rmtree(folder)
    for name, counted in (("fits", soak.fits), ("faults", soak.faults), ("tries ended", soak.tries)):
        print(f"{name}: {counted.total()}")
        for kind, number in sorted(counted.items()):
            print(f"    {number:5} {kind}")


if __name__ == "__main__":
    main()
