"""A run on disk: committed pass by pass, resumed bit for bit, never half an answer."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from support.runs import SHAPES, Crash, assert_same_bits, crash_after, files, fit, in_turns
from zarr.core.buffer.cpu import Buffer
from zarr.storage import LocalStore, MemoryStore

from dask_nmf import Result, nmf
from dask_nmf.options.algorithms import SOLVERS
from dask_nmf.runs.commits import KEY
from dask_nmf.storage.arrays import places

pytestmark = pytest.mark.usefixtures("several_panels")


Moment = dict[str, bytes]  # the content of each file of a run


def files_of(run: Path) -> Moment:
    return {
        os.path.relpath(os.path.join(folder, name), run): Path(folder, name).read_bytes()
        for folder, _, names in os.walk(run)
        for name in names
    }


def write_files(moment: Moment, run: Path) -> Path:
    for name, content in moment.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    return run


@contextmanager
def photographed(path: Path) -> Iterator[list[Moment]]:
    """What is at a path before each change that is made to it."""
    moments: list[Moment] = []

    def look(root: Path) -> None:
        if path.exists() and (root == path or path in root.parents):
            moments.append(files_of(path))

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(self: LocalStore, *args: Any) -> None:
            look(Path(self.root))
            await change(self, *args)

        return changed

    def before_name(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any) -> Any:
            look(args[0])
            return change(*args)

        return changed

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        for name in ("set", "delete", "delete_dir"):
            patch.setattr(LocalStore, name, before(getattr(LocalStore, name)))
        for name in ("_delete_file", "_delete_folder", "link_or_copy"):
            patch.setattr(places, name, before_name(getattr(places, name)))
        patch.setattr(Path, "replace", before_name(Path.replace))
        yield moments


def opened(moment: Moment) -> zarr.Group:
    """The run as xarray reads it."""
    stored = {name: Buffer.from_bytes(content) for name, content in moment.items()}
    return zarr.open_consolidated(MemoryStore(stored), mode="r")


def answers_seen(moments: list[Moment]) -> set[tuple[bytes, bytes] | None]:
    """H and W as a reader of the run finds them at each moment; None where they are not listed."""
    return {answer_seen(moment) for moment in distinct(moments)}


def distinct(moments: list[Moment]) -> list[Moment]:
    """The moments in which readers see something else; they do not look into ``data``."""
    shown = [
        {name: text for name, text in moment.items() if not name.startswith("data/")} for moment in moments
    ]
    return list({tuple(sorted(moment.items())): moment for moment in shown}.values())


def answer_seen(moment: Moment) -> tuple[bytes, bytes] | None:
    listed = json.loads(moment["zarr.json"]).get("consolidated_metadata") or {"metadata": {}}
    if not {"H", "W"} <= set(listed["metadata"]):
        return None
    group = opened(moment)
    return group["H"][:].tobytes(), group["W"][:].tobytes()


Commit = tuple[int, bytes, tuple[float, ...]]


def commits_of(shape: tuple[int, int], store: Path, **options: Any) -> tuple[Result, set[Commit]]:
    """A fit, and what it commits: the number of each pass, H (W of a wide V), and the losses so far."""
    made: set[Commit] = set()
    losses: list[float] = []

    def note(step: Any) -> None:
        losses.append(step.relative_error)
        factor = step.state.h if shape[0] > shape[1] else step.state.h.T
        made.add((step.number, np.ascontiguousarray(factor).tobytes(), tuple(losses)))

    return fit(shape, store, callback=note, **options), made


def commit_seen(moment: Moment) -> Commit | None:
    """What a run that is not answered lists."""
    group = opened(moment)
    record: dict[str, Any] = group.attrs[KEY]  # type: ignore[assignment]
    if record["result"] or record["pass"] is None:
        return None
    shown = dict(group.arrays())
    (factor,) = (shown.pop(name) for name in "HW" if name in shown)
    assert set(shown) == {"error_history", "seconds_history"}
    return record["pass"], factor[:].tobytes(), tuple(shown["error_history"][:].tolist())


BEGUN = [
    ("sample", SHAPES["tall"]),
    ("custom", SHAPES["wide"]),
    ("random", SHAPES["wide"]),
    ("nndsvdar", SHAPES["tall"]),
    ("custom", SHAPES["tall"]),
]


@pytest.mark.parametrize(
    ("solver", "init", "shape"),
    [(solver, *begun) for solver in SOLVERS for begun in BEGUN[: 5 if solver == "hals" else 3]],
)
def test_resumed_run_gives_the_same_bits(
    solver: str, shape: tuple[int, int], init: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    start = {"W": random.random((shape[0], 3)), "H": random.random((3, shape[1]))} if init == "custom" else {}
    asked = {"solver": solver, "init": init, **start}
    whole = fit(shape, tmp_path / "whole.zarr", **asked)
    for number in (1, 2, 4):
        with pytest.raises(Crash):
            fit(shape, tmp_path / "run.zarr", callback=crash_after(number), **asked)
    again = fit(shape, tmp_path / "run.zarr", **asked)
    assert_same_bits(again, whole)


@pytest.mark.parametrize(("solver", "shape"), [("hals", (40, 15)), ("mu", (15, 40))])
def test_every_moment_of_a_run_can_be_read_and_resumed(
    solver: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    whole, made = commits_of(shape, tmp_path / "whole.zarr", solver=solver, max_iter=3)
    run = tmp_path / "run.zarr"
    with photographed(tmp_path / "again.zarr") as moments:
        fit(shape, tmp_path / "again.zarr", solver=solver, max_iter=3)
    there = [moment for moment in moments if "zarr.json" in moment]
    shown = {commit_seen(moment) for moment in distinct(there) if b"consolidated" in moment["zarr.json"]}
    assert {commit for commit in shown if commit is not None and commit[0] > 0} == made
    assert sum(commit is not None and commit[0] == 0 for commit in shown) == 1
    with photographed(run) as first:
        short = fit(shape, run, solver=solver, max_iter=3, time_limit=0)
    early, late = (tuple(x.compute().tobytes() for x in (found.H, found.W)) for found in (short, whole))
    assert answers_seen(there) == {None, late}
    with photographed(run) as second:
        fit(shape, run, solver=solver, max_iter=3)
    assert answers_seen(second) == {early, late}
    for number, moment in enumerate((first + second)[1::23]):
        before = answer_seen(moment) if "zarr.json" in moment else None
        copy = write_files(moment, tmp_path / f"{number}.zarr")
        with photographed(copy) as later:
            resumed = fit(shape, copy, solver=solver, max_iter=3)
        assert_same_bits(resumed, whole)
        assert answers_seen(later) <= {before, late}


@in_turns
def test_finished_run_called_again_does_nothing(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    once = fit(shape, tmp_path / "run.zarr", solver=solver)
    before = files(tmp_path)
    again = fit(shape, tmp_path / "run.zarr", solver=solver, callback=crash_after(1))
    assert_same_bits(again, once)
    assert files(tmp_path) == before
    assert not list(tmp_path.glob("*.lock"))


@in_turns
def test_run_stopped_by_the_time_limit_goes_on(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    whole = fit(shape, tmp_path / "whole.zarr", solver=solver)
    short = fit(shape, tmp_path / "run.zarr", solver=solver, time_limit=0)
    assert "time limit" in short.message
    assert short.n_iter == 1
    assert_same_bits(fit(shape, tmp_path / "run.zarr", solver=solver), whole)


def test_a_carried_w_survives_a_scheduler_of_processes() -> None:
    v = np.random.default_rng(0).random((20, 6))
    here = nmf(v, 2, solver="mu", max_iter=3)
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,  # or every pass would start its own
        dask.config.set(scheduler="processes", pool=pool),
    ):
        there = nmf(v, 2, solver="mu", max_iter=3)
        assert there.relative_error == pytest.approx(here.relative_error, rel=1e-9)
