"""Outputs in object stores that appear when they are whole, in the place of what may be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from dask_nmf.errors import came_meanwhile
from dask_nmf.storage.lease import object_lock
from dask_nmf.storage.object_store import ROOT, ObjectStore, copy, fetch, list_stamps, remove, split_url

Stamps = dict[str, str | None]


@contextmanager
def atomic_output(url: str, check: Callable[[], None]) -> Iterator[ObjectStore]:
    """Yield a place aside, ``.name.partial/…``, to be written: at the end the store copies it to the URL.

    A store has no renaming. So objects with new names are copied first, then the root is replaced, then the
    objects that have the names of old ones, and then what is left of the old output is deleted. An output of
    which the chunks are not named like those of the old one is thus whole at any moment, as the old one is.

    Parameters
    ----------
    check : raises if what is at the URL may not be replaced.

    Raises
    ------
    RunLocked
        If another process works on it.
    FileExistsError
        If something came to the URL meanwhile, or was changed there, which is left as it is.
    ConcurrentCommitError
        If that happened in the last instant.
    """
    with object_lock(url) as check_held:
        _clean_up(url)
        check()
        before, target = list_stamps(url), ObjectStore(url)
        target.know_root()
        aside = f"{_staging_area(url)}/{uuid4().hex}"
        try:
            yield ObjectStore(aside)
            check_held()
            _put(aside, target, before, check_held)
        finally:
            with suppress(OSError):  # the next command that holds the lease sweeps
                remove(aside, list_stamps(aside))


def _put(aside: str, target: ObjectStore, before: Stamps, check_held: Callable[[], None]) -> None:
    now, keys = list_stamps(target.url), list_stamps(aside)
    if any(before.get(key, "") != stamp for key, stamp in now.items()):
        raise came_meanwhile(target.url)
    root = bytes(fetch(f"{aside}/{ROOT}"))
    new = [key for key in keys if key not in now and key != ROOT]
    try:
        _copy(aside, target.url, new)
        check_held()
        target.replace_root(root)
    except BaseException:
        with suppress(OSError):
            remove(target.url, new)
        raise
    _copy(aside, target.url, [key for key in keys if key in now and key != ROOT])
    remove(target.url, [key for key in now if key not in keys])


def _copy(aside: str, url: str, keys: list[str]) -> None:
    """Copy objects, those that describe arrays last."""
    folder, name = split_url(url)
    source = "/".join((split_url(_staging_area(url))[1], split_url(aside)[1]))
    for last in (False, True):
        copy(folder, source, name, [key for key in keys if key.endswith(ROOT) is last])


def _clean_up(url: str) -> None:
    """Delete what killed commands left aside, and their copies of it where there is no root yet."""
    left = list(list_stamps(_staging_area(url)))
    if not left:
        return
    there = list_stamps(url)
    if ROOT not in there:
        remove(url, {key.partition("/")[2] for key in left} & set(there))
    remove(_staging_area(url), left)


def _staging_area(url: str) -> str:
    folder, _, name = url.rstrip("/").rpartition("/")
    return f"{folder}/.{name}.partial"
