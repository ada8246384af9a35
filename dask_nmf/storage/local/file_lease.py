"""A lease in a file, for file systems without flock."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

from dask_nmf.storage.leases import CREATE, CheckHeld, hold_lease
from dask_nmf.storage.local.filesystem import beside

FILE_SIZE = 512  # bytes: the file is renewed in place, so every lease has the same length


def file_lease(path: Path, place: str) -> AbstractContextManager[CheckHeld]:
    """Hold a lease in a file, for a location whose name stands in errors.

    Raises
    ------
    RunLocked
        If another process holds it.
    """
    return hold_lease(place, _LeaseFile(path))


class _LeaseFile:
    """A file that is created exclusively, and renewed in place through the descriptor that it was made with.

    A process that was stopped for long and then overtaken therefore writes into its own file, and not into
    the one of its successor. A file system has no conditional replacement, so a process that replaces the
    file holds a second lease meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None  # of the file that is ours

    def read(self) -> tuple[bytes, Any]:
        with self.path.open("rb") as file:  # opened anew, because NFS may return what it read before
            content = file.read(2 * FILE_SIZE)
            return content, (os.fstat(file.fileno()).st_ino, content)

    def write(self, content: bytes, version: Any) -> bool:
        if version == CREATE:
            return self.descriptor is None and self._create(self.path, content)
        if self.descriptor is not None:
            _write(self.descriptor, content)
            return self._is_at_path(self.descriptor)
        with file_lease(beside(self.path, "", ".claim"), str(self.path)):
            return self._replace(content, version)

    def delete(self) -> None:
        if self.descriptor is None:
            return
        ours = self._is_at_path(self.descriptor)
        os.close(self.descriptor)
        self.descriptor = None
        if ours:
            self.path.unlink()

    def _replace(self, content: bytes, version: Any) -> bool:
        try:
            if self.read()[1] != version:
                return False
        except FileNotFoundError:
            return False
        new = beside(self.path, ".", f".{uuid4().hex}.new")
        self._create(new, content)
        new.replace(self.path)
        return True

    def _create(self, path: Path, content: bytes) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        self.descriptor = descriptor
        _write(descriptor, content)
        return True

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def _write(descriptor: int, content: bytes) -> None:
    os.pwrite(descriptor, content.ljust(FILE_SIZE), 0)
    os.fsync(descriptor)  # other machines may read it
