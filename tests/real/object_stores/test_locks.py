"""Locks in object stores: one writer at a time, whatever clocks say."""

from __future__ import annotations

import json
import os
import threading
import time
from types import SimpleNamespace

import obstore
import pytest
from support import faults
from support.servers import PATIENCE, needs, until

from dask_nmf.errors import (
    RunLocked,
)
from dask_nmf.storage import leases
from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.object_lock import object_lock

pytestmark = needs("moto_server", "rclone")


def test_a_second_process_is_told_to_wait_and_a_dead_one_is_followed(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "s3://bucket/run.zarr"
    monkeypatch.setattr(leases, "WATCH_TIME", 0.5)
    with object_lock(run):
        with pytest.raises(RunLocked, match=rf"works on {run} \(process {os.getpid()} on"), object_lock(run):
            raise AssertionError
        told = content("run.zarr.lock")
        assert 0 < told["expires"] - time.time() <= leases.DURATION
    assert not obstore.list(requests.connect("s3://bucket"), prefix="run.zarr.lock").collect()
    for expires in (time.time() - 1, time.time() + 1e6):  # a clock that was wrong
        put("run.zarr.lock", {**told, "host": "another", "expires": expires})
        with object_lock(run):
            assert content("run.zarr.lock")["owner"] != told["owner"]
    put("run.zarr.lock", {**told, "host": "another", "expires": time.time() + leases.DURATION - 1})
    with pytest.raises(RunLocked, match="on another"), object_lock(run):
        raise AssertionError
    obstore.delete(requests.connect("s3://bucket"), "run.zarr.lock")


def test_an_owner_whose_clock_is_wrong_keeps_the_lock(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "s3://bucket/run.zarr"
    monkeypatch.setattr(leases, "RENEWAL", 0.3)
    real = leases._host  # another machine, as far as the lock tells
    with object_lock(run):
        monkeypatch.setattr(leases, "_host", lambda: "another")
        monkeypatch.setattr(leases, "DURATION", -1e4)
        until(lambda: content("run.zarr.lock")["expires"] < time.time())
        monkeypatch.setattr(leases, "_host", real)
        monkeypatch.setattr(leases, "time", SimpleNamespace(time=time.time, sleep=watch))
        with pytest.raises(RunLocked), object_lock(run):
            raise AssertionError


def watch(seconds: float) -> None:
    """Watch a lock until it is renewed, as it is within the time to watch unless the machine is busy."""
    before = content("run.zarr.lock")
    until(lambda: content("run.zarr.lock") != before)


def test_of_two_that_begin_at_once_one_has_the_lock(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SETTLING", 4)  # seconds that a busy machine may keep one of them waiting
    both, refused, had = threading.Barrier(2), threading.Event(), []

    def try_it() -> None:
        both.wait()
        try:
            with object_lock("s3://bucket/run.zarr"):
                had.append(True)
                refused.wait(PATIENCE)
        except RunLocked:
            had.append(False)
            refused.set()

    threads = [threading.Thread(target=try_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(had) == [False, True]


def content(key: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(bytes(obstore.get(requests.connect("s3://bucket"), key).bytes()))
    return found


def put(key: str, told: object) -> None:
    obstore.put(requests.connect("s3://bucket"), key, json.dumps(told).encode())
