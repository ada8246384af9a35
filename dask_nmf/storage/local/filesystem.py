"""Operations on files and folders that survive a power cut (fsync), and renames that are atomic."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

AT_ONCE = 16  # files that are synchronised at the same time: a disk writes those of several threads together
FILES = 4  # that a thread synchronises at least, because beginning one costs as much processor time
PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.partial", re.DOTALL)  # what a killed `replace` leaves
LONGEST = 255  # bytes of a name, if the file system does not tell
AT_FDCWD = -100  # paths are relative to the current folder of this process
NOREPLACE, EXCHANGE = 1, 2  # flags of renameat2(2)
NO_LINKS = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
NO_FOLDER_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
NO_RENAMEAT2 = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def sync_trees(paths: Iterable[Path]) -> None:
    """Write everything below some folders, and their own names, to the disk before returning.

    Files come first, then the folders that name them, bottom up, and last the parents of the given folders. A
    single file may be given in place of a folder. Symbolic links are not followed.

    Raises
    ------
    OSError
        If one of them does not exist, or if anything could not be written.
    """
    places = [place.absolute() for place in paths]
    files: dict[tuple[int, int], Path] = {}  # by device and number: a file may have several names
    folders: list[Path] = []
    for place in places:
        _add_tree(place, files, folders)
    with ThreadPoolExecutor(min(AT_ONCE, 1 + len(files) // FILES)) as pool:
        list(pool.map(_sync, files.values()))
    for folder in dict.fromkeys((*folders, *(place.parent for place in places))):
        sync_folder(folder)


def make_folder(folder: Path, synced: bool = True) -> None:
    """Make a folder unless it exists. ``synced``: wait until the disk has its name."""
    folder.mkdir(exist_ok=True)
    if synced:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, if its file system can do that for a folder.

    Raises
    ------
    OSError
        If they could not be written.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_FSYNC:
            raise


def replace(contents: Mapping[Path, bytes], synced: bool = True) -> None:
    """Replace files by ones with these contents: at any moment one of the two of a name is there, whole.

    ``synced``: wait until the disk has them. A killed process leaves files ``.NAME.HEX.partial`` beside them.
    """
    partials = {path: path.with_name(f".{path.name}.{uuid4().hex}.partial") for path in contents}
    try:
        for path, partial in partials.items():
            with partial.open("xb") as file:
                file.write(contents[path])
        if synced:  # once all are written: the first one takes those of the others with it on many disks
            for partial in partials.values():
                _sync(partial)
        for path, partial in partials.items():
            partial.replace(path)
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise
    if synced:
        for folder in dict.fromkeys(path.parent for path in contents):
            sync_folder(folder)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a file available under a second name, as a hard link, or as a copy if there are no hard links.

    Raises
    ------
    FileExistsError
        If there is something at the target.
    OSError
        If the source cannot be read, or the target cannot be written; then nothing is at the target.
    """
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(source, target)


def beside(path: Path, before: str, after: str) -> Path:
    """Return the path with something before and after its name, which is shortened if it would be too long.

    A shortened name ends in a digest of the whole name, so that different names stay different.
    """
    room = _longest_name(path.parent) - len(before) - len(after)
    name = os.fsencode(path.name)
    if len(name) > room:
        mark = sha256(name).hexdigest()[:8]
        start = name[: room - len(mark) - 1].decode(errors="ignore")
        return path.with_name(f"{before}{start}-{mark}{after}")
    return path.with_name(f"{before}{path.name}{after}")


def exchange(one: Path, other: Path) -> None:
    """Exchange what two names in one folder stand for, in one step if the system can do that.

    If it cannot, two folders are renamed one after the other, so that there is nothing at ``other`` for an
    instant; if that fails, everything is put back. A killed process then leaves ``.other.….old``.

    Raises
    ------
    OSError
        If the names cannot be exchanged.
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
    """Rename by Linux's system call; return False if there is none, or the file system lacks these flags."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_RENAMEAT2:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return LONGEST


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, target.open("xb") as made:
        try:
            shutil.copyfileobj(given, made, 2**20)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _add_tree(path: Path, files: dict[tuple[int, int], Path], folders: list[Path]) -> None:
    """Add the files at a path or below it, by their device and number, and the folders, bottom up."""
    found = path.lstat()
    if stat.S_ISREG(found.st_mode):
        files.setdefault((found.st_dev, found.st_ino), path)
    elif stat.S_ISDIR(found.st_mode):
        for entry in path.iterdir():
            _add_tree(entry, files, folders)
        folders.append(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
