"""Files and folders that appear when they are whole, and a lock on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


class RunLocked(RuntimeError):
    """Another process works on the run."""


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold a place for this process; the operating system lets go when it dies.

    Raises
    ------
    RunLocked
        If another process holds it.
    """
    lock = FileLock(f"{place}.lock")
    Path(lock.lock_file).touch()  # a folder that cannot be written to is no lock that is held
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunLocked(f"another process works on {place}; try again when it is done") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def appearing(place: Path) -> Iterator[Path]:
    """A hidden path beside a place, to be written: moved there at the end, removed if that fails."""
    partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    try:
        yield partial
        if place.is_dir():
            with _replacing(place):
                partial.rename(place)
        else:
            partial.replace(place)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def _replacing(place: Path) -> Iterator[None]:
    """Move a folder at a path out of the way, and delete it when the new one is there."""
    old = place.with_name(f".{place.name}.{uuid4().hex}.old")
    place.rename(old)
    yield
    shutil.rmtree(old, ignore_errors=True)
