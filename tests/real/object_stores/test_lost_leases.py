"""A process that was overtaken by another one changes nothing of what the other has committed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import zarr
from support import faults
from support.buckets import PASSES, SHAPE, V, fit, keys, only_moto, same_factors
from support.matrices import Array
from support.servers import needs, until

from dask_nmf import Run, nmf
from dask_nmf.errors import (
    ConcurrentCommitError,
    InvalidRunError,
)
from dask_nmf.fitting import fit as fitting_fit
from dask_nmf.iteration.loop import Step
from dask_nmf.storage import leases, locations
from dask_nmf.storage.objects.object_store import ObjectStore

pytestmark = needs("moto_server", "rclone")


def test_a_run_that_another_process_has_taken_over_is_left_to_it(server: faults.Proxy, v: Array) -> None:
    run = "s3://bucket/run.zarr"
    fit(V, run, max_iter=2, time_limit=0)
    mine, others = Run.load(run), Run.load(run)
    others.recover()
    with pytest.raises(ConcurrentCommitError, match=r"run\.zarr was changed by another process"):
        mine.recover()
    assert Run.load(run).record == others.record


# Without a lease that tells, who was overtaken may first miss what the other has deleted.
REFUSED = (ConcurrentCommitError, InvalidRunError, FileNotFoundError)


class Pause:
    """The writes of a process to object stores, one of which waits until it is let go.

    Counted are those between `begin` and `end`, from 0. Nothing else may write meanwhile.
    """

    def __init__(self, at: int, patch: pytest.MonkeyPatch) -> None:
        self.at, self.count, self.counts = at, 0, False
        self.reached, self.goes_on = threading.Event(), threading.Event()
        for name in ("set", "copy", "delete", "delete_dir"):
            patch.setattr(ObjectStore, name, self.before(getattr(ObjectStore, name)))

    def begin(self) -> None:
        self.counts = True

    def end(self) -> None:
        self.counts = False

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(store: ObjectStore, *asked: Any) -> None:
            mine, self.count = self.count, self.count + self.counts
            if self.counts and mine == self.at:
                self.end()
                self.reached.set()
                await asyncio.to_thread(self.goes_on.wait)
            await change(store, *asked)

        return changed


def overtaken(run: str, number: int, first: int, last: int, other: Callable[[], object]) -> Exception | None:
    """Pause a fit at a write between two of its passes while another call does something, and let it go on.

    The lease is of no use: it was lost just after it was looked at. Returns what the first fit raises, if
    anything. Where it writes less than that often, nothing else is done.
    """
    raised: list[Exception] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locations.ObjectStoreLocation, "lock", lambda _: nullcontext(leases.always_held))
        pause = Pause(number, patch)

        def callback(step: Step) -> None:
            if step.number == first:
                pause.begin()
            elif step.number == last and not pause.reached.is_set():
                pause.end()
                raise InterruptedError

        def work() -> None:
            try:
                fit(V, run, solver="mu", callback=callback)
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: pause.reached.is_set() or not thread.is_alive())
        if pause.reached.is_set():
            other()
        pause.goes_on.set()
        thread.join()
        return raised[0] if pause.reached.is_set() and raised else None


@only_moto
def test_who_lost_the_lease_at_any_write_of_a_pass_changes_nothing(
    server: faults.Proxy, several_panels: None, overtaken_at: range
) -> None:
    whole = "s3://bucket/whole.zarr"
    fit(V, whole, solver="mu")

    def dies(step: Step) -> None:
        if step.number == 3:
            raise InterruptedError

    def goes_on() -> None:
        if number % 2:
            fit(V, run, solver="mu")
        else:
            with pytest.raises(InterruptedError):
                fit(V, run, solver="mu", callback=dies)
        left.append(Run.load(run).record)

    for number in overtaken_at:
        run, left = f"s3://bucket/{number}.zarr", []
        error = overtaken(run, number, 1, 2, goes_on)
        if error is None:
            break
        assert isinstance(error, REFUSED), error
        assert Run.load(run).record == left[0]
        fit(V, run, solver="mu")
        same_factors(run, whole)
        data = {key.split("/")[2] for key in keys() if key.startswith(f"{number}.zarr/data")}
        assert {name.split("-")[0] for name in data} == {"result", "layout"}
    assert number > 10


@only_moto
def test_who_lost_the_lease_at_any_write_of_the_answer_changes_nothing(
    server: faults.Proxy, several_panels: None, overtaken_at: range
) -> None:
    """Another call finishes the fit, or has overwritten it by one of another rank."""
    whole = {rank: f"s3://bucket/whole-{rank}.zarr" for rank in (5, 4)}
    for rank, place in whole.items():
        nmf(V, rank, store=place, tol=0, max_iter=PASSES, solver="mu")
    refused = 0
    for number in overtaken_at:
        run, rank, reached = f"s3://bucket/{number}.zarr", 4 + number % 2, []

        def other(run: str = run, rank: int = rank, reached: list[int] = reached) -> None:
            nmf(V, rank, store=run, tol=0, max_iter=PASSES, solver="mu", overwrite=rank == 4)
            reached.append(rank)

        error = overtaken(run, number, PASSES, PASSES + 1, other)
        if not reached:
            break
        assert error is None or isinstance(error, REFUSED), error
        refused += error is not None
        same_factors(run, whole[rank])
        nmf(V, rank, store=run, tol=0, max_iter=PASSES, solver="mu")
        H = zarr.open_array(ObjectStore(run), path="H", mode="r")
        assert H.shape == (rank, SHAPE[1])
    assert refused >= 3


@only_moto
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_began_while_v_was_read_is_left_to_it(
    server: faults.Proxy, several_panels: None, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    run, first_read = "s3://bucket/run.zarr", fitting_fit.first_read
    fit(V, "s3://bucket/whole.zarr")
    if overwrite:
        nmf(V, 3, store=run, tol=0, max_iter=1)

    def slow(*asked: Any) -> Any:
        found = first_read(*asked)
        monkeypatch.setattr(fitting_fit, "first_read", first_read)
        fit(V, run, overwrite=overwrite)
        return found

    monkeypatch.setattr(locations.ObjectStoreLocation, "lock", lambda _: nullcontext(leases.always_held))
    monkeypatch.setattr(fitting_fit, "first_read", slow)
    with pytest.raises(ConcurrentCommitError):
        nmf(V, 4, store=run, tol=0, max_iter=2, overwrite=overwrite)
    same_factors(run, "s3://bucket/whole.zarr")
