"""Where V, runs and other outputs are: folders of this machine, or below URLs of object stores, all alike."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from dask_nmf.storage import outputs, uploads
from dask_nmf.storage.lease import CheckHeld, object_lock
from dask_nmf.storage.local.durability import PARTIAL
from dask_nmf.storage.locks import file_lock
from dask_nmf.storage.object_store import READ_ONLY, ObjectStore, check_url, exists, is_url

FILE_SCHEME = "file"  # the scheme of URLs that are paths
ZarrStore = str | ObjectStore  # what zarr opens


class Location(Protocol):
    """Somewhere that a Zarr hierarchy can be read from and written to."""

    name: str

    def exists(self) -> bool:
        """Whether there is anything."""

    def check_creatable(self) -> None:
        """Refuse a place where nothing can be made: `NotADirectoryError`, `ValueError`."""

    def store(self) -> ZarrStore:
        """What zarr opens."""

    def is_writable(self) -> bool:
        """Whether it may be written to, as far as can be told."""

    def lock(self) -> AbstractContextManager[CheckHeld]:
        """Hold it for this process, or raise `RunLocked`; yields a function that raises it if it was lost."""

    def atomic_output(self, check: Callable[[], None]) -> AbstractContextManager[ZarrStore]:
        """Yield what zarr creates an output in, which replaces what is there when it is whole.

        ``check`` raises if what is there may not be replaced; the place is held while it looks, and on.
        """


def locate(text: str | Path) -> Location:
    """The place at a path, or below a URL.

    Raises
    ------
    ValueError
        If a URL is not of a place in a store.
    """
    name = absolute(text)
    if not is_url(name):
        return LocalLocation(name)
    check_url(name)
    return ObjectStoreLocation(name)


def absolute(text: str | Path) -> str:
    """The path as a worker that was started elsewhere knows it. A URL stays as it is, but for file://."""
    given = str(text)
    if given.startswith(f"{FILE_SCHEME}://"):
        parts = urlsplit(given)
        if "?" in given or "#" in given or parts.netloc not in ("", "localhost"):
            raise ValueError(
                f"file://{parts.netloc}{parts.path} is given with a host, a query (?) or a fragment (#); "
                "give the path itself, or leave them out"
            )
        given = unquote(parts.path)
    return given.rstrip("/") if is_url(given) else str(Path(given).absolute())


def check_replaceable(place: Location, overwrite: bool, ours: Callable[[str], bool], maker: str) -> None:
    """Refuse a place where an output may not go.

    Parameters
    ----------
    ours : tells of the name of a place whether what is there was made by ``maker``, and so may be
        overwritten. May raise anything.

    Raises
    ------
    FileExistsError
        If there is something, and it may not be overwritten or is not ours.
    """
    if not place.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{place.name} exists; give another output, or ask to overwrite it")
    try:
        known = ours(place.name)
    except Exception:  # whatever it is, it is not ours
        known = False
    if not known:
        raise FileExistsError(f"{place.name} is not an output of {maker}; give another output or remove it")


def check_apart(output: str | Path, **inputs: str) -> None:
    """Refuse an output inside of an input, and an input inside of the output, which might replace it.

    Parameters
    ----------
    inputs : absolute paths and URLs, by the names of what is there; other text names no place.

    Raises
    ------
    ValueError
    """
    place = absolute(output)
    for name, source in inputs.items():
        other = absolute(source) if is_url(source) else source
        if _lies_within(place, other):
            raise ValueError(f"the output {place} is inside of {name}, {other}; give an output elsewhere")
        if _lies_within(other, place):
            raise ValueError(
                f"{name}, {other}, is inside of the output {place}, which may replace it; "
                "give an output elsewhere"
            )


def _lies_within(inner: str, outer: str) -> bool:
    """Whether a place is another one or below it, whatever links and mounts lead there."""
    if is_url(inner) or is_url(outer):
        one, other = (posixpath.normpath(place) + "/" for place in (inner, outer))
        return is_url(inner) and is_url(outer) and one.startswith(other)
    if not (os.path.isabs(inner) and os.path.isabs(outer)):
        return False
    below, above = Path(inner).resolve(), Path(outer).resolve()
    return any(_is_same(folder, above) for folder in (below, *below.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, or must not be looked at
        return one == other


class LocalLocation:
    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path(name)

    def exists(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        return not all(PARTIAL.fullmatch(entry.name) for entry in self.path.iterdir())

    def check_creatable(self) -> None:
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise NotADirectoryError(f"there is no folder {folder} for the output; make it first")

    def store(self) -> ZarrStore:
        return self.name

    def is_writable(self) -> bool:
        return os.access(self.path, os.W_OK)

    @contextmanager
    def lock(self) -> Iterator[CheckHeld]:
        self.check_creatable()
        with file_lock(self.path) as check_held:
            outputs.clean_up(Path(os.path.realpath(self.path)))
            yield check_held

    @contextmanager
    def atomic_output(self, check: Callable[[], None]) -> Iterator[ZarrStore]:
        self.check_creatable()
        with outputs.atomic_output(self.path, check) as partial:
            yield str(partial)


class ObjectStoreLocation:
    def __init__(self, name: str) -> None:
        self.name = name

    def exists(self) -> bool:
        return exists(self.name)

    def check_creatable(self) -> None:
        if not self.is_writable():
            raise ValueError(
                f"{self.name} can be read only; give a path, or a place in s3://, gs:// or az://"
            )

    def store(self) -> ZarrStore:
        return ObjectStore(self.name)

    def is_writable(self) -> bool:
        return urlsplit(self.name).scheme not in READ_ONLY

    def lock(self) -> AbstractContextManager[CheckHeld]:
        self.check_creatable()
        return object_lock(self.name)

    def atomic_output(self, check: Callable[[], None]) -> AbstractContextManager[ZarrStore]:
        self.check_creatable()
        return uploads.atomic_output(self.name, check)
