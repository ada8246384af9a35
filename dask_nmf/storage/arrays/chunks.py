"""The stored chunks of a Zarr array: which ones there are, and which have changed.

Zarr reads a chunk that is not stored as its fill value, whether the chunk was never written or was lost.
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
Listing = dict[str, str | None]  # keys and their stamps: see `list_chunks`
Stored = TypeVar("Stored", zarr.Array[Any], zarr.Group)


@runtime_checkable
class StampedStore(Protocol):
    """A store that lists its keys with stamps, as `ObjectStore` does."""

    def list_with_stamps(self, prefix: str) -> AsyncIterator[tuple[str, str | None]]:
        """Yield the keys that begin with a prefix, and their stamps."""


class StrictStore(WrapperStore[Store]):
    """A store of an array that has all of its chunks: a chunk that is not found was lost."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value of the store; raise `LookupError` if it is a chunk that is not there."""
        value = await self._store.get(key, prototype, byte_range)
        if value is None and not key.endswith(METADATA):
            raise LookupError(f"chunk {key} was there and is no more")
        return value

    def __str__(self) -> str:
        return str(self._store)


def require_chunks(stored: Stored, arrays: Sequence[zarr.Array[Any]]) -> tuple[Stored, str | None]:
    """Return an array or a group that notices lost chunks, and the digest of its listing (see `digest_of`).

    If all chunks of its ``arrays`` are stored, it is returned on a `StrictStore`. If some are not, it is
    returned as it is, because chunks of zeros need not be written.
    """
    listings: list[Listing] = []
    for array in arrays:
        listing = list_chunks(array)
        if listing is None:
            return stored, None
        listings.append(listing)
    present, expected = sum(map(_count_keys, listings)), sum(map(count_chunks, arrays))
    if present < expected:
        logger.warning(
            "%s has %d of its %d chunks; the others are read as their fill value, %s",
            stored.store_path,
            present,
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
    """Return a digest of keys and stamps, which stays the same as long as nothing is written.

    It is None if a stamp is not known.
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
    """Return how many chunks are stored, at most ``enough``; None if the store cannot be listed."""
    listing = list_chunks(array, min(enough + len(METADATA), sys.maxsize))
    return None if listing is None else min(_count_keys(listing), enough)


def has_empty_chunk(array: zarr.Array[Any]) -> bool:
    """Return whether a chunk is a file without content, which a power cut may leave."""
    listing = list_chunks(array) or {}
    return any(stamp is not None and stamp.startswith("0 ") for stamp in listing.values())


def list_chunks(array: zarr.Array[Any], most: int | None = None) -> Listing | None:
    """Return the keys of an array's chunks and metadata with their stamps, at most ``most`` of them.

    A stamp is the size of a file and the time of its last write, or the version of an object; it is None if
    the store tells neither. Other keys are left out. The listing is None if the store cannot be listed.
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
    except PermissionError:  # reading is permitted, but listing is not
        return None


def chunk_keys(array: zarr.Array[Any]) -> Callable[[str], bool] | None:
    """Return a function that tells keys of an array's chunks from others, such as ``.DS_Store`` or ``0.0~``.

    A key belongs to a chunk if its numbers are in the grid of chunks, and the array's metadata encodes them
    to that key. The result is None if the encoding does not write the numbers of a chunk in decimals.
    """
    grid, encode = _grid(array), array.metadata.encode_chunk_key

    def is_chunk(key: str) -> bool:
        index = tuple(map(int, NUMBER.findall(key)))
        inside = len(index) == len(grid) and all(i < size for i, size in zip(index, grid, strict=True))
        return inside and encode(index) == key

    return is_chunk if is_chunk(encode((0,) * len(grid))) else None


def stamp_of(status: os.stat_result) -> str:
    """Return the size of a file and the time of its last write, as text."""
    return f"{status.st_size} {status.st_mtime_ns}"


def _count_keys(listing: Listing) -> int:
    return sum(1 for key in listing if key not in METADATA)


def _grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the number of chunks, or of shards, along each dimension."""
    cuts = array.shards or array.chunks
    return tuple(ceil(size / cut) for size, cut in zip(array.shape, cuts, strict=True))


def _files(
    folder: str, depth: int, wanted: Callable[[str], bool], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the wanted files of a folder, and of the folders in it down to ``depth``, with their stamps."""
    with os.scandir(folder) as entries:
        for entry in entries:
            key = f"{prefix}{entry.name}"
            if entry.is_dir():
                if depth > 0:
                    yield from _files(entry.path, depth - 1, wanted, f"{key}/")
            elif wanted(key):
                with suppress(FileNotFoundError):  # deleted meanwhile, or a link without a target
                    yield key, stamp_of(entry.stat())


async def _objects(store: Store, prefix: str, wanted: Callable[[str], bool], most: int | None) -> Listing:
    """Return at most ``most`` wanted keys of a store that begin with a prefix, with their stamps."""
    listing: Listing = {}
    async for key, stamp in _stamped(store, prefix):
        if len(listing) == most:
            break
        if wanted(key.removeprefix(prefix)):
            listing[key.removeprefix(prefix)] = stamp
    return listing


async def _stamped(store: Store, prefix: str) -> AsyncIterator[tuple[str, str | None]]:
    if isinstance(store, StampedStore):
        async for key, stamp in store.list_with_stamps(prefix):
            yield key, stamp
    else:
        async for key in store.list_prefix(prefix):
            yield key, None
