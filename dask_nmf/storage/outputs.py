"""Files and folders that appear when they are whole, in place of what may be replaced and of nothing else."""

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

from dask_nmf.errors import came_meanwhile
from dask_nmf.storage.local.durability import sync_folder, sync_trees
from dask_nmf.storage.local.renames import beside, exchange, rename_new
from dask_nmf.storage.locks import file_lock


@contextmanager
def atomic_output(place: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Yield a hidden path beside a place, to be written: it is put at the place at the end, on the disk.

    The place is locked meanwhile. If anything fails, or the process is killed, what was there is there still.
    A symbolic link stays, and its target is replaced.

    Parameters
    ----------
    check : raises if what is at the place may not be replaced.

    Raises
    ------
    RunLocked
        If another process works on the place.
    FileExistsError
        If something came to the place meanwhile, or was changed there, which is left as it is.
    """
    path = Path(os.path.realpath(place))
    with file_lock(place) as check_held:
        clean_up(path)
        check()
        before = _content(path)
        new = beside(path, ".", f".{uuid4().hex}.partial")
        try:
            yield new
            sync_trees([new])
            check_held()
            _put(new, path, before)
        finally:
            _delete(new)


def clean_up(path: Path) -> None:
    """Delete what killed commands left beside a path, which is locked; put back what they had moved away."""
    for old in _leftovers(path, "old"):
        if not os.path.lexists(path):
            old.rename(path)
        _delete(old)
    for new in _leftovers(path, "partial"):
        _delete(new)


def _put(new: Path, path: Path, before: Any) -> None:
    """Put what was built at its place; what is there may be what was there before, which takes its name."""
    if _content(path) not in (None, before):
        raise came_meanwhile(path)
    replaces = os.path.lexists(path)
    (exchange if replaces else _rename_new)(new, path)
    try:
        if _content(new) not in (None, before):  # it came in the last instant
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


def _content(path: Path) -> Any:
    """Return what a change of a file or folder shows by; None where there is nothing, or an empty folder."""
    try:
        told = path.lstat()
        if not stat.S_ISDIR(told.st_mode):
            return _signature(told)
        with os.scandir(path) as entries:
            return {one.name: _signature(one.stat(follow_symlinks=False)) for one in entries} or None
    except FileNotFoundError:
        return None


def _signature(told: os.stat_result) -> tuple[int, int, int]:
    size = 0 if stat.S_ISDIR(told.st_mode) else told.st_size
    return stat.S_IFMT(told.st_mode), size, told.st_mtime_ns


def _leftovers(path: Path, kind: str) -> list[Path]:
    """Return what is left of a kind beside a path, the newest first."""
    mark = "0" * 32
    before, _, after = beside(path, ".", f".{mark}.{kind}").name.partition(mark)
    name = re.compile(re.escape(before) + "[0-9a-f]{32}" + re.escape(after))
    found = [path.with_name(one) for one in os.listdir(path.parent) if name.fullmatch(one)]
    return sorted(found, key=lambda one: one.lstat().st_mtime_ns, reverse=True)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
