"""Object stores by URL: what zarr reads and writes below one, commits that no other process overwrites.

Credentials are those of the environment of the process that reads or writes: what travels to a worker, or is
stored, is the URL.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from zarr import storage as zarr_storage
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync

from dask_nmf.errors import ConcurrentCommitError, StoreAccessError, StoreUnavailableError

try:
    import obstore
    from obstore import exceptions
    from obstore.store import from_url
except ImportError:  # the extra "cloud"
    obstore = None

COPIES = 16  # objects that are copied at once
SCHEMES = ("s3", "gs", "az", "http", "https")
PAGE = 1000  # keys that a store lists at once
READ_ONLY = ("http", "https")
ROOT = "zarr.json"  # of a group: all that a commit replaces
ROOTS = (ROOT, ".zarray", ".zgroup")
RETRIES = {"max_retries": 9, "retry_timeout": timedelta(minutes=2)}  # from 0.1 s, each up to twice as long

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds
T = TypeVar("T")
BODY_ERROR = "response body error"


def is_url(place: str) -> bool:
    """Whether a place is not a path."""
    return "://" in place


def check_url(url: str) -> None:
    """Refuse what is no URL of a place in a store, or has more in it, as a secret that would be stored.

    A user, a password, a query, parameters and a fragment are more, also where they are empty. A key that has
    such a character in its name is given with that escaped: ``%23`` for ``#``, ``%3B`` for ``;``.

    Raises
    ------
    ValueError
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{parts.scheme}:// is no store that is known; give a path, or one of {known}")
    if "@" in parts.netloc or any(mark in url for mark in "?#;"):
        shown = (parts.netloc.rpartition("@")[2] + parts.path).partition(";")[0]
        raise ValueError(
            f"{parts.scheme}://{shown} is given with a user, a password, a query (?), parameters (;) or a "
            "fragment (#); leave them out, credentials are those of the environment"
        )
    if not url.isprintable():  # a line end, say, which what takes URLs apart leaves out
        raise ValueError(f"{url!r} has a character in it that cannot be printed; escape it, as %0A")
    if not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{url} names no place in a store; give one such as s3://bucket/V.zarr")
    if obstore is None:
        raise ValueError(f"{url} is in an object store, which takes more: pip install 'dask_nmf[cloud]'")


def split_url(url: str) -> tuple[str, str]:
    """A URL as that of the folder, and the name in it, as keys have it: without escapes."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return folder, unquote(name)


def connect(url: str) -> Any:
    """An obstore store of all that is below a URL; asks nothing yet."""
    check_url(f"{url}/_")
    options: dict[str, Any] = {"allow_http": True} if urlsplit(url).scheme == "http" else {}
    with translate_errors(url):
        return from_url(url, retry_config=RETRIES, client_options=options or None)


def fetch(url: str, first: int = 0, length: int | None = None) -> memoryview:
    """Bytes of an object: ``length`` of them, or all that follow; `FileNotFoundError` if there is none."""
    check_url(url)
    folder, name = split_url(url)
    store = connect(folder)

    async def read() -> memoryview:
        if length is None:
            return memoryview(await (await obstore.get_async(store, name)).bytes_async())[first:]
        return memoryview(await obstore.get_range_async(store, name, start=first, length=length))

    return request(url, read)


def stat(url: str) -> tuple[int, str | None]:
    """Bytes of an object, and its stamp: see `stamp_of`; `FileNotFoundError` if there is none."""
    folder, name = split_url(url)
    told = request(url, partial(obstore.head_async, connect(folder), name))
    return int(told["size"]), stamp_of(told)


def exists(url: str) -> bool:
    """Whether anything is stored below a URL."""
    if urlsplit(url).scheme not in READ_ONLY:
        return bool(request(url, partial(_page, connect(url), None, None, 1)))
    store = connect(url)
    for name in ROOTS:
        with suppress(FileNotFoundError):
            request(url, partial(obstore.head_async, store, name))
            return True
    return False


def remove(url: str, keys: Collection[str]) -> None:
    """Delete objects below a URL, first of all what makes it a Zarr hierarchy."""
    store = connect(url)
    for some in ([key for key in keys if key in ROOTS], [key for key in keys if key not in ROOTS]):
        if some:
            request(url, partial(obstore.delete_async, store, some))


def copy(folder: str, source: str, target: str, keys: Collection[str]) -> None:
    """Copy objects from below one key of a folder to below another; the store does that by itself."""
    store, limit = connect(folder), asyncio.Semaphore(COPIES)

    async def one(key: str) -> None:
        async with limit:
            names = f"{source}/{key}", f"{target}/{key}"
            await request_async(folder, partial(obstore.copy_async, store, *names))

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, keys))

    sync(all_of_them())


def list_stamps(url: str) -> dict[str, str | None]:
    """Return the keys of all that is below a URL, and by what a change of each shows: see `stamp_of`."""

    async def found() -> dict[str, str | None]:
        return {key: stamp async for key, stamp in ObjectStore(url).list_with_stamps("")}

    return sync(found())


async def _page(store: Any, prefix: str | None, after: str | None, most: int) -> Sequence[Any]:
    """What a store tells of its objects: a page, of which one after another are asked for."""
    found = obstore.list(store, prefix, offset=after, chunk_size=most)
    try:
        page: Sequence[Any] = await found.__anext__()
        return page
    except StopAsyncIteration:
        return []


def stamp_of(told: Any) -> str | None:
    """Return what tells an object from the one before it, as text: its size, and its ETag or its time.

    None if the store tells neither of these: obstore then has the time 0.
    """
    written = told["last_modified"]
    version = told["e_tag"] or (written.isoformat() if written.timestamp() > 0 else None)
    return f"{told['size']} {version}" if version else None


def request(url: str, question: Callable[[], Awaitable[T]]) -> T:
    """Ask a store, see `asked`, and wait for the answer."""
    return sync(request_async(url, question))


async def request_async(url: str, question: Callable[[], Awaitable[T]]) -> T:
    """Ask a store; again where the answer breaks off, which obstore does for large bodies only."""
    with translate_errors(url):
        for pause in PAUSES:
            try:
                return await question()
            except exceptions.BaseError as error:
                if BODY_ERROR not in str(error):
                    raise
                await asyncio.sleep(pause)
        return await question()


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Say what a store raises in one line, by a class that the command has a code for."""
    try:
        yield
    except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
        raise
    except (exceptions.BaseError, FileNotFoundError) as error:
        told = _first_words(error)
        if told.startswith(("401", "403")):
            raise StoreAccessError(
                f"{url}: the store refuses access ({told}); give credentials that may, in the environment of "
                "this process and of the workers"
            ) from None
        if told.endswith("builder error"):  # obstore asks for them whatever the URL
            raise ValueError(
                f"{url}: no certificates of authorities are found on this machine; install ca-certificates, "
                "or name a file of them by SSL_CERT_FILE"
            ) from None
        if told.startswith("404") or isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{url}: there is no such bucket or object ({told})") from None
        raise StoreUnavailableError(
            f"{url}: the store does not answer as it should ({told}); try again later"
        ) from None


def _first_words(error: Exception) -> str:
    """What an error says, without addresses, documents, and the debugging that obstore adds."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    return status[1].strip() if status else text.rpartition(" - ")[2][:200].strip()


class ObjectStore(zarr_storage.ObjectStore[Any]):
    """What zarr reads and writes below a URL.

    The root's metadata is only replaced if it still is what this process wrote or read last, where the store
    has conditional writes.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        super().__init__(connect(url), read_only=read_only)
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
        """The same, for reading only."""
        return type(self)(self.url, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, or a part of it; None if there is none."""
        if key != ROOT or byte_range is not None:
            return await request_async(
                self.url, lambda: zarr_storage.ObjectStore.get(self, key, prototype, byte_range)
            )
        content = await self._get_root()
        return None if content is None else prototype.buffer.from_bytes(content)

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
            await request_async(self.url, lambda: zarr_storage.ObjectStore.set(self, key, value))
        else:
            await self._set_root(value.to_bytes())

    async def _set_root(self, content: bytes) -> None:
        if self._version is not None:
            await self._get_root()  # for stores that ignore conditions
        mode: Any = "create" if self._version is None else self._version or "overwrite"
        try:
            told = await request_async(
                self.url, lambda: obstore.put_async(self.store, ROOT, content, mode=mode)
            )
            self._version = version_of(told)
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            # it may have been this process, in an attempt whose answer was lost
            self._version = None
            if await self._get_root() != content:
                raise ConcurrentCommitError(self.url) from None

    def know_root(self) -> None:
        """Read the root, so that `replace_root` finds out whether another process has replaced it since."""
        sync(self._get_root())

    def replace_root(self, content: bytes) -> None:
        """Write the root; `ConcurrentCommitError` if it is not what this process knows."""
        sync(self._set_root(content))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await request_async(self.url, lambda: zarr_storage.ObjectStore.exists(self, key))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object, unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        await request_async(self.url, lambda: zarr_storage.ObjectStore.delete(self, key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects of a folder."""
        folder = prefix.rstrip("/")
        keys = [key async for key in self.list_prefix(f"{folder}/" if folder else "")]
        if keys:
            await request_async(self.url, lambda: obstore.delete_async(self.store, keys))

    async def copy(self, key: str, target: str) -> None:
        """Make the store copy an object to another key."""
        await request_async(self.url, lambda: obstore.copy_async(self.store, key, target))

    @property
    def supports_listing(self) -> bool:
        """Whether it can tell what there is."""
        return urlsplit(self.url).scheme not in READ_ONLY

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys that begin so, a page of them at a time, as they are asked for."""
        async for key, _ in self.list_with_stamps(prefix):
            yield key

    async def list_with_stamps(self, prefix: str) -> AsyncGenerator[tuple[str, str | None], None]:
        """The same, and by what a change of each object shows: see `stamp_of`."""
        page: Sequence[Any] = range(PAGE)
        last = None
        while len(page) == PAGE:
            page = await request_async(self.url, partial(_page, self.store, prefix, last, PAGE))
            for told in page:
                last = told["path"]
                yield last, stamp_of(told)

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names in a folder."""

        async def names() -> list[str]:
            return [name async for name in zarr_storage.ObjectStore.list_dir(self, prefix)]

        for name in await request_async(self.url, names):
            yield name


def _reconnect(url: str, read_only: bool) -> ObjectStore:
    return ObjectStore(url, read_only=read_only)


async def get_with_version(store: Any, key: str) -> tuple[bytes, dict[str, Any]]:
    """An object, and its version."""
    found = await obstore.get_async(store, key)
    return bytes(await found.bytes_async()), version_of(found.meta)


def version_of(told: Any) -> dict[str, Any]:
    """What tells a version of an object from others, as obstore takes it for a condition."""
    return {name: told[name] for name in ("e_tag", "version") if told[name] is not None}
