"""A lock on a location in an object store: a lease that is replaced by conditional writes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from dask_nmf.storage.leases import CheckHeld, hold_lease
from dask_nmf.storage.objects.requests import connect, get_with_version, request
from dask_nmf.storage.objects.urls import split_url

try:
    import obstore
    from obstore import exceptions
except ImportError:  # the extra "cloud"
    obstore = None


def object_lock(url: str) -> AbstractContextManager[CheckHeld]:
    """Hold the object ``url.lock``, a lease that a thread renews and that is deleted afterwards.

    Raises
    ------
    RunLocked
        If another process holds it. If that process has died, this is found out at once on the same machine,
        and otherwise `leases.WATCH_TIME` seconds after its lease has ended.
    """
    folder, name = split_url(url)
    return hold_lease(url, _LeaseObject(url, connect(folder), f"{name}.lock"))


class _LeaseObject:
    """An object that holds a lease."""

    def __init__(self, url: str, store: Any, key: str) -> None:
        self.url = url
        self.store = store
        self.key = key

    def read(self) -> tuple[bytes, Any]:
        return request(self.url, partial(get_with_version, self.store, self.key))

    def write(self, content: bytes, version: Any) -> bool:
        try:
            request(self.url, lambda: obstore.put(self.store, self.key, content, mode=version))
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            return False
        return True

    def delete(self) -> None:
        request(self.url, lambda: obstore.delete(self.store, self.key))
