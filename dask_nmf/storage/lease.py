"""The right to write a place for as long as it is renewed: in object stores, and on disks without flock.

A lease is a small JSON document beside the place: its owner and when it ends. It is created only where there
is none, renewed by a thread, and replaced only if it is as it was when its owner was found dead.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

try:
    import obstore
    from obstore import exceptions
except ImportError:  # the extra "cloud"
    obstore = None

from dask_nmf.errors import RunLocked
from dask_nmf.storage.local.renames import beside
from dask_nmf.storage.object_store import connect, get_with_version, request, split_url

logger = logging.getLogger(__name__)

DURATION = 60.0  # seconds
RENEWAL = 15.0  # seconds: how often
SETTLING = 1.0  # seconds, where a store ignores conditions: the last of those that took it has it
WATCH_TIME = 20.0  # seconds: an owner that is alive renews within them, whatever the clocks say
CREATE = "create"  # the condition of a write that there is nothing yet
FILE_SIZE = 512  # bytes of a lease in a file, which is renewed in place
BOOT = Path("/proc/sys/kernel/random/boot_id")
HERE = uuid4().hex  # in place of a machine that cannot be told from others: known to this process alone
CheckHeld = Callable[[], None]  # raises `RunLocked` where another process has taken over meanwhile


def always_held() -> None:
    """Nobody takes over what the operating system holds for a process, or what is its own."""


def object_lock(url: str) -> AbstractContextManager[CheckHeld]:
    """Hold ``url.lock``: an object with its owner and when it ends, renewed by a thread, gone afterwards.

    Raises
    ------
    RunLocked
        If another process holds it. One that has died is found out after `WATCHED` seconds, once its lease
        is over; at once on the same machine.
    """
    folder, name = split_url(url)
    return _hold(_Lease(url, _LeaseObject(url, connect(folder), f"{name}.lock")))


def file_lease(path: Path, place: str) -> AbstractContextManager[CheckHeld]:
    """Hold a file in the same way, for a place that is called so in errors."""
    return _hold(_Lease(place, _LeaseFile(path)))


@contextmanager
def _hold(lease: _Lease) -> Iterator[CheckHeld]:
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


class _Medium(Protocol):
    """What a lease is written on."""

    def read(self) -> tuple[bytes, Any]:
        """Return what is written, and its version; `FileNotFoundError` if nothing is."""

    def write(self, content: bytes, version: Any) -> bool:
        """Write where nothing is (`CREATE`), or in place of this version; return whether that was so."""

    def delete(self) -> None:
        """Take it away, if it is what was written here."""


class _Lease:
    def __init__(self, place: str, medium: _Medium) -> None:
        self.place = place
        self.medium = medium
        self.owner = uuid4().hex
        self.written = 0

    def acquire(self) -> None:
        """Take it where there is none, or where its owner has died."""
        if not self._put(self._free()):
            raise self._refusal()
        if self._put(CREATE, again=False):
            logger.warning("%s: this store ignores conditions of writes; see docs/operations.md", self.place)
            time.sleep(SETTLING)
            if not self._mine():
                raise self._refusal()

    def renew_until(self, stop: threading.Event) -> None:
        """Renew it. If another has it, the next commit will find out."""
        while not stop.wait(RENEWAL):
            with suppress(OSError):
                found, version = self._read()
                if found.get("owner") != self.owner or not self._put(version):
                    return

    def check(self) -> None:
        """Refuse to go on where another process has taken it, as one that seemed dead is overtaken."""
        if self._mine():
            return
        raise RunLocked(f"another process has taken over {self.place} meanwhile; it goes on there")

    def release(self) -> None:
        """Take it away, unless another has it. What is left of it where that fails does no harm."""
        with suppress(OSError):
            if self._mine():
                self.medium.delete()

    def _mine(self) -> bool:
        try:
            return bool(self._read()[0].get("owner") == self.owner)
        except FileNotFoundError:  # who had it, or has taken it since, has left it
            return False

    def _refusal(self) -> RunLocked:
        return RunLocked(f"another process has begun to work on {self.place}; try again when it is done")

    def _put(self, version: Any, again: bool = True) -> bool:
        """Write it on a condition; whether it is ours then. ``again``: an attempt may have been made."""
        self.written += 1  # so that no two are the same, even where a clock stands still
        told = {"owner": self.owner, "host": _host(), "process": os.getpid(), "written": self.written}
        content = json.dumps({**told, "expires": time.time() + DURATION}).encode()
        return self.medium.write(content, version) or (again and self._mine())

    def _read(self) -> tuple[dict[str, Any], Any]:
        """What it says, and its version."""
        content, version = self.medium.read()
        try:
            told = json.loads(content)
        except (ValueError, RecursionError):
            told = {}
        return told if isinstance(told, dict) else {}, version

    def _free(self) -> Any:
        """On what condition it may be taken.

        Raises
        ------
        RunLocked
            If its owner is alive, or seems so.
        """
        try:
            told, version = self._read()
        except FileNotFoundError:
            return CREATE
        if told.get("host") == _host() and not _is_alive(told.get("process")):
            return version
        if not 0 < _as_time(told.get("expires")) - time.time() <= DURATION:  # over; or a clock is wrong
            logger.info("%s: the lock is that of a process which seems to have died; watching it", self.place)
            time.sleep(WATCH_TIME)
            try:
                if self._read()[1] == version:
                    return version
            except FileNotFoundError:
                return CREATE
        raise RunLocked(
            f"another process works on {self.place} (process {told.get('process')} on "
            f"{str(told.get('host')).partition(' ')[0]}); try again when it is done"
        )


class _LeaseObject:
    """An object in a store, replaced by conditional writes."""

    def __init__(self, url: str, store: Any, key: str) -> None:
        self.url = url
        self.store = store
        self.key = key

    def read(self) -> tuple[bytes, Any]:
        return request(self.url, partial(get_with_version, self.store, self.key))

    def write(self, content: bytes, version: Any) -> bool:
        try:
            request(self.url, lambda: obstore.put_async(self.store, self.key, content, mode=version))
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            return False
        return True

    def delete(self) -> None:
        request(self.url, lambda: obstore.delete_async(self.store, self.key))


class _LeaseFile:
    """A file, created exclusively. It is renewed in place, through the descriptor that it was made with.

    So a process that was stopped for long, and was overtaken, writes into its own file and not into that of
    another. A file system has no conditional replacement: whoever does it holds a second lease meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None  # of the file that is ours

    def read(self) -> tuple[bytes, Any]:
        with self.path.open("rb") as file:  # opened anew, or NFS may tell what it knew before
            content = file.read(2 * FILE_SIZE)
            return content, (os.fstat(file.fileno()).st_ino, content)

    def write(self, content: bytes, version: Any) -> bool:
        if version == CREATE:
            return self.descriptor is None and self._create(self.path, content)
        if self.descriptor is not None:
            _write(self.descriptor, content)
            return self._is_there(self.descriptor)
        with file_lease(beside(self.path, "", ".claim"), str(self.path)):
            return self._replace(content, version)

    def delete(self) -> None:
        if self.descriptor is None:
            return
        there = self._is_there(self.descriptor)
        os.close(self.descriptor)
        self.descriptor = None
        if there:
            self.path.unlink()

    def _replace(self, content: bytes, version: Any) -> bool:
        try:
            if self.read()[1] != version:
                return False
        except FileNotFoundError:
            return False
        new = beside(self.path, ".", f".{uuid4().hex}.new")
        self._create(new, content)
        new.replace(self.path)
        return True

    def _create(self, path: Path, content: bytes) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        self.descriptor = descriptor
        _write(descriptor, content)
        return True

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def _write(descriptor: int, content: bytes) -> None:
    os.pwrite(descriptor, content.ljust(FILE_SIZE), 0)
    os.fsync(descriptor)  # other machines may look


def _as_time(told: Any) -> float:
    """A time of a lease; 0, which is long over, where it is none."""
    try:
        return float(told) if isinstance(told, int | float) else 0.0
    except OverflowError:
        return 0.0


def _host() -> str:
    """This machine since it was started, and this container: where a number stands for one process."""
    name = "".join(socket.gethostname().split())
    try:
        return f"{name} {BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{name} {HERE}"


def _is_alive(process: Any) -> bool:
    return (
        not isinstance(process, int) or Path(f"/proc/{process}").exists() or not Path("/proc/self").exists()
    )
