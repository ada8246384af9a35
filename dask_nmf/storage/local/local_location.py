"""Locations that are paths of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.local.atomic_output import atomic_output, clean_up
from dask_nmf.storage.local.file_lock import file_lock
from dask_nmf.storage.local.filesystem import PARTIAL


@dataclass(frozen=True)
class LocalLocation:
    """A path of this machine."""

    path: Path  # absolute
    name: str

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def address(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> str:
        return str(self.path.parent)

    def beside(self, name: str) -> LocalLocation:
        path = self.path.with_name(name)
        return LocalLocation(path, str(path))

    def within(self, name: str) -> LocalLocation:
        path = self.path / name
        return LocalLocation(path, str(path))

    def exists(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        return not all(PARTIAL.fullmatch(entry.name) for entry in self.path.iterdir())

    def check_creatable(self) -> None:
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise NotADirectoryError(f"there is no folder {folder} for the output; make it first")

    def store(self) -> str:
        return str(self.path)

    def is_writable(self) -> bool:
        return os.access(self.path, os.W_OK)

    def read(self) -> bytes:
        return self.path.read_bytes()

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def remove(self) -> None:
        self.path.unlink()

    @contextmanager
    def lock(self) -> Iterator[CheckHeld]:
        self.check_creatable()
        with file_lock(self.path) as check_held:
            clean_up(Path(os.path.realpath(self.path)))
            yield check_held

    @contextmanager
    def atomic_output(
        self, check: Callable[[], None], can_continue: Callable[[Path], bool] | None = None
    ) -> Iterator[str]:
        self.check_creatable()
        with atomic_output(self.path, check, can_continue) as partial:
            yield str(partial)
