"""A lock on a path. Where it can, the operating system releases the lock when its process dies."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from dask_nmf.errors import RunLocked
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.local.file_lease import file_lease
from dask_nmf.storage.local.filesystem import beside

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_HELD = {errno.EAGAIN, errno.EACCES}
NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # Lustre, some NFS


@contextmanager
def file_lock(place: Path) -> Iterator[CheckHeld]:
    """Hold ``place.lock`` for this process. Symbolic links to a path share the lock of that path.

    If the file system has no flock, the file is a lease (see `leases`).

    Yields
    ------
    A function that raises `RunLocked` if another process has taken over meanwhile.

    Raises
    ------
    RunLocked
        If another process holds it.
    OSError
        If the file cannot be made: a path that cannot be written to is not locked by another process.
    """
    path = beside(Path(os.path.realpath(place)), "", ".lock")
    with _flock(path, place) or file_lease(path, str(place)) as check:
        yield check


def _flock(path: Path, place: Path) -> AbstractContextManager[CheckHeld] | None:
    """Lock a file; return None if the file system, or the operating system, has no flock."""
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
            return _releasing(path, descriptor)
        os.close(descriptor)  # its holder deleted it; another process may have made it anew
    return None


@contextmanager
def _releasing(path: Path, descriptor: int) -> Iterator[CheckHeld]:
    """Delete the file at the end and release it. A process that waits for a deleted file opens it anew."""
    try:
        yield always_held
    finally:
        try:
            _unlink(path, descriptor)
        finally:
            with suppress(OSError):  # closing alone does not release it if a child process has it open too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """Open a file; return its descriptor, and whether it was created."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):
            return os.open(path, flags), False


def _unlink(path: Path, descriptor: int) -> None:
    """Delete the open file if that is allowed. A lock file that stays does no harm."""
    with suppress(OSError):
        if _is_at(path, descriptor):
            path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
