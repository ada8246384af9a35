"""Leases: locks that hold for as long as they are renewed, for object stores and for disks without flock.

A lease is a small JSON document beside a location. It names its owner and the time when it ends. A process
creates it only if there is none, renews it in a thread, and takes it over from an owner that was found dead
only if it has not changed since.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from dask_nmf.errors import RunLocked

logger = logging.getLogger(__name__)

DURATION = 60.0  # seconds that a lease holds
RENEWAL = 15.0  # seconds between renewals
SETTLING = 1.0  # seconds that writes may cross in a store without conditions: the last writer has the lease
WATCH_TIME = 20.0  # seconds within which a living owner renews, whatever the clocks say
CREATE = "create"  # the condition of a write that nothing is there yet
BOOT = Path("/proc/sys/kernel/random/boot_id")
HERE = uuid4().hex  # stands for a machine that cannot be told from others: only this process knows it
CheckHeld = Callable[[], None]  # raises `RunLocked` if another process has taken over meanwhile


def always_held() -> None:
    """Do nothing: nobody takes over a lock of the operating system, or what only this process knows."""


class LeaseDocument(Protocol):
    """A small document that can be written on conditions; a lease is written in it."""

    def read(self) -> tuple[bytes, Any]:
        """Return the content and its version; raise `FileNotFoundError` if there is none."""

    def write(self, content: bytes, version: Any) -> bool:
        """Write if there is nothing (`CREATE`) or this version is there; return whether that was so."""

    def delete(self) -> None:
        """Delete the document if it is the one that was written here."""


@contextmanager
def hold_lease(place: str, document: LeaseDocument) -> Iterator[CheckHeld]:
    """Hold a lease on a location, whose name stands in errors; renew it in a thread; release it afterwards.

    Raises
    ------
    RunLocked
        If another process holds it.
    """
    lease = _Lease(place, document)
    lease.acquire()
    stop = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(stop,), daemon=True)
    try:
        thread.start()
        yield lease.check
    finally:
        stop.set()
        try:
            if thread.ident is not None:
                thread.join()
        finally:
            lease.release()


class _Lease:
    def __init__(self, place: str, document: LeaseDocument) -> None:
        self.place = place
        self.document = document
        self.owner = uuid4().hex
        self.written = 0

    def acquire(self) -> None:
        """Take the lease if there is none, or if its owner has died."""
        if not self._put(self._condition()):
            raise self._refusal()
        if self._put(CREATE, repeated=False):
            logger.warning("%s: this store ignores conditions of writes; see docs/operations.md", self.place)
            time.sleep(SETTLING)
            if not self._is_ours():
                raise self._refusal()

    def renew_until(self, stop: threading.Event) -> None:
        """Renew the lease until an event. If another process has it, the next commit notices that."""
        while not stop.wait(RENEWAL):
            with suppress(OSError):
                record, version = self._read()
                if record.get("owner") != self.owner or not self._put(version):
                    return

    def check(self) -> None:
        """Refuse to go on if another process, to which this one seemed dead, has taken the lease over."""
        if self._is_ours():
            return
        raise RunLocked(f"another process has taken over {self.place} meanwhile; it goes on there")

    def release(self) -> None:
        """Delete the lease unless another process has it. A lease that cannot be deleted does no harm."""
        with suppress(OSError):
            if self._is_ours():
                self.document.delete()

    def _is_ours(self) -> bool:
        try:
            return bool(self._read()[0].get("owner") == self.owner)
        except FileNotFoundError:  # a process that had it, or has taken it since, has released it
            return False

    def _refusal(self) -> RunLocked:
        return RunLocked(f"another process has begun to work on {self.place}; try again when it is done")

    def _put(self, version: Any, repeated: bool = True) -> bool:
        """Write the lease on a condition, and return whether it is ours then.

        ``repeated``: an earlier attempt may have written it although its answer was lost.
        """
        self.written += 1  # so that no two documents are equal, even if a clock stands still
        record = {"owner": self.owner, "host": _host(), "process": os.getpid(), "written": self.written}
        content = json.dumps({**record, "expires": time.time() + DURATION}).encode()
        return self.document.write(content, version) or (repeated and self._is_ours())

    def _read(self) -> tuple[dict[str, Any], Any]:
        """Return the record in the document, and the version of the document."""
        content, version = self.document.read()
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            record = {}
        return record if isinstance(record, dict) else {}, version

    def _condition(self) -> Any:
        """Return the condition on which the lease may be taken.

        Raises
        ------
        RunLocked
            If its owner is alive, or seems to be.
        """
        try:
            record, version = self._read()
        except FileNotFoundError:
            return CREATE
        if record.get("host") == _host() and not _is_alive(record.get("process")):
            return version
        if not 0 < _as_time(record.get("expires")) - time.time() <= DURATION:  # it ended, or a clock is wrong
            logger.info("%s: the lock is that of a process which seems to have died; watching it", self.place)
            time.sleep(WATCH_TIME)
            try:
                if self._read()[1] == version:
                    return version
            except FileNotFoundError:
                return CREATE
        raise RunLocked(
            f"another process works on {self.place} (process {record.get('process')} on "
            f"{str(record.get('host')).partition(' ')[0]}); try again when it is done"
        )


def _as_time(value: Any) -> float:
    """Return the time in a record; 0, which is long over, if the value is no time."""
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0


def _host() -> str:
    """Return an identity of this machine since its start, and of this container, in which a pid is unique."""
    name = "".join(socket.gethostname().split())
    try:
        return f"{name} {BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{name} {HERE}"


def _is_alive(process: Any) -> bool:
    return (
        not isinstance(process, int) or Path(f"/proc/{process}").exists() or not Path("/proc/self").exists()
    )
