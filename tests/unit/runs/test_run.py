"""A run on disk: committed pass by pass, resumed bit for bit, never half an answer."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray
import zarr
from support.matrices import Array, low_rank
from support.runs import OPTIONS, Crash, assert_same_bits, crash_after, files
from zarr.storage import LocalStore

from dask_nmf import Result, Run, nmf
from dask_nmf.errors import InvalidRunError, RunLocked, RunMismatch
from dask_nmf.runs.run import KEY
from dask_nmf.settings import SOLVERS
from dask_nmf.storage.arrays import links
from dask_nmf.storage.locations import locate

SHAPES = {"tall": (40, 15), "wide": (15, 40)}

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
solvers = pytest.mark.parametrize("solver", SOLVERS)


def fit(shape: tuple[int, int], store: Path, **options: Any) -> Result:
    return nmf(low_rank(*shape, 3), **{**OPTIONS, "store": store, **options})


@contextmanager
def photographed(path: Path, album: Path) -> Iterator[list[Path]]:
    """Copies of what is at a path before each change that is made to it."""
    copies: list[Path] = []

    def copy(root: Path) -> None:
        if path.exists() and (root == path or path in root.parents):
            copies.append(Path(shutil.copytree(path, album / f"{len(copies)}.zarr")))

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(self: LocalStore, *args: Any) -> None:
            copy(Path(self.root))
            await change(self, *args)

        return changed

    def before_name(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*args: Any) -> None:
            copy(next(arg for arg in args if isinstance(arg, Path)))
            change(*args)

        return changed

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        for name in ("set", "delete", "delete_dir"):
            patch.setattr(LocalStore, name, before(getattr(LocalStore, name)))
        for name in ("replace", "link_or_copy"):
            patch.setattr(links, name, before_name(getattr(links, name)))
        yield copies


def answer_seen(path: Path) -> tuple[bytes, bytes] | None:
    """H and W as a reader of the run finds them, if they are listed."""
    listed = json.loads((path / "zarr.json").read_text()).get("consolidated_metadata") or {"metadata": {}}
    if not {"H", "W"} <= set(listed["metadata"]):
        return None
    group = zarr.open_consolidated(str(path), mode="r")
    return group["H"][:].tobytes(), group["W"][:].tobytes()


Commit = tuple[int, bytes, tuple[float, ...]]


def commits_of(shape: tuple[int, int], store: Path, **options: Any) -> tuple[Result, set[Commit]]:
    """A fit, and what it commits: the number of each pass, H (W of a wide V), and the losses so far."""
    made: set[Commit] = set()
    losses: list[float] = []

    def note(step: Any) -> None:
        losses.append(step.loss)
        factor = step.state.h if shape[0] > shape[1] else step.state.h.T
        made.add((step.number, np.ascontiguousarray(factor).tobytes(), tuple(losses)))

    return fit(shape, store, callback=note, **options), made


def commit_seen(path: Path) -> Commit | None:
    """What a run that is not answered lists, as xarray reads it."""
    group = zarr.open_consolidated(str(path), mode="r")
    record: dict[str, Any] = group.attrs[KEY]  # type: ignore[assignment]
    if record["answer"] or record["pass"] is None:
        return None
    shown = dict(group.arrays())
    (factor,) = (shown.pop(name) for name in "HW" if name in shown)
    assert set(shown) == {"error_history", "seconds_history"}
    return record["pass"], factor[:].tobytes(), tuple(shown["error_history"][:].tolist())


@pytest.mark.parametrize(
    ("init", "shape"),
    [
        ("sample", SHAPES["tall"]),
        ("random", SHAPES["wide"]),
        ("nndsvdar", SHAPES["tall"]),
        ("custom", SHAPES["tall"]),
        ("custom", SHAPES["wide"]),
    ],
)
@solvers
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
    run, album = tmp_path / "run.zarr", tmp_path / "album"
    with photographed(tmp_path / "again.zarr", album / "whole") as moments:
        fit(shape, tmp_path / "again.zarr", solver=solver, max_iter=3)
    there = [moment for moment in moments if (moment / "zarr.json").exists()]
    shown = {commit_seen(moment) for moment in there if "consolidated" in (moment / "zarr.json").read_text()}
    assert {commit for commit in shown if commit is not None and commit[0] > 0} == made
    assert sum(commit is not None and commit[0] == 0 for commit in shown) == 1
    with photographed(run, album / "first") as first:
        short = fit(shape, run, solver=solver, max_iter=3, time_limit=0)
    early, late = (tuple(x.compute().tobytes() for x in (found.H, found.W)) for found in (short, whole))
    assert {answer_seen(moment) for moment in there} == {None, late}
    with photographed(run, album / "second") as second:
        fit(shape, run, solver=solver, max_iter=3)
    assert {answer_seen(moment) for moment in second} == {early, late}
    for number, moment in enumerate((first + second)[1::11]):
        before = answer_seen(moment) if (moment / "zarr.json").exists() else None
        with photographed(moment, album / f"resumed {number}") as later:
            resumed = fit(shape, moment, solver=solver, max_iter=3)
        assert_same_bits(resumed, whole)
        assert {answer_seen(moment) for moment in later} <= {before, late}


@shapes
@solvers
def test_finished_run_called_again_does_nothing(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    once = fit(shape, tmp_path / "run.zarr", solver=solver)
    before = files(tmp_path)
    again = fit(shape, tmp_path / "run.zarr", solver=solver, callback=crash_after(1))
    assert_same_bits(again, once)
    assert files(tmp_path) == before
    assert not list(tmp_path.glob("*.lock"))


@shapes
@solvers
def test_run_stopped_by_the_time_limit_goes_on(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    whole = fit(shape, tmp_path / "whole.zarr", solver=solver)
    short = fit(shape, tmp_path / "run.zarr", solver=solver, time_limit=0)
    assert "time limit" in short.outcome
    assert short.n_iter == 1
    assert_same_bits(fit(shape, tmp_path / "run.zarr", solver=solver), whole)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"n_components": 2}, "n_components is 2, the run has 3"),
        ({"random_state": 8}, "random_state is 8"),
        ({"solver": "mu"}, "solver is 'mu'"),
        ({"max_iter": 5}, "max_iter is 5"),
        ({"dtype": "float32"}, "dtype is 'float32', the run has 'float64'"),
        ({"init": "custom", "H": np.ones((3, 15))}, "init is 'custom'.*H is"),
    ],
)
def test_run_of_other_settings_is_refused_and_may_be_overwritten(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    fit((40, 15), path, max_iter=2)
    before = files(path)
    with pytest.raises(RunMismatch, match=named):
        fit((40, 15), path, **{"max_iter": 2, **changed})
    assert files(path) == before
    replaced = fit((40, 15), path, overwrite=True, **{"max_iter": 2, **changed})
    assert_same_bits(replaced, fit((40, 15), tmp_path / "other.zarr", **{"max_iter": 2, **changed}))


@pytest.mark.parametrize(
    ("v", "named"),
    [
        (low_rank(40, 15, 3, seed=1), "V is not the same in rows 0 to 39;"),
        (low_rank(41, 15, 3), r"shape is \[41, 15\], the run has \[40, 15\]"),
        (low_rank(40, 15, 3).astype(np.float32), "dtype"),
    ],
)
def test_run_of_other_data_is_refused(v: Array, named: str, tmp_path: Path) -> None:
    fit((40, 15), tmp_path / "run.zarr")
    with pytest.raises(RunMismatch, match=named):
        nmf(v, store=tmp_path / "run.zarr", **OPTIONS)


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("precious")


def a_file(path: Path) -> None:
    path.write_text("precious")


def an_array(path: Path) -> None:
    zarr.create_array(str(path), shape=(3,), dtype="f4")[...] = 1


def a_group(path: Path) -> None:
    zarr.create_group(str(path), attributes={"mine": 1})


def a_newer_run(path: Path) -> None:
    zarr.create_group(str(path), attributes={KEY: {"format": 999, "version": "9.9"}})


@pytest.mark.parametrize(
    "make",
    [
        a_folder,
        a_file,
        an_array,
        a_group,
        a_newer_run,
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_run_is_never_touched(
    make: Callable[[Path], None], overwrite: bool, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    make(path)
    before = path.read_bytes() if path.is_file() else files(path)
    with pytest.raises(InvalidRunError, match=r"run\.zarr"):
        fit((40, 15), path, overwrite=overwrite)
    assert (path.read_bytes() if path.is_file() else files(path)) == before


@pytest.mark.parametrize(("number", "version"), [(999, "9.9"), (0, "0.0.1")])
def test_a_newer_or_older_format_is_named(number: int, version: str, tmp_path: Path) -> None:
    path = str(tmp_path / "run.zarr")
    zarr.create_group(path, attributes={KEY: {"format": number, "version": version}})
    with pytest.raises(
        InvalidRunError, match=f"format {number}, made by version {version}.*use that version"
    ):
        Run.load(path)


def test_no_run_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no run"):
        Run.load(str(tmp_path / "run.zarr"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        fit((40, 15), tmp_path / "nowhere" / "run.zarr")


@shapes
@solvers
def test_xarray_shows_the_run(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    result = fit(shape, tmp_path / "run.zarr", solver=solver)
    seen = xarray.open_zarr(tmp_path / "run.zarr")
    assert set(seen) == {"H", "W", "error_history", "seconds_history"}
    assert dict(seen.sizes) == {"component": 3, "row": shape[0], "column": shape[1], "pass": 4}
    assert seen.W.dims == ("row", "component")
    assert seen.H.dims == ("component", "column")
    np.testing.assert_array_equal(seen.error_history, result.error_history)
    np.testing.assert_array_equal(seen.W, result.W)
    np.testing.assert_array_equal(seen.H, result.H)
    assert seen.attrs[KEY]["outcome"] == result.outcome


def test_run_is_plain_json_and_arrays(tmp_path: Path) -> None:
    fit((40, 15), tmp_path / "run.zarr")
    record = json.loads((tmp_path / "run.zarr" / "zarr.json").read_text())["attributes"][KEY]
    assert (record["format"], record["pass"], record["finished"]) == (5, 4, True)
    assert record["settings"]["n_components"] == 3
    assert record["matrix"]["shape"] == [40, 15]


def test_of_a_fit_with_a_fixed_factor_no_factor_is_shown_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", lambda *_: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        fit((40, 15), tmp_path / "run.zarr", fixed_H=np.ones((3, 15)))
    assert set(xarray.open_zarr(tmp_path / "run.zarr")) == {"error_history", "seconds_history"}


def test_a_finished_run_holds_the_answer_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    fit((15, 40), path)
    files = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
    arrays = {
        "error_history": ["0"],
        "seconds_history": ["0"],
        "W": ["0/0"],
        "H": [f"0/{i}" for i in range(4)],
    }
    data = {
        "/".join((file.parts[1].split("-")[0], *file.parts[2:])) for file in files if file.parts[0] == "data"
    }
    assert data == {
        *(f"answer/{name}/c/{chunk}" for name, chunks in arrays.items() for chunk in chunks),
        *(f"layout/{name}/c/0" for name in ("edges", "V")),
    }
    turn = Run.load(str(path)).record["turn"]
    named = {
        f"{name}/{'.'.join(('c', *chunk.split('/'))) if turn else f'c/{chunk}'}"
        for name, chunks in arrays.items()
        for chunk in chunks
    }
    shown = {str(file) for file in files if file.parts[0] != "data"}
    assert shown >= {"zarr.json", *(f"{name}/zarr.json" for name in arrays), *named}
    assert all((path / name).stat().st_nlink == 2 for name in named)


@shapes
@solvers
def test_half_an_answer_is_not_seen(
    solver: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            fit(shape, path, solver=solver)
    with xarray.open_zarr(path) as seen:
        side, axis = ("H", "column") if shape[0] > shape[1] else ("W", "row")
        assert set(seen) == {side, "error_history", "seconds_history"}
        assert dict(seen.sizes) == {"component": 3, axis: min(shape), "pass": 4}
        assert (seen[side].values >= 0).all()
    assert Run.load(str(path)).answer is None
    fit(shape, path, solver=solver)
    assert {"H", "W"} <= set(xarray.open_zarr(path))


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with locate(path).lock(), pytest.raises(RunLocked, match=r"run\.zarr"):
        fit((40, 15), path)
    fit((40, 15), path)


def test_a_run_is_locked_while_it_is_fitted(tmp_path: Path) -> None:
    def second(_: Any) -> None:
        with pytest.raises(RunLocked):
            fit((40, 15), tmp_path / "run.zarr")

    fit((40, 15), tmp_path / "run.zarr", callback=second)


@pytest.mark.parametrize("begun", [False, True])
def test_a_fit_that_lost_its_lease_commits_no_more(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    path = tmp_path / "run.zarr"
    if begun:
        fit((40, 15), path, time_limit=0)
    left: list[bytes] = []

    def taken_over(step: Any) -> None:
        if step.number == 2:
            (tmp_path / "run.zarr.lock").write_text(json.dumps({"owner": "another", "expires": 0}))
            left.append((path / "zarr.json").read_bytes())

    with pytest.raises(RunLocked, match="has taken over"):
        fit((40, 15), path, callback=taken_over)
    assert [(path / "zarr.json").read_bytes()] == left


def test_a_finished_run_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit((40, 15), tmp_path / "run.zarr")
    (tmp_path / "run.zarr").chmod(0o500)
    if os.geteuid() == 0:  # who may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert Run.load(str(tmp_path / "run.zarr")).record["finished"]


def test_w_has_the_chunks_of_the_panels(tmp_path: Path) -> None:
    result = fit((40, 15), tmp_path / "run.zarr")
    assert result.W.numblocks[0] > 1
    assert result.W.numblocks[1] == 1


def test_an_empty_folder_is_a_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").mkdir()
    v = np.random.default_rng(0).random((20, 6))
    assert nmf(v, 2, max_iter=2, store=tmp_path / "run.zarr").W.shape == (20, 2)
    nmf(v, 3, max_iter=2, store=tmp_path / "run.zarr", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run.zarr"}


def test_a_carried_w_survives_a_scheduler_of_processes() -> None:
    v = np.random.default_rng(0).random((20, 6))
    here = nmf(v, 2, solver="mu", max_iter=3)
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,  # or every pass would start its own
        dask.config.set(scheduler="processes", pool=pool),
    ):
        there = nmf(v, 2, solver="mu", max_iter=3)
        assert there.relative_error == pytest.approx(here.relative_error, rel=1e-9)
