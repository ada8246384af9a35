"""The stored chunks of V: which there are, and how it shows that one was written.

To Zarr a chunk that is not stored is zeros, whether it was never written or lost.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from math import ceil, prod
from typing import Any, Protocol, TypeVar, runtime_checkable

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath, WrapperStore

logger = logging.getLogger(__name__)

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
NUMBER = re.compile(r"\d+", re.ASCII)
Listing = dict[str, str | None]  # keys, and stamps: see `listed`
Stored = TypeVar("Stored", zarr.Array[Any], zarr.Group)


@runtime_checkable
class StampedStore(Protocol):
    """A store that tells by what a change of an object shows: `objects.Objects`."""

    def list_with_stamps(self, prefix: str) -> AsyncIterator[tuple[str, str | None]]:
        """Keys that begin so, and their stamps."""


class StrictStore(WrapperStore[Store]):
    """A store that has every chunk: one that is not found is lost."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As of the store; raises LookupError for a chunk."""
        value = await self._store.get(key, prototype, byte_range)
        if value is None and not key.endswith(METADATA):
            raise LookupError(f"chunk {key} was there and is no more")
        return value

    def __str__(self) -> str:
        return str(self._store)


def require_chunks(stored: Stored, arrays: Sequence[zarr.Array[Any]]) -> tuple[Stored, str | None]:
    """Return an array or a group whose lost chunks are noticed, and the digest of its listing.

    What has all chunks of its ``arrays`` is returned on a `Complete` store. What lacks some stays as it is,
    because all-zero chunks need not be written. For the digest see `digest_of`.
    """
    listings: list[Listing] = []
    for array in arrays:
        listing = list_chunks(array)
        if listing is None:
            return stored, None
        listings.append(listing)
    found, expected = sum(map(_count_keys, listings)), sum(map(count_chunks, arrays))
    if found < expected:
        logger.warning(
            "%s has %d of its %d chunks; the others are read as their fill value, %s",
            stored.store_path,
            found,
            expected,
            arrays[0].fill_value,
        )
        return stored, digest_of(listings)
    place = stored.store_path
    store = StrictStore(place.store)
    if isinstance(stored, zarr.Array):  # whose metadata may be nowhere but in those of a group
        whole = zarr.Array.from_dict(StorePath(store, place.path), stored.metadata.to_dict())
        return whole, digest_of(listings)
    group = zarr.open_group(store, path=place.path, mode="r", use_consolidated=False)
    return group, digest_of(listings)


def digest_of(listings: Sequence[Listing]) -> str | None:
    """Return a digest of keys and stamps: while it stays the same, nothing was written.

    None where a stamp is not known.
    """
    state = hashlib.sha256()
    for listing in listings:
        for key, stamp in sorted(listing.items()):
            if stamp is None:
                return None
            state.update(f"{key} {stamp}\n".encode())
        state.update(b"\n")
    return state.hexdigest()[:32]


def count_chunks(array: zarr.Array[Any]) -> int:
    """Return how many chunks, or shards, an array is cut into."""
    return prod(_grid(array))


def count_stored(array: zarr.Array[Any], enough: int) -> int | None:
    """Return how many chunks are stored, or ``enough`` of them; None where the store cannot be listed."""
    listing = list_chunks(array, min(enough + len(METADATA), sys.maxsize))
    return None if listing is None else min(_count_keys(listing), enough)


def has_empty_chunk(array: zarr.Array[Any]) -> bool:
    """Return whether a chunk is a file without content, as a power cut may leave one."""
    listing = list_chunks(array) or {}
    return any(stamp is not None and stamp.startswith("0 ") for stamp in listing.values())


def list_chunks(array: zarr.Array[Any], most: int | None = None) -> Listing | None:
    """Return the keys of an array's chunks and metadata with their stamps, at most so many; see `Listing`.

    A stamp is the size of a file and when it was written, or the version of an object; None where the store
    tells neither. What else is there does not count. None where the store cannot be listed.
    """
    place, is_chunk = array.store_path, chunk_keys(array)
    if is_chunk is None or not place.store.supports_listing:
        return None

    def wanted(key: str) -> bool:
        return key in METADATA or is_chunk(key)

    try:
        if isinstance(place.store, LocalStore):
            depth = array.metadata.encode_chunk_key((0,) * array.ndim).count("/")
            files = _files(os.path.join(place.store.root, place.path), depth, wanted)
            return dict(islice(files, most))
        prefix = f"{place.path}/" if place.path else ""
        return sync(_objects(place.store, prefix, wanted, most))
    except PermissionError:  # to read, but not to list
        return None


def chunk_keys(array: zarr.Array[Any]) -> Callable[[str], bool] | None:
    """Return what tells the keys of an array's chunks from others, such as ``.DS_Store`` or ``0.0~``.

    A key is one of a chunk if the array's metadata encodes the numbers in it to that key, and they are in the
    grid. None where an encoding does not write the numbers of a chunk in decimals.
    """
    grid, encode = _grid(array), array.metadata.encode_chunk_key

    def is_chunk(key: str) -> bool:
        at = tuple(map(int, NUMBER.findall(key)))
        inside = len(at) == len(grid) and all(i < size for i, size in zip(at, grid, strict=True))
        return inside and encode(at) == key

    return is_chunk if is_chunk(encode((0,) * len(grid))) else None


def stamp_of(told: os.stat_result) -> str:
    """Return the size of a file and when it was written, as text."""
    return f"{told.st_size} {told.st_mtime_ns}"


def _count_keys(listing: Listing) -> int:
    return sum(1 for key in listing if key not in METADATA)


def _grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Chunks, or shards, along each dimension."""
    cuts = array.shards or array.chunks
    return tuple(ceil(size / cut) for size, cut in zip(array.shape, cuts, strict=True))


def _files(
    folder: str, depth: int, wanted: Callable[[str], bool], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """The wanted files of a folder, and of folders in it as deep as keys are, with their stamps."""
    with os.scandir(folder) as entries:
        for entry in entries:
            key = f"{prefix}{entry.name}"
            if entry.is_dir():
                if depth > 0:
                    yield from _files(entry.path, depth - 1, wanted, f"{key}/")
            elif wanted(key):
                with suppress(FileNotFoundError):  # deleted meanwhile, or a link to nothing
                    yield key, stamp_of(entry.stat())


async def _objects(store: Store, prefix: str, wanted: Callable[[str], bool], most: int | None) -> Listing:
    """The wanted keys of a store that begin with a prefix, at most so many, with their stamps."""
    found: Listing = {}
    async for key, stamp in _stamped(store, prefix):
        if len(found) == most:
            break
        if wanted(key.removeprefix(prefix)):
            found[key.removeprefix(prefix)] = stamp
    return found


async def _stamped(store: Store, prefix: str) -> AsyncIterator[tuple[str, str | None]]:
    if isinstance(store, StampedStore):
        async for key, stamp in store.list_with_stamps(prefix):
            yield key, stamp
    else:
        async for key in store.list_prefix(prefix):
            yield key, None
