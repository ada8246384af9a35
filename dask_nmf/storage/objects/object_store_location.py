"""Locations that are prefixes of object stores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.objects.atomic_upload import atomic_upload
from dask_nmf.storage.objects.object_lock import object_lock
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.storage.objects.requests import exists, fetch, put, remove
from dask_nmf.storage.objects.urls import READ_ONLY, split_url


@dataclass(frozen=True)
class ObjectStoreLocation:
    """A prefix of an object store, given by its URL."""

    address: str
    name: str
    path: None = field(default=None, init=False)

    @property
    def folder(self) -> str:
        return split_url(self.address)[0]

    def beside(self, name: str) -> ObjectStoreLocation:
        url = f"{self.folder}/{name}"
        return ObjectStoreLocation(url, url)

    def within(self, name: str) -> ObjectStoreLocation:
        url = f"{self.address}/{name}"
        return ObjectStoreLocation(url, url)

    def exists(self) -> bool:
        return exists(self.address)

    def check_creatable(self) -> None:
        if not self.is_writable():
            raise ValueError(
                f"{self.name} can be read only; give a path, or a place in s3://, gs:// or az://"
            )

    def store(self) -> ObjectStore:
        return ObjectStore(self.address)

    def is_writable(self) -> bool:
        return urlsplit(self.address).scheme not in READ_ONLY

    def read(self) -> bytes:
        return bytes(fetch(self.address))

    def write(self, content: bytes) -> None:
        put(self.address, content)

    def remove(self) -> None:
        folder, name = split_url(self.address)
        remove(folder, [name])

    def lock(self) -> AbstractContextManager[CheckHeld]:
        self.check_creatable()
        return object_lock(self.address)

    def atomic_output(
        self, check: Callable[[], None], can_continue: Callable[[Path], bool] | None = None
    ) -> AbstractContextManager[ObjectStore]:
        self.check_creatable()
        return atomic_upload(self.address, check)
