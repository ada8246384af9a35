"""Names of files and folders: beside another one, exchanged with it, taken only where they are free."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from dask_nmf.storage.local.durability import link_or_copy

LONGEST = 255  # bytes of a name, where the file system does not tell
HERE = -100  # AT_FDCWD: paths are as this process takes them
NOREPLACE, EXCHANGE = 1, 2  # flags of renameat2(2)
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def beside(path: Path, before: str, after: str) -> Path:
    """Return the path with something before and after its name, which is shortened if it would be too long.

    A name that is shortened ends in a digest of the whole of it, so that different names stay different.
    """
    room = _longest(path.parent) - len(before) - len(after)
    name = os.fsencode(path.name)
    if len(name) > room:
        mark = sha256(name).hexdigest()[:8]
        kept = name[: room - len(mark) - 1].decode(errors="ignore")
        return path.with_name(f"{before}{kept}-{mark}{after}")
    return path.with_name(f"{before}{path.name}{after}")


def exchange(one: Path, other: Path) -> None:
    """Exchange what two names in one folder stand for, at once where the system can do that.

    Elsewhere two folders are renamed one after the other, so that for an instant there is nothing at `other`;
    if that fails, everything is where it was. What a killed process leaves then is called ``.other.….old``.

    Raises
    ------
    OSError
        If it cannot be done.
    """
    if _renameat2(one, other, EXCHANGE):
        return
    old = beside(other, ".", f".{uuid4().hex}.old")
    if one.is_file() and other.is_file():
        link_or_copy(other, old)
        one.replace(other)
    else:
        other.rename(old)
        try:
            one.rename(other)
        except BaseException:
            old.rename(other)
            raise
    old.rename(one)


def rename_new(one: Path, other: Path) -> None:
    """Rename to a name that is free.

    Raises
    ------
    FileExistsError
        If something has that name.
    """
    if _renameat2(one, other, NOREPLACE):
        return
    if os.path.lexists(other):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(other))
    one.rename(other)


def _renameat2(one: Path, other: Path, flags: int) -> bool:
    """Rename by Linux's system call; False where there is none, or where a file system has no such flags."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(HERE, os.fsencode(one), HERE, os.fsencode(other), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _longest(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return LONGEST
