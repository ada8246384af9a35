"""Dask goes on at once where the clock of the system is set back."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from distributed import batched
from distributed.batched import BatchedSend
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


async def send_two(clock: Clock) -> list[Any]:
    wire, stream = Wire(clock), BatchedSend("10 ms")
    stream.start(wire)
    for message in "one", "two":
        stream.send(message)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    sent = list(wire.written)
    await stream.close()
    return sent


async def calls_of_a_periodic(clock: Clock) -> int:
    called: list[bool] = []
    periodic = PeriodicCallback(lambda: called.append(True), 10)
    periodic.start()
    await asyncio.sleep(0.03)
    clock.ahead -= DAY
    await asyncio.sleep(0.03)
    called.clear()
    await asyncio.sleep(0.2)
    periodic.stop()
    return len(called)


@pytest.mark.parametrize(("settings", "goes_on"), [(steady_clock, True), (nullcontext, False)])
def test_messages_and_heartbeats_go_on_where_the_clock_is_set_back(
    settings: type[AbstractContextManager[None]], goes_on: bool, clock: Clock
) -> None:
    """Without the steady clock they wait for a day: where they no longer do, it is needed no more."""
    with settings():
        assert asyncio.run(send_two(clock)) == (["one", "two"] if goes_on else ["one"])
        assert (asyncio.run(calls_of_a_periodic(clock)) > 0) == goes_on


def test_the_clock_is_the_systems_again_afterwards() -> None:
    before = IOLoop.time, batched.time
    with steady_clock():
        assert abs(IOLoop.time(None) - time.time()) < 0.1  # type: ignore[arg-type]
        assert batched.time is IOLoop.time
    assert (IOLoop.time, batched.time) == before


def clock_of_the_process() -> str:
    return IOLoop.time.__module__


@pytest.mark.real
def test_a_cluster_of_our_own_has_a_steady_clock_in_all_its_processes() -> None:
    with local_cluster(1, 1, None) as client:
        everywhere = [clock_of_the_process(), *client.run(clock_of_the_process).values()]
    assert everywhere == ["dask_nmf.cluster.steady_clock"] * 2
