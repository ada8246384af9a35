"""The seconds that tasks of a fit spend, by what they do, and the memory of processes."""

import os
import signal
from pathlib import Path

import pytest
import zarr
from support.matrices import low_rank

from dask_nmf import Run, nmf
from dask_nmf.errors import InvalidRunError
from dask_nmf.execution.tasks import stopwatch
from dask_nmf.execution.work import work_of
from dask_nmf.runs.record.work import idle_seconds, total_work


def test_parts_of_a_task_are_counted_for_its_fit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    with stopwatch.spending("read"):
        pass  # no task of a fit
    with (
        stopwatch.of_fit("one"),
        stopwatch.spending("read"),
        stopwatch.of_fit("other"),
        stopwatch.spending("solve"),
    ):
        pass
    one, other = stopwatch.take("one"), stopwatch.take("other")
    assert [one[part] for part in stopwatch.PARTS] == [3, 0, 0, 0, 0]
    assert [other[part] for part in stopwatch.PARTS] == [0, 0, 1, 0, 0]
    assert one["elapsed"] == 4
    assert sum(stopwatch.take("one")[part] for part in stopwatch.PARTS) == 0


def test_a_process_forgets_fits_that_took_nothing() -> None:
    for number in range(2 * stopwatch.MOST_FITS):
        with stopwatch.of_fit(f"killed {number}"), stopwatch.spending("read"):
            pass
    assert len(stopwatch._spent) <= stopwatch.MOST_FITS


def test_a_forked_process_counts_while_a_thread_of_its_parent_does() -> None:
    with stopwatch.of_fit("parent"), stopwatch.spending("read"):
        pass
    with stopwatch._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a process that waits for the lock
            seconds = stopwatch.take("parent")
            os._exit(any(seconds[part] for part in stopwatch.PARTS))
    assert os.waitpid(child, 0)[1] == 0
    assert stopwatch.take("parent")["read"] > 0


def test_a_run_has_the_work_of_its_fit(tmp_path: Path) -> None:
    nmf(low_rank(60, 20, 3), 3, max_iter=3, tol=0, store=tmp_path / "run.zarr")
    work = Run.load_result(tmp_path / "run.zarr").record["work"]
    (worker,) = work["workers"]
    assert worker["multiply"] > 0
    assert worker["solve"] > 0
    assert worker["sums"] > 0
    assert 0 <= idle_seconds(worker) <= worker["threads"] * worker["elapsed"]
    total = Run.load(tmp_path / "run.zarr").summary()["work"]
    assert total == total_work(work)
    assert 0 < total["worker_peak_bytes"] <= work_of("no fit")["client_bytes"]
    assert work["planned_bytes"] > 0


def test_a_run_that_counted_products_with_other_parts_is_opened(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    nmf(low_rank(60, 20, 3), 3, max_iter=1, store=place)
    group = zarr.open_group(place)
    record = group.attrs["dask_nmf"]
    del record["result"]["work"]["workers"][0]["multiply"]
    group.attrs["dask_nmf"] = record
    work = Run.load_result(place).record["work"]
    assert total_work(work)["multiply_seconds"] == 0
    assert idle_seconds(work["workers"][0]) >= 0
    del record["result"]["work"]["workers"][0]["solve"]
    group.attrs["dask_nmf"] = record
    with pytest.raises(InvalidRunError):
        Run.load(place)
