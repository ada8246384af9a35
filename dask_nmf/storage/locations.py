"""One interface for paths and for prefixes of object stores: existence, locks, atomic outputs, stores."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeGuard
from urllib.parse import unquote, urlsplit

from zarr.storage import LocalStore

from dask_nmf.errors import is_folder
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.storage.objects.object_store_location import ObjectStoreLocation
from dask_nmf.storage.objects.urls import check_url, is_url

FILE_SCHEME = "file"  # the scheme of URLs that are paths
ZarrStore = str | ObjectStore  # what zarr opens


class Location(Protocol):
    """A place that a Zarr hierarchy can be read from and written to, parsed once from what a user gave."""

    @property
    def name(self) -> str:
        """How messages call it: its address, or the text that was given."""

    @property
    def address(self) -> str:
        """The absolute path, as a worker with another working folder needs it, or the URL."""

    @property
    def path(self) -> Path | None:
        """The absolute path; None where the location is not on a file system."""

    @property
    def folder(self) -> str:
        """The path or the URL of the folder that it is in."""

    def beside(self, name: str) -> Location:
        """Return the location with another name in the same folder."""

    def within(self, name: str) -> Location:
        """Return the location with this name in the folder that this location is."""

    def exists(self) -> bool:
        """Return whether there is anything."""

    def check_creatable(self) -> None:
        """Raise `NotADirectoryError` or `ValueError` if nothing can be created here."""

    def store(self) -> ZarrStore:
        """Return the store that zarr opens."""

    def is_writable(self) -> bool:
        """Return whether it may be written to, as far as can be told."""

    def read(self) -> bytes:
        """Return the content of the file or object here; raise `FileNotFoundError` if there is none."""

    def write(self, content: bytes) -> None:
        """Write a small file or object."""

    def remove(self) -> None:
        """Remove the file or object here."""

    def lock(self) -> AbstractContextManager[CheckHeld]:
        """Hold the location for this process, or raise `RunLocked`.

        The context is a function that raises `RunLocked` if the lock was lost meanwhile.
        """

    def atomic_output(
        self, check: Callable[[], None], can_continue: Callable[[Path], bool] | None = None
    ) -> AbstractContextManager[ZarrStore]:
        """Yield a store for an output, which replaces what is here once it is whole.

        ``check`` raises if what is here may not be replaced. The location is locked from then on. On a disk,
        ``can_continue`` tells whether the output of a killed command is yielded again, to be finished.
        """


def locate(text: str | Path, verbatim: bool = False) -> Location:
    """Return the location at a path or a URL; only what users call parses one.

    Parameters
    ----------
    verbatim : whether messages call it as the text does, and not by its address

    Raises
    ------
    ValueError
        If a URL names no location in a store.
    """
    address = _absolute(str(text))
    name = str(text) if verbatim else address
    if not is_url(address):
        return LocalLocation(Path(address), name)
    check_url(address)
    return ObjectStoreLocation(address, name)


def locate_file(text: str | Path) -> LocalLocation:
    """Return the location of an output that is one file.

    Raises
    ------
    ValueError
        If it is given by a URL.
    FileExistsError
        If it is an empty folder, which other outputs take as their place.
    """
    address = _absolute(str(text))
    if is_url(address):
        raise ValueError(f"{address} is the URL of a store, and this output is a file; give a path")
    location = location_of_file(Path(address))
    if location.path.is_dir() and not location.exists():  # what is in a folder is asked about later
        raise is_folder(address)
    return location


def located(source: Any, verbatim: bool = False) -> Any:
    """Return the location that a text or a path names; any other source is returned unchanged."""
    if is_location(source) or not isinstance(source, str | os.PathLike):
        return source
    return locate(str(source), verbatim)


def is_location(source: Any) -> TypeGuard[Location]:
    """Return whether a source is a location, and not an object that holds a matrix."""
    return isinstance(source, LocalLocation | ObjectStoreLocation)


def location_of_file(path: Path) -> LocalLocation:
    """Return the location of a path that this package made."""
    return LocalLocation(path.absolute(), str(path.absolute()))


def location_of_store(store: Any, inside: str) -> Location | None:
    """Return the location of an array or group inside of a Zarr store; None where the store has none."""
    if isinstance(store, LocalStore):
        return location_of_file(Path(store.root, inside))
    if isinstance(store, ObjectStore):
        url = f"{store.url}/{inside}".rstrip("/")
        return ObjectStoreLocation(url, url)
    return None


def location_above(location: Location) -> Location | None:
    """Return the location of the folder that a location is in; None for what is directly in a bucket."""
    if location.path is not None:
        return location_of_file(location.path.parent)
    folder = location.folder
    return ObjectStoreLocation(folder, folder) if urlsplit(folder).path.strip("/") else None


def _absolute(place: str) -> str:
    """Return the absolute path or the URL; a file:// URL becomes a path."""
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
    location: Location, overwrite: bool, is_ours: Callable[[Location], bool], maker: str
) -> None:
    """Refuse a location where an output may not go.

    Parameters
    ----------
    is_ours : tells whether ``maker`` made what is at a location, so that it may be overwritten; an error that
        it raises counts as no

    Raises
    ------
    FileExistsError
        If there is something that may not be overwritten, or that ``maker`` did not make.
    """
    if not location.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{location.name} exists; give another output, or ask to overwrite it (--overwrite)"
        )
    try:
        ours = is_ours(location)
    except Exception:  # whatever it is, it is not ours
        ours = False
    if not ours:
        raise FileExistsError(
            f"{location.name} is not an output of {maker}; give another output or remove it"
        )


def check_apart(output: Location, **inputs: Location | None) -> None:
    """Refuse an output inside of an input, and an input inside of the output, which might replace it.

    Parameters
    ----------
    inputs : the locations of the inputs by their names; None for those that have none

    Raises
    ------
    ValueError
        If one of them is inside of the other.
    """
    place = output.address
    for name, source in inputs.items():
        if source is None:
            continue
        other = source.address
        if _lies_within(output, source):
            raise ValueError(f"the output {place} is inside of {name}, {other}; give an output elsewhere")
        if _lies_within(source, output):
            raise ValueError(
                f"{name}, {other}, is inside of the output {place}, which may replace it; "
                "give an output elsewhere"
            )


def _lies_within(inner: Location, outer: Location) -> bool:
    """Return whether a location is another one or below it, whatever links and mounts lead there."""
    if inner.path is None and outer.path is None:
        one, other = (posixpath.normpath(place.address) + "/" for place in (inner, outer))
        return one.startswith(other)
    if inner.path is None or outer.path is None:
        return False
    below, above = inner.path.resolve(), outer.path.resolve()
    return any(_is_same(folder, above) for folder in (below, *below.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist, or may not be read
        return one == other
