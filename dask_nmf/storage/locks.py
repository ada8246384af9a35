"""A lock on a path, that the operating system lets go of when the process dies, where it can."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from dask_nmf.errors import RunLocked
from dask_nmf.storage.lease import CheckHeld, always_held, file_lease
from dask_nmf.storage.local.renames import beside

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_HELD = {errno.EAGAIN, errno.EACCES}
NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # Lustre, some NFS


@contextmanager
def file_lock(place: Path) -> Iterator[CheckHeld]:
    """Hold ``place.lock`` for this process; symbolic links to a place share the lock of the place.

    Where the file system has no flock, the file is a lease: see `lease`.

    Yields
    ------
    A function that raises `RunLocked` where another process has taken over meanwhile.

    Raises
    ------
    RunLocked
        If another process holds it.
    OSError
        If the file cannot be made: what cannot be written to is not held by another.
    """
    path = beside(Path(os.path.realpath(place)), "", ".lock")
    with _flocked(path, place) or file_lease(path, str(place)) as check:
        yield check


def _flocked(path: Path, place: Path) -> AbstractContextManager[CheckHeld] | None:
    """Lock a file; None where the file system, or the system, has no flock."""
    while fcntl is not None:
        descriptor, created = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if created and error.errno in NO_FLOCK:
                _unlink(path, descriptor)
            os.close(descriptor)
            if error.errno in NO_FLOCK:
                logger.info("%s: the file system has no flock (%s)", path, error.strerror)
                return None
            if error.errno in LOCK_HELD:
                raise RunLocked(f"another process works on {place}; try again when it is done") from None
            raise
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(path, descriptor):
            return _released(path, descriptor)
        os.close(descriptor)  # it was deleted by who held it; another process may have made it anew
    return None


@contextmanager
def _released(path: Path, descriptor: int) -> Iterator[CheckHeld]:
    """Delete the file while it is held, and let go: who waits for a deleted file takes another look."""
    try:
        yield always_held
    finally:
        try:
            _unlink(path, descriptor)
        finally:
            with suppress(OSError):  # closing lets go, unless a child process has it too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """Open a file, and tell whether it was made by that."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):
            return os.open(path, flags), False


def _unlink(path: Path, descriptor: int) -> None:
    """Delete the file that is open, as far as that is allowed: what is left of a lock does no harm."""
    with suppress(OSError):
        if _is_at(path, descriptor):
            path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
