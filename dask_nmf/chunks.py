"""Chunks of V that are not stored: to Zarr they are zeros, whether never written or lost."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from math import ceil, inf, prod
from typing import Any, TypeVar

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

logger = logging.getLogger(__name__)

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Complete(WrapperStore[Store]):
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


Stored = TypeVar("Stored", zarr.Array[Any], zarr.Group)


def holding(stored: Stored, arrays: Sequence[zarr.Array[Any]]) -> tuple[Stored, str]:
    """An array or a group so that no chunk of it can go unnoticed, and which chunks there are, if not all.

    What has all chunks of its ``arrays`` is returned on a `Complete` store, and with "". What lacks some
    stays as it is, as all-zero chunks need not be written; then the names of those there are hashed. A store
    that cannot be listed tells nothing.
    """
    store, path = stored.store_path.store, stored.store_path.path
    found: list[str] = []
    for array in arrays:
        names = there(array)
        if names is None:
            return stored, ""
        found += sorted(names)
    expected = sum(map(count, arrays))
    if len(found) >= expected:
        return zarr.open(Complete(store), path=path, mode="r"), ""  # type: ignore[return-value]
    logger.warning(
        "%s has %d of its %d chunks; the others are read as zeros", stored.store_path, len(found), expected
    )
    return stored, hashlib.sha256("\n".join(found).encode()).hexdigest()


def count(array: zarr.Array[Any]) -> int:
    """Chunks, or shards, that an array is cut into."""
    cuts = array.shards or array.chunks
    return prod(ceil(size / cut) for size, cut in zip(array.shape, cuts, strict=True))


def there(array: zarr.Array[Any], enough: float = inf) -> list[str] | None:
    """Names of stored chunks: all, or ``enough`` of them; None where the store cannot be listed."""
    place = array.store_path

    async def listed() -> list[str]:
        names: list[str] = []
        async for name in place.store.list_prefix(f"{place.path}/" if place.path else ""):
            if len(names) >= enough:
                break
            if not name.endswith(METADATA):
                names.append(name)
        return names

    if not place.store.supports_listing:
        return None
    try:
        return sync(listed())
    except PermissionError:  # to read, but not to list
        return None
