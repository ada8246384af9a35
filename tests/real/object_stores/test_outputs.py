"""Outputs in object stores appear whole, and replace only what they may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from support import faults
from support.buckets import keys
from support.servers import needs

from dask_nmf.errors import (
    RunLocked,
    StoreUnavailableError,
)
from dask_nmf.inference import transform_output
from dask_nmf.storage import locations
from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.atomic_upload import atomic_upload
from dask_nmf.storage.objects.object_lock import object_lock
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.storage.objects.requests import remove

pytestmark = needs("moto_server", "rclone")

OUTPUT = "s3://bucket/W.zarr"


def upload(value: float, act: Callable[[], object] = lambda: None, overwrite: bool = False) -> None:
    """Make an output as `transform` does, of one value, and do something before it appears."""
    place = locate(OUTPUT)
    check = partial(locations.check_replaceable, place, overwrite, transform_output._is_ours, "transform")
    with place.atomic_output(check) as inside:
        encoding = transform_output._unused_encoding(place.store())
        mark = {"settings": {"missing": None}, "of": value}
        form = transform_output.OutputForm(mark, encoding, None)
        w, _ = transform_output._create_factors(inside, form, (4, 2), 2, np.dtype("f4"))
        for first in (0, 2):
            w.write(first, np.full((2, 2), value, "f4"))
        act()


def seen_by_readers() -> list[float | None]:
    """What the output is by its root's metadata, and by that of W; None where it is not there."""
    seen: list[float | None] = []
    for look in (
        lambda: zarr.open_group(ObjectStore(OUTPUT, read_only=True), mode="r")["W"],
        lambda: zarr.open_array(ObjectStore(OUTPUT, read_only=True), path="W", mode="r"),
    ):
        try:
            (value,) = set(look()[:].ravel().tolist())
        except (FileNotFoundError, KeyError):
            value = None
        seen.append(value)
    return seen


def test_an_output_is_not_seen_before_it_is_whole(server: faults.Proxy) -> None:
    def interrupt() -> None:
        assert seen_by_readers() == [None, None]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(1, interrupt)
    assert not keys()


def test_a_second_transform_leaves_the_first_one_its_output(server: faults.Proxy) -> None:
    with pytest.raises(RunLocked, match=r"works on s3://bucket/W\.zarr"):
        upload(1, lambda: upload(2))  # it is told at once, before it has computed anything
    assert not keys()
    upload(1)
    with pytest.raises(FileExistsError, match="exists; give another output"):
        upload(2)
    assert seen_by_readers() == [1, 1]
    before = keys()
    upload(2, overwrite=True)
    assert seen_by_readers() == [2, 2]
    assert len(keys()) == len(before)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_to_an_output_meanwhile_is_left_as_it_is(server: faults.Proxy, overwrite: bool) -> None:
    def theirs() -> None:
        group = zarr.create_group(ObjectStore(OUTPUT), overwrite=True)
        group.create_array("W", shape=(4, 2), chunks=(2, 2), dtype="f4")[:] = 7

    if overwrite:
        upload(1)
    with pytest.raises(FileExistsError, match="made or changed by another process meanwhile"):
        upload(2, theirs, overwrite)
    assert seen_by_readers()[1] == 7
    assert {key.partition("/")[0] for key in keys()} == {"W.zarr"}


@pytest.mark.parametrize("old", [False, True])
def test_a_kill_at_any_request_leaves_readers_the_old_output_or_the_new_one(
    server: faults.Proxy, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is gone from some request on, so that nothing is cleaned up either."""
    monkeypatch.setitem(requests.RETRIES, "max_retries", 0)
    seen, number, failed = set(), 0, True
    while failed:
        if old:
            upload(1, overwrite=True)
        started, count = threading.Event(), iter(range(1000))

        def gone(
            method: str, _: str, number: int = number, started: Any = started, count: Any = count
        ) -> Any:
            changes = started.is_set() and method not in ("GET", "HEAD")
            return "503" if changes and next(count) >= number else None

        server.fault = gone
        with suppress(StoreUnavailableError):
            upload(2, started.set, overwrite=True)
        failed = next(count) > number
        server.fault = lambda method, path: None
        obstore.delete(requests.connect("s3://bucket"), "W.zarr.lock")  # of a process that is dead by then
        state = seen_by_readers()
        seen.add(tuple(state))
        assert set(state) <= {1 if old else None, 2}
        upload(3, overwrite=True)  # the next command, which sweeps
        assert seen_by_readers() == [3, 3]
        assert len(keys()) == 4
        remove("s3://bucket/W.zarr", [key.removeprefix("W.zarr/") for key in keys()])
        number += 1
    assert (2, 2) in seen
    assert (1, 1) in seen if old else (None, None) in seen


def test_a_reader_of_the_old_output_gets_no_numbers_of_the_new_one(server: faults.Proxy) -> None:
    upload(1)
    for value in (2, 3, 4, 5):
        old = zarr.open_group(ObjectStore(OUTPUT), mode="r")["W"]
        upload(value, overwrite=True)
        assert isinstance(old, zarr.Array)
        assert np.isnan(old[:]).all()
        assert seen_by_readers() == [value, value]


def test_names_with_escapes_are_the_same_place_to_all(server: faults.Proxy) -> None:
    with object_lock("s3://bucket/a%20b"), pytest.raises(RunLocked), object_lock("s3://bucket/a b"):
        raise AssertionError
    with atomic_upload("s3://bucket/a%3Bb", lambda: None) as inside:
        zarr.create_group(inside)
    assert keys() == {"a;b/zarr.json"}
