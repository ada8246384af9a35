"""A simulated disk that records changes of a folder, and the states that a power cut may leave.

A change of names in a folder is on the disk once the folder is synchronised, and the content of a file once
the file is. Until then a disk may have it or not, in any order. `recorded` records every change that this
process makes to a folder, and after each one the states that each of the `CUTS` leaves.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dask_nmf.storage.local import filesystem

State = dict[str, bytes | None]  # contents of files by their paths; None for folders


@dataclass(eq=False)
class File:
    """The content of a file as programs see it and as the disk has it; it may have several names."""

    now: bytes = b""
    kept: bytes | None = None


@dataclass(eq=False)
class Folder:
    """The names in a folder as programs see them and as the disk has them."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    kept: dict[str, File | Folder] = field(default_factory=dict)


Names = dict[str, File | Folder]


def dropped(folder: Folder) -> Names:
    """Return only synchronised names."""
    return folder.kept


def named(folder: Folder) -> Names:
    """Return the names as programs saw them; files that were not synchronised are empty."""
    return folder.now


def added(folder: Folder) -> Names:
    """Return new names, and deleted ones too."""
    return folder.kept | folder.now


def deleted(folder: Folder) -> Names:
    """Return neither deleted names nor new ones."""
    return {name: node for name, node in folder.kept.items() if name in folder.now}


def replaced(folder: Folder) -> Names:
    """Return old names with what they stand for now, but no new ones."""
    return {name: folder.now[name] for name in folder.kept if name in folder.now}


def any_of_them(folder: Folder) -> Names:
    """Return each name at random as programs saw it or as the disk has it."""
    names = sorted(folder.kept.keys() | folder.now.keys())
    found = {name: random.choice((folder.kept, folder.now)).get(name) for name in names}
    return {name: node for name, node in found.items() if node is not None}


CUTS: tuple[Callable[[Folder], Names], ...] = (dropped, named, added, deleted, replaced, any_of_them)


class Disk:
    """A folder that is on the disk when recording begins, and the changes from then on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.tree = _stored(root)
        self.changes = 0
        self.states: list[State] = []  # the states that power cuts may leave, each once
        self._seen: set[int] = set()
        self._photograph()

    def covers(self, path: Any) -> bool:
        """Return whether a path is below the recorded folder."""
        return isinstance(path, str | os.PathLike) and Path(os.path.abspath(path)).is_relative_to(self.root)

    def at(self, path: Any) -> tuple[Folder, str]:
        """Return the parent folder of a path, and its name there."""
        parts, folder = Path(os.path.abspath(path)).relative_to(self.root).parts, self.tree
        for part in parts[:-1]:
            found = folder.now[part]
            assert isinstance(found, Folder)
            folder = found
        return folder, parts[-1]

    def node(self, path: Any) -> File | Folder:
        """Return what is at a path."""
        if Path(os.path.abspath(path)) == self.root:
            return self.tree
        folder, name = self.at(path)
        return folder.now[name]

    def make(self, path: Any, node: File | Folder) -> None:
        """Give a new file or folder a name, unless it is taken."""
        folder, name = self.at(path)
        if name not in folder.now:
            folder.now[name] = node
            self._photograph()

    def link(self, source: Any, target: Any, keep: bool = True) -> None:
        """Give a file a second name, or move it if ``keep`` is false."""
        (folder, name), node = self.at(target), self.node(source)
        if isinstance(node, File):
            node.now = Path(target).read_bytes()
        folder.now[name] = node
        if not keep:
            old, before = self.at(source)
            del old.now[before]
        self._photograph()

    def exchange(self, one: Any, other: Any) -> None:
        """Exchange the files or folders of two names."""
        (first, name), (second, another) = self.at(one), self.at(other)
        first.now[name], second.now[another] = second.now[another], first.now[name]
        self._photograph()

    def remove(self, path: Any) -> None:
        """Delete a name."""
        folder, name = self.at(path)
        del folder.now[name]
        self._photograph()

    def sync(self, path: Any) -> None:
        """Record that the file or folder at a path is on the disk."""
        node = self.node(path)
        if isinstance(node, File):
            node.kept = node.now = Path(path).read_bytes()
        else:
            node.kept = dict(node.now)
        self._photograph()

    def left(self) -> Iterator[State]:
        """Yield the states that a power cut may leave now, one for each of the `CUTS`."""
        random.seed(self.changes)
        for cut in CUTS:
            yield dict(_left(self.tree, cut, "", cut is any_of_them))

    def _photograph(self) -> None:
        self.changes += 1
        for state in self.left():
            mark = hash(frozenset(state.items()))
            if mark not in self._seen:
                self._seen.add(mark)
                self.states.append(state)


def _stored(folder: Path) -> Folder:
    made = Folder()
    for path in folder.iterdir():
        made.now[path.name] = _stored(path) if path.is_dir() else File(path.read_bytes(), path.read_bytes())
    made.kept = dict(made.now)
    return made


def _left(
    folder: Folder, cut: Callable[[Folder], Names], path: str, torn: bool
) -> Iterator[tuple[str, bytes | None]]:
    """Yield the paths and contents that a cut leaves of a folder.

    With ``torn``, half of a file that was not synchronised may be left.
    """
    for name, node in cut(folder).items():
        if isinstance(node, Folder):
            yield f"{path}{name}", None
            yield from _left(node, cut, f"{path}{name}/", torn)
        elif node.kept is not None:
            yield f"{path}{name}", node.kept
        else:
            yield f"{path}{name}", node.now[: random.choice((0, len(node.now) // 2)) if torn else 0]


def write(state: State, folder: Path) -> Path:
    """Make a folder with the contents of a state."""
    folder.mkdir()
    for name, content in sorted(state.items()):
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    return folder


@contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """Record every call of this process that changes or synchronises names or contents in a folder."""
    disk = Disk(root)
    with pytest.MonkeyPatch.context() as patch:
        _record_files(disk, patch)
        _record_names(disk, patch)
        yield disk
    assert dict(_left(disk.tree, named, "", False)).keys() == {
        str(path.relative_to(root)) for path in root.rglob("*")
    }


def _record_files(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    """Patch the functions that open files, and fsync."""
    open_file, open_descriptor, fsync = io.open, os.open, os.fsync

    def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        with disk.lock:
            result = open_file(file, mode, *given, **named)
            if set(mode) & set("wxa") and disk.covers(file):
                disk.make(file, File())
            return result

    def opened_descriptor(file: Any, flags: int, *given: Any, **named: Any) -> int:
        with disk.lock:
            result = open_descriptor(file, flags, *given, **named)
            if flags & os.O_CREAT and disk.covers(file):
                disk.make(file, File())
            return result

    def synced(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        with disk.lock:
            if disk.covers(path):
                disk.sync(path)
            else:
                fsync(descriptor)

    for module in (io, builtins):
        patch.setattr(module, "open", opened)
    patch.setattr(os, "open", opened_descriptor)
    patch.setattr(os, "fsync", synced)


def _record_names(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    """Patch the functions that make, move and delete files and folders."""

    def absolute(path: Any, dir_fd: int | None) -> Any:
        return path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)

    def record(name: str, note: Callable[..., None]) -> None:
        change = getattr(os, name)

        def changed(*given: Any, dir_fd: int | None = None, **named: Any) -> None:
            with disk.lock:
                change(*given, **named, **({} if dir_fd is None else {"dir_fd": dir_fd}))
                first = absolute(given[0], dir_fd)
                if disk.covers(first):
                    note(first, *given[1:])

        patch.setattr(os, name, changed)

    record("mkdir", lambda path, *_: disk.make(path, Folder()))
    record("unlink", disk.remove)
    record("remove", disk.remove)
    record("rmdir", disk.remove)
    record("link", disk.link)
    record("rename", lambda source, target: disk.link(source, target, keep=False))
    record("replace", lambda source, target: disk.link(source, target, keep=False))
    call = filesystem._renameat2

    def renameat2(one: Path, other: Path, flags: int) -> bool:
        with disk.lock:
            done = call(one, other, flags)
            if done and disk.covers(one):
                if flags == filesystem.EXCHANGE:
                    disk.exchange(one, other)
                else:
                    disk.link(one, other, keep=False)
            return done

    patch.setattr(filesystem, "_renameat2", renameat2)
