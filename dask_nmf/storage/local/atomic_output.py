"""Files and folders that appear once they are whole, and replace only what they may replace."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from dask_nmf.errors import came_meanwhile, is_folder
from dask_nmf.storage.local.file_lock import file_lock
from dask_nmf.storage.local.filesystem import beside, exchange, rename_new, sync_folder, sync_trees


@contextmanager
def atomic_output(
    place: Path, check: Callable[[], None], can_continue: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield a hidden path beside ``place``, to be written; it is renamed to ``place`` at the end, and synced.

    The path is locked meanwhile. If anything fails, or the process is killed, the old content stays. A
    symbolic link stays, and its target is replaced.

    Parameters
    ----------
    check : raises if what is at the path may not be replaced; it is called while the path is locked
    can_continue : tells whether a hidden path that a killed command left is yielded again; one that is
        interrupted leaves it then

    Raises
    ------
    RunLocked
        If another process works on the path.
    FileExistsError
        If another process made or changed something at the path meanwhile, which is left as it is; if a file
        was written and a folder is at the path, even an empty one.
    """
    path = Path(os.path.realpath(place))
    with file_lock(place) as check_held:
        usable = can_continue or _never
        kept = next(filter(usable, _leftovers(path, "partial")), None)
        clean_up(path, kept)
        check()
        before = _signature(path)
        new = kept or beside(path, ".", f".{uuid4().hex}.partial")
        try:
            yield new
            sync_trees([new])
            check_held()
            _put(new, path, before)
        except BaseException as error:
            if isinstance(error, Exception) or not usable(new):
                _delete(new)
            raise
        _delete(new)


def _never(path: Path) -> bool:
    return False


def clean_up(path: Path, kept: Path | None = None) -> None:
    """Delete what killed commands left beside a locked path, and put back what they had moved away.

    Parameters
    ----------
    kept : what is not deleted
    """
    for old in _leftovers(path, "old"):
        if not os.path.lexists(path):
            old.rename(path)
        _delete(old)
    for new in _leftovers(path, "partial"):
        if new != kept:
            _delete(new)


def _put(new: Path, path: Path, before: Any) -> None:
    """Rename the new output to its path. What is there is exchanged with it if it has not changed."""
    if _signature(path) not in (None, before):
        raise came_meanwhile(path)
    if path.is_dir() and new.is_file():
        raise is_folder(path)
    replaces = os.path.lexists(path)
    (exchange if replaces else _rename_new)(new, path)
    try:
        if _signature(new) not in (None, before):  # it came in the last instant
            raise came_meanwhile(path)
        sync_folder(path.parent)
    except BaseException:
        if replaces:
            exchange(new, path)
        else:
            rename_new(path, new)
        raise


def _rename_new(new: Path, path: Path) -> None:
    try:
        rename_new(new, path)
    except FileExistsError:
        raise came_meanwhile(path) from None


def _signature(path: Path) -> Any:
    """Return what changes when a file, or an entry of a folder, is written.

    It is None if there is nothing, or an empty folder.
    """
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return _entry_signature(status)
        with os.scandir(path) as entries:
            return {one.name: _entry_signature(one.stat(follow_symlinks=False)) for one in entries} or None
    except FileNotFoundError:
        return None


def _entry_signature(status: os.stat_result) -> tuple[int, int, int]:
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return stat.S_IFMT(status.st_mode), size, status.st_mtime_ns


def _leftovers(path: Path, kind: str) -> list[Path]:
    """Return what killed commands left beside a path ("old" or "partial"), the newest first."""
    mark = "0" * 32
    before, _, after = beside(path, ".", f".{mark}.{kind}").name.partition(mark)
    name = re.compile(re.escape(before) + "[0-9a-f]{32}" + re.escape(after))
    left = [path.with_name(one) for one in os.listdir(path.parent) if name.fullmatch(one)]
    return sorted(left, key=lambda one: one.lstat().st_mtime_ns, reverse=True)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
