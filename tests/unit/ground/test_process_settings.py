"""Settings of the process: shared by fits and clusters that overlap, and as they were when all are over."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from threading import Barrier, Event, Thread
from types import FrameType
from typing import Any

import dask
import numpy as np
import pytest
from dask.delayed import delayed
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import low_rank
from threadpoolctl import threadpool_info, threadpool_limits

from dask_nmf import process_settings
from dask_nmf.cluster.backends import local, worker_settings
from dask_nmf.execution import executor
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes
from dask_nmf.execution.graphs.reduction import PanelTasks, PassInputs
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.execution.tasks import blas
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.process_settings import SharedSetting
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

pytestmark = pytest.mark.usefixtures("unlimited_blas")
V = low_rank(120, 12, 3)
CONFIG = ("num_workers", "distributed.nanny", "distributed.worker", "distributed.deploy", *executor.QUIET)


def of_process() -> dict[str, Any]:
    """Return the settings that a fit changes, as they are now."""
    blas = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {"blas": blas, "environ": environ, **{key: deepcopy(dask.config.get(key, None)) for key in CONFIG}}


@contextmanager
def two_blas_threads() -> Iterator[None]:
    """Set by a thread that then ends, or threadpoolctl would obey no other."""
    with ThreadPoolExecutor(1) as setter:
        limits = setter.submit(threadpool_limits, 2, "blas").result()
    yield
    with ThreadPoolExecutor(1) as setter:
        setter.submit(limits.restore_original_limits).result()


Place = Callable[[FrameType, str], bool]  # decides on a frame and the kind of a trace event


def at_line(frame: FrameType, kind: str) -> bool:
    return kind == "line"


def where_interrupts_come(frame: FrameType, kind: str) -> bool:
    """Return whether Python may raise an interrupt here, which it does not between a `with` and its block."""
    return kind == "call" or (kind == "line" and frame.f_code.co_name == "held")


def reached(number: int, place: Place, act: Callable[[], Any], call: Callable[[], Any]) -> bool:
    """Call, and act at the n-th place in modules that make settings; return whether there are as many."""
    left = number

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (process_settings.__file__, blas.__file__):
            return None
        left -= place(frame, kind)
        if left < 0:
            sys.settrace(None)
            act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left < 0


def interrupt() -> None:
    raise KeyboardInterrupt


def a_setting() -> tuple[SharedSetting, list[str]]:
    """Return a setting, and what is done to it."""
    done: list[str] = []

    @contextmanager
    def make() -> Iterator[None]:
        done.append("made")
        yield
        done.append("undone")

    return SharedSetting(make), done


@given(st.permutations(range(4)))
def test_the_first_user_makes_a_setting_and_the_last_undoes_it(order: list[int]) -> None:
    setting, done = a_setting()
    users = [setting.held() for _ in order]
    for user in users:
        user.__enter__()
    for number in order[:-1]:
        users[number].__exit__(None, None, None)
        assert done == ["made"]
    users[order[-1]].__exit__(None, None, None)
    assert done == ["made", "undone"]
    with setting.held():
        assert done == ["made", "undone", "made"]


def test_a_setting_that_cannot_be_made_has_no_users() -> None:
    def fail() -> Any:
        raise OSError("no setting")

    setting = SharedSetting(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no setting"), setting.held():
            raise AssertionError("unreachable")


def test_an_interrupt_while_blas_is_limited_leaves_it_as_it_was() -> None:
    held, number = ExitStack(), 0

    def enter() -> None:
        held.enter_context(one_blas_thread())

    with two_blas_threads():
        before = of_process()["blas"]
        while True:
            with held, suppress(KeyboardInterrupt):
                if not reached(number, where_interrupts_come, interrupt, enter):
                    break
            assert of_process()["blas"] == before, f"after the interrupt at place {number}"
            number += 1
        assert of_process()["blas"] == before
    assert number > 5


def test_a_user_that_garbage_collection_ends_takes_the_setting_of_no_other() -> None:
    """Collection may run in the thread that has the lock, before any line."""
    states: list[bool] = []

    def run() -> None:
        line, over = 0, False
        while not over:
            setting, done = a_setting()
            garbage = [setting.held()]
            garbage[0].__enter__()
            user = setting.held()
            over = not reached(line, at_line, garbage.clear, user.__enter__)
            states.append(done[-1] == "made")
            user.__exit__(None, None, None)
            garbage.clear()
            states.append(done[-1] == "undone")
            line += 1

    thread = Thread(target=run, daemon=True)  # which would wait for its own lock for ever
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert all(states)
    assert len(states) > 10


def test_a_forked_process_has_no_users_but_the_thread_that_forked() -> None:
    """That of another thread of the parent would hold the setting for ever."""
    setting, done = a_setting()
    entered, over = Barrier(2), Barrier(2)

    def other() -> None:
        with setting.held():
            entered.wait()
            over.wait()

    def in_child(*expected: str) -> bool:
        child = os.fork()
        if child == 0:
            with setting.held():
                pass
            os._exit(done != list(expected))
        return os.waitpid(child, 0)[1] == 0

    with ThreadPoolExecutor(1) as pool:
        pool.submit(other)
        entered.wait()
        anew = in_child("made", "undone", "made", "undone")
        with setting.held():
            held = in_child("made")
        over.wait()
    assert anew
    assert held
    assert done == ["made", "undone"]


class Read(ReaderDefaults):
    """A V, the read of which waits for what another fit does."""

    shape, dtype = V.shape, V.dtype

    def __init__(self, begun: Event, awaited: Event) -> None:
        self.begun, self.awaited = begun, awaited

    def __getitem__(self, index: tuple[slice, slice]) -> Any:
        self.begun.set()
        assert self.awaited.wait(30)
        return V[index]


def test_passes_that_overlap_leave_the_process_as_it_was() -> None:
    """The one that begins first ends first, so that neither restores what it found."""
    first_begun, second_begun, first_over = Event(), Event(), Event()
    inside = []

    def run(reader: Read) -> Any:
        matrix = Matrix(V.shape, V.dtype, "here", Orientation.ROWS, Layout(*V.shape, 8), reader)
        panels = PanelEngine(matrix, (0, 40, 80, 120), prefetch=True)
        return panels.run_pass(np.ones((3, 12)), PassSpec(HALS().solve_w, HALS())).num

    def first() -> Any:
        num = run(Read(first_begun, second_begun))
        inside.append(of_process())
        first_over.set()
        return num

    def second() -> Any:
        assert first_begun.wait(30)
        return run(Read(second_begun, first_over))

    with two_blas_threads(), dask.config.set(num_workers=2), ThreadPoolExecutor(2) as pool:
        before = of_process()
        assert set(before["blas"].values()) == {2}
        one, other = (pool.submit(each) for each in (first, second))
        np.testing.assert_array_equal(one.result(60), other.result(60))
        assert set(inside[0]["blas"].values()) == {1}  # the second is at work
        assert inside[0]["num_workers"] == 3
        assert of_process() == before


def test_a_late_task_of_a_fit_leaves_blas_as_it_was() -> None:
    """One that a fit gave up, in the process that it was given up by."""
    reader = Read(Event(), Event())
    reader.awaited.set()
    matrix = Matrix(V.shape, V.dtype, "here", Orientation.ROWS, Layout(*V.shape, 8), reader)
    given = delayed(PassInputs(np.ones((3, 12)), (0, 120)), traverse=False)
    total = PanelTasks(open_panels(matrix, (0, 120))).reduce(
        passes.sweep(PassSpec(HALS().solve_w, HALS())), given
    )
    with two_blas_threads():
        before = of_process()
        total.compute(scheduler="threads")
        assert of_process() == before


def test_blas_is_restored_by_another_thread_than_set_it() -> None:
    with two_blas_threads(), ThreadPoolExecutor(1) as pool:
        held = one_blas_thread()
        pool.submit(held.__enter__).result()
        assert set(of_process()["blas"].values()) == {1}
        held.__exit__(None, None, None)  # while the thread of the pool lives
        assert set(of_process()["blas"].values()) == {2}


def test_local_clusters_leave_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nannies set variables of this process, which those that are started later would inherit."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    before = of_process()
    with local.local_cluster(1, 1, None) as client:
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["MALLOC_TRIM_THRESHOLD_"] == worker_settings.GIB
        there = client.run(lambda: (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]))
        assert list(there.values()) == [("1", "2")]
    assert of_process() == before
