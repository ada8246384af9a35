"""Requests to object stores: who makes them, and what a store returns."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from obstore.store import MemoryStore
from support.matrices import low_rank
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.group import AsyncGroup, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import MemoryStore as ZarrMemory
from zarr.storage import StorePath

from dask_nmf import Run, nmf
from dask_nmf.errors import DataError
from dask_nmf.storage.arrays import copies
from dask_nmf.storage.objects import object_lock, object_store, requests
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.updates import update

Stores = dict[str, MemoryStore]


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    """Stores in memory, by the URLs that they stand for."""
    made: Stores = {}
    for module in (object_store, object_lock, requests):
        monkeypatch.setattr(module, "connect", lambda url: made.setdefault(url, MemoryStore()))
    return made


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of threads that Python did not start, and that bring a result to an event loop."""
    seen: set[str] = set()
    call = asyncio.BaseEventLoop.call_soon_threadsafe

    def called(loop: Any, *given: Any, **named: Any) -> Any:
        thread = threading.current_thread()
        if isinstance(thread, threading._DummyThread):
            seen.add(thread.name)
        return call(loop, *given, **named)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", called)
    return seen


def test_no_thread_of_a_store_enters_python(stores: Stores, strangers: set[str]) -> None:
    """Such a thread crashes a script that ends meanwhile; Python waits for its own threads."""
    nmf(low_rank(12, 7, 2), 2, max_iter=2, tol=0, store="s3://bucket/run").H.compute()
    requests.put("s3://bucket/key", b"content")
    assert bytes(requests.fetch("s3://bucket/key", 1, 3)) == b"ont"
    assert requests.stat("s3://bucket/key")[0] == 7
    assert requests.exists("s3://bucket/run")
    obstore.put(stores["s3://bucket"], "one/key", b"content")
    requests.copy("s3://bucket", "one", "two", ["key"])
    assert bytes(obstore.get(stores["s3://bucket"], "two/key").bytes()) == b"content"
    requests.remove("s3://bucket/run", list(object_store.list_stamps("s3://bucket/run")))
    assert not strangers


def test_a_forked_process_makes_requests_with_threads_of_its_own(stores: Stores) -> None:
    before = requests._threads(os.getpid())
    requests.put("s3://bucket/key", b"content")
    assert requests._threads(os.getpid()) is before
    assert requests._threads(-1) is not before


@pytest.mark.parametrize(
    "part", [None, RangeByteRequest(1, 4), OffsetByteRequest(2), SuffixByteRequest(3)], ids=repr
)
def test_parts_of_objects_are_those_of_their_bytes(stores: Stores, part: Any) -> None:
    store, content, prototype = ObjectStore("s3://bucket/place"), b"content", default_buffer_prototype()
    obstore.put(stores["s3://bucket/place"], "key", content)
    match part:
        case RangeByteRequest(start, end):
            content = content[start:end]
        case OffsetByteRequest(offset):
            content = content[offset:]
        case SuffixByteRequest(suffix):
            content = content[-suffix:]
    found, missing = sync(store.get_partial_values(prototype, [("key", part), ("none", part)]))
    assert found is not None
    assert found.to_bytes() == content
    assert missing is None


def test_a_sharded_array_is_read_and_written_by_parts(stores: Stores) -> None:
    V = np.random.default_rng(0).random((8, 6))
    store = ObjectStore("s3://bucket/v")
    array = zarr.create_array(store, data=V, chunks=(2, 3), shards=(4, 6))
    np.testing.assert_array_equal(array[3:7, 2:5], V[3:7, 2:5])
    array[1, :] = 0
    V[1] = 0
    np.testing.assert_array_equal(zarr.open_array(ObjectStore("s3://bucket/v"), mode="r")[:], V)
    assert set(sync(_keys(store))) == {"zarr.json", "c/0/0", "c/1/0"}
    assert set(sync(_names(store, "c"))) == {"0", "1"}
    assert set(sync(_names(store, ""))) == {"zarr.json", "c"}


async def _keys(store: ObjectStore) -> list[str]:
    return [key async for key in store.list()]


async def _names(store: ObjectStore, folder: str) -> list[str]:
    return [name async for name in store.list_dir(folder)]


class BusyStore(ZarrMemory):
    """A store that counts how many objects are read at the same time, and may fail at one, or lack it."""

    now, most, bad, gone = 0, 0, "", ""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key == self.bad:
            raise OSError("the store is gone")
        if key == self.gone:
            return None
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return await super().get(key, prototype, byte_range)


def group_in(store: ZarrMemory) -> zarr.Group:
    """Return a group without a root in a store."""
    return zarr.Group(AsyncGroup(GroupMetadata(), StorePath(store)))


def test_several_chunks_are_copied_at_the_same_time_and_not_too_many() -> None:
    source, target = BusyStore(), ZarrMemory()
    content = {f"data/{folder}/W/c.{number}.0": bytes([number]) for folder in "ab" for number in range(20)}
    for key, one in {**content, "data/c/W/c.0.0": b"other"}.items():
        sync(source.set(key, cpu.Buffer.from_bytes(one)))
    sync(target.set("data/a/W/c.99.0", cpu.Buffer.from_bytes(b"left by a killed command")))
    copies.copy_folders(group_in(source), group_in(target), ["a", "b"])
    assert {key: one.to_bytes() for key, one in target._store_dict.items()} == content
    assert source.most == copies.AT_ONCE
    source.bad = "data/a/W/c.3.0"
    with pytest.raises(OSError, match="the store is gone"):
        copies.copy_folders(group_in(source), group_in(ZarrMemory()), ["a", "b"])
    source.bad, source.gone = "", source.bad
    with pytest.raises(FileNotFoundError, match=r"data/a/W/c\.3\.0 was deleted while it was copied"):
        copies.copy_folders(group_in(source), group_in(ZarrMemory()), ["a", "b"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_is_copied_within_stores_and_nothing_is_left_of_a_copy_that_fails(
    stores: Stores, tmp_path: Path
) -> None:
    v, place = low_rank(40, 7, 2, noise=0.5).astype(np.float32), "s3://bucket/run"
    nmf(v[:30], 2, max_iter=2, store=place)
    nmf(v[:30], 2, max_iter=2, store=tmp_path / "run")
    large = np.full((2, 7), 1e38, np.float32)  # of which W is infinite
    with pytest.raises(DataError, match="has entries so large"):
        update(place, large, output="s3://bucket/copy", keep_h=True)
    assert not stores["s3://bucket/copy"].list().collect()
    update(place, v[30:], output="s3://bucket/copy")
    update(tmp_path / "run", v[30:], output=tmp_path / "copy")
    for name in ("W", "H"):
        mine, theirs = (Run.load_result(run).read(name) for run in ("s3://bucket/copy", tmp_path / "copy"))
        np.testing.assert_array_equal(mine, theirs)
    assert Run.load(place).summary()["shape"] == [30, 7]
