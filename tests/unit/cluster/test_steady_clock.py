"""Dask goes on at once where the clock of the system is set back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from distributed import batched
from distributed.batched import BatchedSend
from support.servers import PATIENCE
from tornado.ioloop import IOLoop, PeriodicCallback

from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.cluster.steady_clock import steady_clock

DAY = 86400.0


class Clock:
    """The clock of the system."""

    def __init__(self) -> None:
        self.read, self.ahead = time.time, 0.0

    def time(self) -> float:
        return self.read() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test may set."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(batched, "time", clock.time)
    return clock


class Wire:
    """What a stream writes to; the clock is set back while it writes its first message."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.written: list[Any] = []

    def closed(self) -> bool:
        return False

    async def write(self, messages: list[Any], **_: Any) -> int:
        self.clock.ahead -= 0 if self.written else DAY
        self.written += messages
        return 1

    async def close(self) -> None:
        pass


async def happens(holds: Callable[[], bool], expected: bool) -> bool:
    """Return whether a condition comes to hold: soon, or within many seconds where it is expected to."""
    deadline = time.monotonic() + (PATIENCE if expected else 0.2)
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return holds()


async def sends_two(clock: Clock, expected: bool) -> bool:
    wire, stream = Wire(clock), BatchedSend("10 ms")
    stream.start(wire)
    stream.send("one")
    assert await happens(lambda: wire.written == ["one"], True)
    stream.send("two")
    sent = await happens(lambda: wire.written == ["one", "two"], expected)
    await stream.close()
    return sent


async def calls_again(clock: Clock, expected: bool) -> bool:
    called: list[bool] = []
    periodic = PeriodicCallback(lambda: called.append(True), 10)
    periodic.start()
    assert await happens(lambda: bool(called), True)
    clock.ahead -= DAY
    await asyncio.sleep(0.03)
    called.clear()
    goes_on = await happens(lambda: bool(called), expected)
    periodic.stop()
    return goes_on


@pytest.mark.parametrize(("settings", "goes_on"), [(steady_clock, True), (nullcontext, False)])
def test_messages_and_heartbeats_go_on_where_the_clock_is_set_back(
    settings: type[AbstractContextManager[None]], goes_on: bool, clock: Clock
) -> None:
    """Without the steady clock they wait for a day: where they no longer do, it is needed no more."""
    with settings():
        assert asyncio.run(sends_two(clock, goes_on)) == goes_on
        assert asyncio.run(calls_again(clock, goes_on)) == goes_on


def test_the_clock_is_the_systems_again_afterwards() -> None:
    before = IOLoop.time, batched.time
    with steady_clock():
        began, told, ended = time.time(), IOLoop.time(None), time.time()  # type: ignore[arg-type]
        assert began - 0.1 < told < ended + 0.1
        assert batched.time is IOLoop.time
    assert (IOLoop.time, batched.time) == before


def clock_of_the_process() -> str:
    return IOLoop.time.__module__


@pytest.mark.real
def test_a_cluster_of_our_own_has_a_steady_clock_in_all_its_processes() -> None:
    with local_cluster(1, 1, None) as client:
        everywhere = [clock_of_the_process(), *client.run(clock_of_the_process).values()]
    assert everywhere == ["dask_nmf.cluster.steady_clock"] * 2
