"""Requests to an object store. They are repeated if an answer breaks off, and raise errors of one line.

Credentials are those in the environment of the process that makes the request. Only URLs are sent to workers
or stored.

Requests are obstore's blocking calls, in threads of Python, which waits for them at exit. Its coroutines are
not used: threads of obstore's own set their results, and crash a process whose interpreter ends meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from zarr.core.sync import sync

from dask_nmf.errors import StoreAccessError, StoreUnavailableError
from dask_nmf.storage.objects.urls import READ_ONLY, check_url, split_url

try:
    import obstore
    from obstore import exceptions
    from obstore.store import from_url
except ImportError:  # the extra "cloud"
    obstore = None

AT_ONCE = 32  # requests that a process makes at the same time
COPIES = 16  # objects that are copied at the same time
ROOT = "zarr.json"  # the metadata object of a group, the only object that a commit replaces
ROOTS = (ROOT, ".zarray", ".zgroup")
RETRIES = {"max_retries": 9, "retry_timeout": timedelta(minutes=2)}  # from 0.1 s, each up to twice as long
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds before each repetition
BODY_ERROR = "response body error"  # what obstore calls an answer that broke off
T = TypeVar("T")


class Listed(NamedTuple):
    """An object as a store lists it: its key below a folder, its size in bytes, its ETag if it has one."""

    key: str
    size: int
    e_tag: str | None


class Version(NamedTuple):
    """Size, ETag and time of an object, which tell it from another one that replaced it.

    Attributes
    ----------
    size : in bytes
    e_tag : None if the store gives none
    written : the second of its last write; 0 if the store does not tell
    """

    size: int
    e_tag: str | None
    written: int = 0

    @classmethod
    def of(cls, meta: Any) -> Version:
        """Return the version of an object by its metadata."""
        return cls(int(meta["size"]), meta["e_tag"], int(meta["last_modified"].timestamp()))

    def is_replaced_by(self, other: Version) -> bool:
        """Return whether another version differs; the ETag alone decides if both have one."""
        if self.e_tag and other.e_tag:  # which some servers quote in replies, and not in lists
            return self.e_tag.strip('"') != other.e_tag.strip('"')
        both_told = bool(self.written and other.written)
        return self.size != other.size or (both_told and self.written != other.written)


def connect(url: str) -> Any:
    """Return an obstore store of all objects below a URL. No request is made yet."""
    check_url(f"{url}/_")
    options: dict[str, Any] = {"allow_http": True} if urlsplit(url).scheme == "http" else {}
    with translate_errors(url):
        return from_url(url, retry_config=RETRIES, client_options=options or None)


def fetch(url: str, first: int = 0, length: int | None = None) -> memoryview:
    """Return ``length`` bytes of an object from byte ``first`` on, or all of them; raise as `request`."""
    check_url(url)
    folder, name = split_url(url)
    store = connect(folder)

    def read() -> memoryview:
        if length is None:
            return memoryview(obstore.get(store, name).bytes())[first:]
        return memoryview(obstore.get_range(store, name, start=first, length=length))

    return request(url, read)


def put(url: str, content: bytes) -> None:
    """Write an object, whole or not at all."""
    folder, name = split_url(url)
    request(folder, partial(obstore.put, connect(folder), name, content))


def stat(url: str) -> tuple[int, str | None]:
    """Return the size of an object in bytes and its stamp (see `stamp_of`)."""
    folder, name = split_url(url)
    meta = request(url, partial(obstore.head, connect(folder), name))
    return int(meta["size"]), stamp_of(meta)


def version(url: str) -> Version:
    """Return the version of an object that is stored now."""
    folder, name = split_url(url)
    return Version.of(request(url, partial(obstore.head, connect(folder), name)))


def fetch_version(url: str, part: tuple[int, int] | None, known: Version) -> memoryview | None:
    """Return the bytes from one position to another of an object, or all; None if it was replaced."""
    folder, name = split_url(url)
    conditions = {"range": part, "if_match": known.e_tag}
    options = {key: condition for key, condition in conditions.items() if condition is not None}
    store = connect(folder)

    def read() -> tuple[memoryview, Version]:
        found = obstore.get(store, name, options=options)
        return memoryview(found.bytes()), Version.of(found.meta)

    try:
        content, now = request(url, read)
    except exceptions.PreconditionError:
        return None
    return None if known.is_replaced_by(now) else content


def list_objects(url: str, deep: bool = False) -> list[Listed]:
    """Return the objects in a folder, in order of their keys; those in folders of it only if ``deep``."""
    store = connect(url)

    def read() -> Any:
        return obstore.list(store).collect() if deep else obstore.list_with_delimiter(store, None)["objects"]

    return sorted(Listed(meta["path"], int(meta["size"]), meta["e_tag"]) for meta in request(url, read))


def exists(url: str) -> bool:
    """Return whether any object is stored below a URL."""
    if urlsplit(url).scheme not in READ_ONLY:
        return bool(request(url, partial(list_page, connect(url), None, None, 1)))
    store = connect(url)
    for name in ROOTS:
        with suppress(FileNotFoundError):
            request(url, partial(obstore.head, store, name))
            return True
    return False


def remove(url: str, keys: Collection[str]) -> None:
    """Delete objects below a URL, beginning with those that make it a Zarr hierarchy."""
    store = connect(url)
    for some in ([key for key in keys if key in ROOTS], [key for key in keys if key not in ROOTS]):
        if some:
            request(url, partial(obstore.delete, store, some))


def copy(folder: str, source: str, target: str, keys: Collection[str]) -> None:
    """Make the store copy objects from below key ``source`` of a folder to below key ``target``."""
    store, limit = connect(folder), asyncio.Semaphore(COPIES)

    async def copy_one(key: str) -> None:
        async with limit:
            names = f"{source}/{key}", f"{target}/{key}"
            await request_async(folder, partial(obstore.copy, store, *names))

    async def copy_all() -> None:
        await asyncio.gather(*map(copy_one, keys))

    sync(copy_all())


def list_page(store: Any, prefix: str | None, after: str | None, most: int) -> Sequence[Any]:
    """Return the metadata of at most ``most`` objects whose keys begin with a prefix and follow ``after``."""
    page: Sequence[Any] = next(obstore.list(store, prefix, offset=after, chunk_size=most), [])
    return page


def stamp_of(meta: Any) -> str | None:
    """Return the stamp of an object: its size, and its ETag or the time of its last write.

    The stamp changes whenever the object is written. It is None if the store tells neither ETag nor time;
    obstore then has the time 0.
    """
    written = meta["last_modified"]
    version = meta["e_tag"] or (written.isoformat() if written.timestamp() > 0 else None)
    return f"{meta['size']} {version}" if version else None


def get_with_version(store: Any, key: str) -> tuple[bytes, dict[str, Any]]:
    """Return the content of an object, and its version (see `version_of`)."""
    found = obstore.get(store, key)
    return bytes(found.bytes()), version_of(found.meta)


def version_of(meta: Any) -> dict[str, Any]:
    """Return the version of an object in the form that obstore takes as the condition of a write."""
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


def request(url: str, call: Callable[[], T]) -> T:
    """Make a request and wait for its answer.

    Parameters
    ----------
    url : what the request is about, for the text of errors
    call : makes the request, and waits for its answer; it is called again if the answer breaks off

    Raises
    ------
    FileNotFoundError
        If there is no such bucket or object.
    StoreAccessError, StoreUnavailableError
        If the store refuses access, or does not answer as it should.
    """
    return sync(request_async(url, call))


async def request_async(url: str, call: Callable[[], T]) -> T:
    """Make a request on an event loop, as `request` does. obstore repeats those with large bodies only."""
    run, threads = asyncio.get_running_loop().run_in_executor, _threads(os.getpid())
    with translate_errors(url):
        for pause in PAUSES:
            try:
                return await run(threads, call)
            except exceptions.BaseError as error:
                if BODY_ERROR not in str(error):
                    raise
                await asyncio.sleep(pause)
        return await run(threads, call)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the threads that make the requests of a process, which a fork of it does not have."""
    return ThreadPoolExecutor(AT_ONCE, "dask-nmf-request")


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Raise what obstore raises as an error of one line, of a class that has an exit code.

    A condition of a write that does not hold is passed on as it is.
    """
    try:
        yield
    except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
        raise
    except (exceptions.BaseError, FileNotFoundError) as error:
        reason = _first_words(error)
        if reason.startswith(("401", "403")):
            raise StoreAccessError(
                f"{url}: the store refuses access ({reason}); give credentials that may, in the environment "
                "of this process and of the workers"
            ) from None
        if reason.endswith("builder error"):  # obstore needs certificates whatever the URL
            raise ValueError(
                f"{url}: no certificates of authorities are found on this machine; install ca-certificates, "
                "or name a file of them by SSL_CERT_FILE"
            ) from None
        if reason.startswith("404") or isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{url}: there is no such bucket or object ({reason})") from None
        raise StoreUnavailableError(
            f"{url}: the store does not answer as it should ({reason}); try again later"
        ) from None


def _first_words(error: Exception) -> str:
    """Return the text of an error without addresses, documents and the debugging text that obstore adds."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    return status[1].strip() if status else text.rpartition(" - ")[2][:200].strip()
