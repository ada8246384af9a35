"""A soak test: random faults at random moments; each fit must end with the bits of an undisturbed one.

    PYTHONPATH=tests python -m tools.soak 10 [SEED]

The arguments are minutes and a seed. A fit is started, and started again whenever it ends before it is done,
on a local cluster or on one whose scheduler and workers come and go. Its run is in a folder, or in an object
store if there is a server for one. Root also fills the disk of the run. A worker that hangs and a second
process come first. The first line of output has the seed, which repeats the choices but not their moments.

The soak ends with 1 at the first hang, undocumented exit code, traceback, or difference in bits, and
then leaves the folder. It also fails if a fault that is due did not happen, or fewer than `LEAST` a minute; a
busy machine gets `HANG` seconds more for them.
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

import numpy as np
import psutil
import zarr
from distributed import Client
from support.fits import Cluster, Fit, begin, cluster, end, ends_well, make_v, workers
from support.servers import until
from support.signals import handles
from tools.soak_places import Bucket, Folder, bucket, mounted

SOLVERS = ("hals", "mu", "sgd")
PASSES = {"hals": 60, "mu": 60, "sgd": 40}
FIRST = ("--workers", "2", "--threads-per-worker", "1", "--memory-limit", "1GiB")  # decides the panels
HANG = 240  # seconds in which every try must end
AGAIN = {75: "try again", 130: "SIGINT", 143: "SIGTERM", -signal.SIGKILL: "SIGKILL"}
AGAIN |= {-signal.SIGTERM: "SIGTERM", -signal.SIGINT: "SIGINT"}  # while Python ends
PAUSE = 1.5  # mean seconds between faults
LEAST = 5  # faults a minute
TTL = 5  # seconds until a silent worker is given up, and between checks for one
SHORT = {
    "DASK_DASK_NMF__WAIT": "20",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "8s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL}s",
}
LONG = 5  # least minutes of a soak that takes over leases in an object store, which last one


class Wrong(Exception):
    """Raised at an event that must not happen."""


class Soak:
    """The state of a soak: its random choices, and counts of fits, tries and faults."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self.folder = folder
        self.minutes = minutes
        self.deadline = time.monotonic() + 60 * minutes
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.fits: Counter[str] = Counter()
        self.disk = folder / "disk"
        self.due = [self.hang, self.take_over]
        self.run: Folder | Bucket = Folder(self.disk / "run.zarr")
        self.begin: Callable[[], Fit] = lambda: begin(self.folder, self.run.output)  # starts the try again

    def go(self, bucket: bool) -> None:
        """Make fits until the time is over; the last one ends without faults."""
        while not self.over():
            solver = SOLVERS[self.fits.total() % len(SOLVERS)]
            stored = bucket and self.fits.total() % 2 == 1
            self.run = Bucket() if stored else Folder(self.disk / "run.zarr")
            self.fit(solver)
        if wanting := self.wanting():
            raise Wrong(wanting)

    def wanting(self) -> str:
        """Return which faults must still happen, as a text; "" if none must."""
        if self.due:
            return f"did not come to pass: {', '.join(kind.__name__ for kind in self.due)}"
        few = self.faults.total() < LEAST * self.minutes
        return (
            f"{self.faults.total()} faults in {self.minutes:g} minutes, not {LEAST} a minute" if few else ""
        )

    def over(self) -> bool:
        """Return whether the time is over; a busy machine gets some more."""
        late = time.monotonic() - self.deadline
        return late > 0 and (not self.wanting() or late > HANG)

    def fit(self, solver: str) -> None:
        """Make one fit in as many tries as it takes; there are no faults once the time is over."""
        for number in range(1000):
            elsewhere = self.chance.random() < 0.4
            with self.servers() if elsewhere else ExitStack() as servers:
                where = ("--scheduler", servers.address) if elsewhere else self.where(self.run.started())
                asked = (self.run.output, solver, PASSES[solver], *where)
                self.begin = lambda asked=asked: begin(self.folder, *asked)
                fit = self.begin()
                filled = self.disturb(fit, servers if elsewhere else None)
                code, line = end(fit, HANG)
            told = "no disk" if code == 74 and filled else AGAIN.get(code)
            self.tries[told or "done"] += 1
            if code == 0:
                break
            if told is None:
                raise Wrong(f"{solver}, try {number}: exit code {code}, {line}")
        self.compare(solver)
        self.run.clear()
        self.fits[f"{solver}, {type(self.run).__name__.lower()}"] += 1
        print(f"{self.fits.total()} fits, {self.faults.total()} faults", flush=True)

    def compare(self, solver: str) -> None:
        """Check that W and H have the bits of the undisturbed fit."""
        found, alone = (
            zarr.open_group(held, mode="r") for held in (self.run.held, self.folder / f"{solver}.zarr")
        )
        for name in ("W", "H"):
            np.testing.assert_array_equal(found[name][:], alone[name][:])

    def where(self, started: bool) -> tuple[str, ...]:
        """Return options for a local cluster: of any size once the run has its panels."""
        if not started:
            return FIRST
        count, threads = self.chance.choice((1, 2, 3)), self.chance.choice((1, 2))
        return ("--workers", str(count), "--threads-per-worker", str(threads), "--memory-limit", "1GiB")

    @contextmanager
    def servers(self) -> Iterator[Cluster]:
        """Run a scheduler and two workers, one of them without a nanny."""
        with cluster(self.folder) as servers:
            servers.scheduler()
            servers.worker()
            servers.worker("--no-nanny")
            yield servers

    def disturb(self, fit: Fit, servers: Cluster | None) -> bool:
        """Cause faults until the try has ended; return whether the disk was full."""
        filled = False
        while not self.over():
            with suppress(subprocess.TimeoutExpired):
                fit.process.wait(self.chance.expovariate(1 / PAUSE))
                break
            if self.due and not self.run.started():
                continue  # or a busy machine would lose every try before its run has begun
            kinds = [self.kill_one, self.kill_all, self.end, self.stop, self.stop]
            kinds += [self.fill] if os.geteuid() == 0 and isinstance(self.run, Folder) else []
            kinds += [self.restart, self.come_or_go, self.come_or_go] if servers else []
            kinds += [self.hang, self.take_over] if self.chance.random() < 0.1 else []
            chosen: Callable[[Fit, Cluster | None], str | None] = self.chance.choice(self.due[:1] or kinds)
            with suppress(psutil.Error, ProcessLookupError):
                told = chosen(fit, servers)
                if told is not None:
                    self.faults[told] += 1
                    self.due = [kind for kind in self.due if kind != chosen]
                filled |= told == "disk full for a moment"
        return filled

    def found(self, fit: Fit, servers: Cluster | None) -> list[psutil.Process]:
        """Return the workers, first those without a nanny, which would end a hanging one."""
        if servers is None:
            return workers(fit.pid)
        alive = [worker for worker in servers.workers if worker.poll() is None]
        bare = [psutil.Process(worker.pid) for worker in alive if "--no-nanny" in worker.args]
        return bare + workers(os.getpid())

    def kill_one(self, fit: Fit, servers: Cluster | None) -> str | None:
        found = self.found(fit, servers)
        if not found:
            return None
        self.chance.choice(found).kill()
        return "worker SIGKILL"

    def kill_all(self, fit: Fit, servers: Cluster | None) -> str | None:
        found = self.found(fit, servers)
        for worker in found:
            worker.kill()
        return "all workers SIGKILL" if found else None

    def hang(self, fit: Fit, servers: Cluster | None) -> str | None:
        """Stop a worker until it is given up; then resume it, unless its nanny has ended it."""
        found = self.found(fit, servers)
        if not found or not self.run.started():
            return None
        found[0].suspend()
        time.sleep(2 * TTL + 2)
        with suppress(psutil.NoSuchProcess):
            found[0].resume()
        return "worker SIGSTOP beyond its ttl"

    def take_over(self, fit: Fit, servers: Cluster | None) -> str | None:
        """Start a second process while the first is stopped; in a store it takes over once the lease ends."""
        if not self.run.started():
            return None
        os.kill(fit.pid, signal.SIGSTOP)
        stored = isinstance(self.run, Bucket) and self.minutes >= LONG
        deadline = time.monotonic() + (HANG if stored else 0)
        code, line = end(self.begin(), HANG)
        while code == 75 and time.monotonic() < deadline:
            time.sleep(5)
            code, line = end(self.begin(), HANG)
        if code not in (0, 75) or (stored and code):
            raise Wrong(f"a second process ended with {code}: {line}")
        os.kill(fit.pid, signal.SIGCONT) if stored else os.killpg(fit.pid, signal.SIGKILL)
        return "store taken over, first process back" if stored else "second process, first one SIGKILL"

    def end(self, fit: Fit, servers: Cluster | None) -> str:
        number = self.chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        until(lambda: handles(fit.pid) or fit.process.poll() is not None)
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


def fit_undisturbed(folder: Path) -> None:
    """Make the fits that all others are compared with, at the same time and on one cluster."""
    with cluster(folder) as servers:
        servers.scheduler()
        for _ in range(2):
            servers.worker()
        with Client(servers.address) as client:
            client.wait_for_workers(2, HANG)
        place = ("--scheduler", servers.address)
        for fit in [begin(folder, f"{solver}.zarr", solver, PASSES[solver], *place) for solver in SOLVERS]:
            ends_well(fit, HANG)


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {seed}, {minutes:g} minutes, in {folder}", flush=True)
    make_v(folder / "v.zarr", 8000)
    fit_undisturbed(folder)
    os.environ |= SHORT
    soak = Soak(folder, seed, minutes)
    try:
        with mounted(soak.disk), bucket(folder) as stored:
            soak.go(stored)
    finally:
        for name, counted in (("fits", soak.fits), ("faults", soak.faults), ("tries ended", soak.tries)):
            print(f"{name}: {counted.total()}")
            for kind, number in sorted(counted.items()):
                print(f"    {number:5} {kind}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
