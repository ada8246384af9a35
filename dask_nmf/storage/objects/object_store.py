"""A Zarr store on an object store, in which no process overwrites the commit of another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync

from dask_nmf.errors import ConcurrentCommitError
from dask_nmf.storage.objects.requests import (
    ROOT,
    connect,
    get_with_version,
    list_page,
    request_async,
    stamp_of,
    version_of,
)
from dask_nmf.storage.objects.urls import READ_ONLY

try:
    import obstore
    from obstore import exceptions
except ImportError:  # the extra "cloud"
    obstore = None

PAGE = 1000  # keys that a store lists in one answer


def list_stamps(url: str) -> dict[str, str | None]:
    """Return the keys of all objects below a URL with their stamps (see `requests.stamp_of`)."""

    async def listing() -> dict[str, str | None]:
        return {key: stamp async for key, stamp in ObjectStore(url).list_with_stamps("")}

    return sync(listing())


class ObjectStore(Store):
    """A Zarr store of the objects below a URL.

    The root's metadata object is replaced only if it still is the one that this process wrote or read last,
    provided that the store has conditional writes; otherwise `ConcurrentCommitError` is raised.
    """

    supports_writes = True
    supports_deletes = True

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self.store = connect(url)
        self.url = url
        self._version: dict[str, Any] | None = None  # of the root, as this process knows it

    def __reduce__(self) -> Any:
        return _reconnect, (self.url, self.read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and (self.url, self.read_only) == (other.url, other.read_only)

    def __hash__(self) -> int:
        return hash(self.url)

    def __str__(self) -> str:
        return self.url

    def with_read_only(self, read_only: bool = False) -> ObjectStore:
        """Return a store of the same objects that may be written to, or only read."""
        return type(self)(self.url, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it; None if there is no such object."""
        if key == ROOT and byte_range is None:
            content = await self._get_root()
            return None if content is None else prototype.buffer.from_bytes(content)
        try:
            read = partial(_read, self.store, key, byte_range)
            return prototype.buffer.from_bytes(await request_async(self.url, read))
        except FileNotFoundError:
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects; None stands for objects that do not exist."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def _get_root(self) -> bytes | None:
        try:
            content, version = await request_async(self.url, partial(get_with_version, self.store, ROOT))
        except FileNotFoundError:
            return None
        if self._version not in (None, version) and not self.read_only:
            raise ConcurrentCommitError(self.url)
        self._version = version
        return content

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, whole or not at all."""
        self._check_writable()
        if key != ROOT:
            content = value.as_buffer_like()
            await request_async(self.url, partial(obstore.put, self.store, key, content))
        else:
            await self._set_root(value.to_bytes())

    async def _set_root(self, content: bytes) -> None:
        if self._version is not None:
            await self._get_root()  # for stores that ignore conditions
        mode: Any = "create" if self._version is None else self._version or "overwrite"
        try:
            write = partial(obstore.put, self.store, ROOT, content, mode=mode)
            self._version = version_of(await request_async(self.url, write))
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            # it may have been this process, in an attempt whose answer was lost
            self._version = None
            if await self._get_root() != content:
                raise ConcurrentCommitError(self.url) from None

    def know_root(self) -> None:
        """Read the root, so that `replace_root` notices whether another process has replaced it since."""
        sync(self._get_root())

    def replace_root(self, content: bytes) -> None:
        """Write the root; raise `ConcurrentCommitError` if it is not the one that this process knows."""
        sync(self._set_root(content))

    async def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            await request_async(self.url, partial(obstore.head, self.store, key))
        except FileNotFoundError:
            return False
        return True

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object if there is one."""
        self._check_writable()
        with suppress(FileNotFoundError):
            await request_async(self.url, partial(obstore.delete, self.store, key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects of a folder."""
        folder = prefix.rstrip("/")
        keys = [key async for key in self.list_prefix(f"{folder}/" if folder else "")]
        if keys:
            await request_async(self.url, partial(obstore.delete, self.store, keys))

    async def copy(self, key: str, target: str) -> None:
        """Make the store copy an object to another key."""
        await request_async(self.url, partial(obstore.copy, self.store, key, target))

    @property
    def supports_listing(self) -> bool:
        """Whether the store can list its keys."""
        return urlsplit(self.url).scheme not in READ_ONLY

    def list(self) -> AsyncGenerator[str, None]:
        """Yield all keys."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys that begin with a prefix. They are requested page by page, as they are used."""
        async for key, _ in self.list_with_stamps(prefix):
            yield key

    async def list_with_stamps(self, prefix: str) -> AsyncGenerator[tuple[str, str | None], None]:
        """Yield the keys that begin with a prefix, each with its stamp (see `requests.stamp_of`)."""
        page: Sequence[Any] = range(PAGE)
        last = None
        while len(page) == PAGE:
            page = await request_async(self.url, partial(list_page, self.store, prefix, last, PAGE))
            for meta in page:
                last = meta["path"]
                yield last, stamp_of(meta)

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names in a folder."""

        folder = prefix.rstrip("/")
        found = await request_async(self.url, partial(obstore.list_with_delimiter, self.store, folder))
        for path in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])):
            yield path.removeprefix(folder).lstrip("/")


def _read(store: Any, key: str, part: ByteRequest | None) -> Any:
    """Return an object, or a part of it."""
    match part:
        case RangeByteRequest(start, end):
            return obstore.get_range(store, key, start=start, end=end)
        case OffsetByteRequest(offset):
            return obstore.get(store, key, options={"range": {"offset": offset}}).bytes()
        case SuffixByteRequest(suffix):
            return _read_end(store, key, suffix)
    return obstore.get(store, key).bytes()


def _read_end(store: Any, key: str, length: int) -> Any:
    """Return the last bytes of an object; Azure's store must be told where they begin."""
    try:
        return obstore.get(store, key, options={"range": {"suffix": length}}).bytes()
    except exceptions.NotSupportedError:
        size = obstore.head(store, key)["size"]
        return obstore.get_range(store, key, start=max(size - length, 0), end=size)


def _reconnect(url: str, read_only: bool) -> ObjectStore:
    return ObjectStore(url, read_only=read_only)
