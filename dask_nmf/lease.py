"""The right to write a place in an object store, for as long as it is renewed."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

try:
    import obstore
    from obstore import exceptions
except ImportError:  # the extra "cloud"
    obstore = None

from dask_nmf.objects import Unreachable, ask, connect, parted, versioned
from dask_nmf.outputs import RunLocked

logger = logging.getLogger(__name__)

LASTS = 60.0  # seconds
RENEWED = 15.0  # seconds: how often
SETTLES = 1.0  # seconds, where a store ignores conditions: the last of those that took it has it
WATCHED = 20.0  # seconds: an owner that is alive renews within them, whatever the clocks say


@contextmanager
def leased(url: str) -> Iterator[None]:
    """Hold ``url.lock``: an object with its owner and when it ends, renewed by a thread, gone afterwards.

    Raises
    ------
    RunLocked
        If another process holds it. One that has died is found out after `WATCHED` seconds, once its lease
        is over.
    """
    folder, name = parted(url)
    lease = _Lease(url, connect(folder), f"{name}.lock")
    lease.take()
    stop = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        lease.leave()


class _Lease:
    def __init__(self, url: str, store: Any, key: str) -> None:
        self.url = url
        self.store = store
        self.key = key
        self.owner = uuid4().hex

    def take(self) -> None:
        """Take it where there is none, or where its owner has died."""
        if not self._put(self._free()):
            raise RunLocked(f"another process has begun to work on {self.url}; try again when it is done")
        if self._put("create", again=False):
            logger.warning("%s: this store ignores conditions of writes; see docs/operations.md", self.url)
            time.sleep(SETTLES)
            if not self._mine():
                raise RunLocked(f"another process has begun to work on {self.url}; try again when it is done")

    def renew_until(self, stop: threading.Event) -> None:
        """Renew it. If another has it, the next commit will find out."""
        while not stop.wait(RENEWED):
            with suppress(OSError):
                found, version = self._look()
                if found.get("owner") != self.owner or not self._put(version):
                    return

    def leave(self) -> None:
        """Take it away, unless another has it."""
        with suppress(Unreachable, FileNotFoundError):
            if self._mine():
                ask(self.url, lambda: obstore.delete_async(self.store, self.key))

    def _mine(self) -> bool:
        return bool(self._look()[0].get("owner") == self.owner)

    def _put(self, mode: Any, again: bool = True) -> bool:
        """Write it on a condition; whether it is ours then. ``again``: an attempt may have been made."""
        told = {"owner": self.owner, "host": _host(), "process": os.getpid()}
        content = json.dumps({**told, "expires": time.time() + LASTS}).encode()
        try:
            ask(self.url, lambda: obstore.put_async(self.store, self.key, content, mode=mode))
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            return again and self._mine()
        return True

    def _look(self) -> tuple[dict[str, Any], Any]:
        """What it says, and its version."""
        content, version = ask(self.url, partial(versioned, self.store, self.key))
        try:
            told = json.loads(content)
        except ValueError:
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
            told, version = self._look()
        except FileNotFoundError:
            return "create"
        if told.get("host") == _host() and not _lives(told.get("process")):
            return version
        left = told.get("expires", 0) - time.time()
        if not 0 < left <= LASTS:  # over; or far away, by a clock that was wrong
            logger.info("%s: the lock is that of a process which seems to have died; watching it", self.url)
            time.sleep(WATCHED)
            try:
                if self._look()[1] == version:
                    return version
            except FileNotFoundError:
                return "create"
        raise RunLocked(
            f"another process works on {self.url} (process {told.get('process')} on {told.get('host')}); "
            "try again when it is done"
        )


def _host() -> str:
    """This machine, or this container: where a number stands for one process."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _lives(process: Any) -> bool:
    return (
        not isinstance(process, int) or Path(f"/proc/{process}").exists() or not Path("/proc/self").exists()
    )
