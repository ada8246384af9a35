"""What makes files survive a power cut: synchronising them, and the folders that name them, with the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

AT_ONCE = 16  # files: a disk writes those of several threads together
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}  # fsync of a folder, where there is none
PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.partial", re.DOTALL)  # what a killed `replace` leaves
UNLINKED = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def sync_trees(given: Iterable[Path]) -> None:
    """Write everything below some folders, and their own names, to the disk before returning.

    Files come first, then the folders that name them, bottom up, and last those that hold the given ones.
    A single file may be given in place of a folder. Symbolic links are not followed.

    Raises
    ------
    OSError
        If one of them is not there, or if anything could not be written.
    """
    places = [place.absolute() for place in given]
    found = [_within(place) for place in places]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_sync, (file for files, _ in found for file in files)))
    for folder in (*(folder for _, folders in found for folder in folders), *{one.parent for one in places}):
        sync_folder(folder)


def make_folder(folder: Path, synced: bool = True) -> None:
    """Make a folder, unless it is there. ``synced``: wait until the disk has its name."""
    folder.mkdir(exist_ok=True)
    if synced:
        sync_folder(folder.parent)


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
