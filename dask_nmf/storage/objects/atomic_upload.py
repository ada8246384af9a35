"""Outputs in object stores that appear once they are whole, and replace only what they may replace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from dask_nmf.errors import came_meanwhile
from dask_nmf.storage.objects.object_lock import object_lock
from dask_nmf.storage.objects.object_store import ObjectStore, list_stamps
from dask_nmf.storage.objects.requests import ROOT, copy, fetch, remove
from dask_nmf.storage.objects.urls import split_url

Stamps = dict[str, str | None]


@contextmanager
def atomic_upload(url: str, check: Callable[[], None]) -> Iterator[ObjectStore]:
    """Yield a staging area, ``.name.partial/…``, to be written; the store copies it to the URL at the end.

    A store cannot rename. Therefore objects with new names are copied first, then the root is replaced, then
    the objects that have names of old ones are copied, and then what is left of the old output is deleted. If
    the chunks of an output are not named like those of the old one, one of the two is whole at any moment.

    Parameters
    ----------
    check : raises if what is at the URL may not be replaced; it is called while the URL is locked

    Raises
    ------
    RunLocked
        If another process works on the URL.
    FileExistsError
        If another process made or changed something at the URL meanwhile, which is left as it is.
    ConcurrentCommitError
        If that happened at the last instant.
    """
    with object_lock(url) as check_held:
        _clean_up(url)
        check()
        before, target = list_stamps(url), ObjectStore(url)
        target.know_root()
        staging = f"{_staging_area(url)}/{uuid4().hex}"
        try:
            yield ObjectStore(staging)
            check_held()
            _put(staging, target, before, check_held)
        finally:
            with suppress(OSError):  # the next command that holds the lease cleans up
                remove(staging, list_stamps(staging))


def _put(staging: str, target: ObjectStore, before: Stamps, check_held: Callable[[], None]) -> None:
    now, keys = list_stamps(target.url), list_stamps(staging)
    if any(before.get(key, "") != stamp for key, stamp in now.items()):
        raise came_meanwhile(target.url)
    root = bytes(fetch(f"{staging}/{ROOT}"))
    new = [key for key in keys if key not in now and key != ROOT]
    try:
        _copy(staging, target.url, new)
        check_held()
        target.replace_root(root)
    except BaseException:
        with suppress(OSError):
            remove(target.url, new)
        raise
    _copy(staging, target.url, [key for key in keys if key in now and key != ROOT])
    remove(target.url, [key for key in now if key not in keys])


def _copy(staging: str, url: str, keys: list[str]) -> None:
    """Copy objects from a staging area to a URL. Those that describe arrays are copied last."""
    folder, name = split_url(url)
    source = "/".join((split_url(_staging_area(url))[1], split_url(staging)[1]))
    for last in (False, True):
        copy(folder, source, name, [key for key in keys if key.endswith(ROOT) is last])


def _clean_up(url: str) -> None:
    """Delete what killed commands left in the staging area, and their copies of it unless there is a root."""
    left = list(list_stamps(_staging_area(url)))
    if not left:
        return
    stored = list_stamps(url)
    if ROOT not in stored:
        remove(url, {key.partition("/")[2] for key in left} & set(stored))
    remove(_staging_area(url), left)


def _staging_area(url: str) -> str:
    folder, _, name = url.rstrip("/").rpartition("/")
    return f"{folder}/.{name}.partial"
