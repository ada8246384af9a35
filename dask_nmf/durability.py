"""What makes files survive a power cut: synchronising them, and the folders that name them, with the disk."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

AT_ONCE = 16  # files: a disk writes those of several threads together
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}  # fsync of a folder, where there is none
UNLINKED = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def sync_tree(folder: Path) -> None:
    """Write everything below a folder, and its own name, to the disk before returning.

    Files come first, then the folders that name them, bottom up, and last the folder that holds this one.
    A single file may be given in place of a folder. Symbolic links are not followed.

    Raises
    ------
    OSError
        If there is nothing, or if anything could not be written.
    """
    place = folder.absolute()
    files, folders = _within(place)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_sync, files))
    for one in (*folders, place.parent):
        sync_folder(one)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where its file system can do that for a folder.

    Raises
    ------
    OSError
        If they could not be written.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def replace(place: Path, content: bytes, synced: bool = True) -> None:
    """Replace a file by one with this content: at any moment one of the two is there, whole.

    ``synced``: wait until the disk has it. What a killed process leaves beside the file is named
    ``.NAME.HEX.partial``.
    """
    partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(place.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a file available under a second name, as a hard link, or as a copy where there are no such links.

    Raises
    ------
    FileExistsError
        If there is something at the target.
    OSError
        If the source cannot be read, or the target cannot be written: then nothing is at the target.
    """
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in UNLINKED:
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, target.open("xb") as made:
        try:
            shutil.copyfileobj(given, made, 2**20)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _within(place: Path) -> tuple[list[Path], list[Path]]:
    """Return the files at a place, or below it, and the folders, bottom up."""
    kind = place.lstat().st_mode
    files: list[Path] = [place] if stat.S_ISREG(kind) else []
    folders: list[Path] = []
    if stat.S_ISDIR(kind):
        for entry in place.iterdir():
            for found, more in zip((files, folders), _within(entry), strict=True):
                found += more
        folders.append(place)
    return files, folders


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
