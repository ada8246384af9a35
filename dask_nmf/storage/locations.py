"""One interface for paths and for prefixes of object stores: existence, locks, atomic outputs, stores."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.local.atomic_output import atomic_output, clean_up
from dask_nmf.storage.local.file_lock import file_lock
from dask_nmf.storage.local.filesystem import PARTIAL
from dask_nmf.storage.objects.atomic_upload import atomic_upload
from dask_nmf.storage.objects.object_lock import object_lock
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.storage.objects.requests import exists
from dask_nmf.storage.objects.urls import READ_ONLY, check_url, is_url

FILE_SCHEME = "file"  # the scheme of URLs that are paths
ZarrStore = str | ObjectStore  # what zarr opens


class Location(Protocol):
    """A place that a Zarr hierarchy can be read from and written to.

    Attributes
    ----------
    name : the absolute path, or the URL
    """

    name: str

    def exists(self) -> bool:
        """Return whether there is anything."""

    def check_creatable(self) -> None:
        """Raise `NotADirectoryError` or `ValueError` if nothing can be created here."""

    def store(self) -> ZarrStore:
        """Return the store that zarr opens."""

    def is_writable(self) -> bool:
        """Return whether it may be written to, as far as can be told."""

    def lock(self) -> AbstractContextManager[CheckHeld]:
        """Hold the location for this process, or raise `RunLocked`.

        The context is a function that raises `RunLocked` if the lock was lost meanwhile.
        """

    def atomic_output(self, check: Callable[[], None]) -> AbstractContextManager[ZarrStore]:
        """Yield a store for an output, which replaces what is here once it is whole.

        ``check`` raises if what is here may not be replaced. The location is locked from then on.
        """


def locate(text: str | Path) -> Location:
    """Return the location at a path or a URL.

    Raises
    ------
    ValueError
        If a URL names no location in a store.
    """
    name = absolute(text)
    if not is_url(name):
        return LocalLocation(name)
    check_url(name)
    return ObjectStoreLocation(name)


def absolute(text: str | Path) -> str:
    """Return the absolute path, as a worker with another working folder needs it, or the URL.

    A file:// URL becomes a path; every other URL stays as it is.
    """
    place = str(text)
    if place.startswith(f"{FILE_SCHEME}://"):
        parts = urlsplit(place)
        if "?" in place or "#" in place or parts.netloc not in ("", "localhost"):
            raise ValueError(
                f"file://{parts.netloc}{parts.path} is given with a host, a query (?) or a fragment (#); "
                "give the path itself, or leave them out"
            )
        place = unquote(parts.path)
    return place.rstrip("/") if is_url(place) else str(Path(place).absolute())


def check_replaceable(
    location: Location, overwrite: bool, is_ours: Callable[[str], bool], maker: str
) -> None:
    """Refuse a location where an output may not go.

    Parameters
    ----------
    is_ours : tells from the name of a location whether ``maker`` made what is there, so that it may be
        overwritten; an error that it raises counts as no

    Raises
    ------
    FileExistsError
        If there is something that may not be overwritten, or that ``maker`` did not make.
    """
    if not location.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{location.name} exists; give another output, or ask to overwrite it")
    try:
        ours = is_ours(location.name)
    except Exception:  # whatever it is, it is not ours
        ours = False
    if not ours:
        raise FileExistsError(
            f"{location.name} is not an output of {maker}; give another output or remove it"
        )


def check_apart(output: str | Path, **inputs: str) -> None:
    """Refuse an output inside of an input, and an input inside of the output, which might replace it.

    Parameters
    ----------
    inputs : absolute paths and URLs, by the names of the inputs; any other text names no location

    Raises
    ------
    ValueError
        If one of them is inside of the other.
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
    """Return whether a path or URL is another one or below it, whatever links and mounts lead there."""
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
    except OSError:  # one of them does not exist, or may not be read
        return one == other


class LocalLocation:
    """A path of this machine."""

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
            clean_up(Path(os.path.realpath(self.path)))
            yield check_held

    @contextmanager
    def atomic_output(self, check: Callable[[], None]) -> Iterator[ZarrStore]:
        self.check_creatable()
        with atomic_output(self.path, check) as partial:
            yield str(partial)


class ObjectStoreLocation:
    """A prefix of an object store, given by its URL."""

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
        return atomic_upload(self.name, check)
