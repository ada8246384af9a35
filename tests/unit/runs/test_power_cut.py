"""The power is cut at any moment: the run is there, its last answer is, and the same call goes on.

The data that a root names are never found but whole. So what is found of a run after a power cut is one of
few states, one for each root, and what no root names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import dask
import pytest
import zarr
from support.cuts import cut_both_ways
from support.disks import Disk, State, recorded, write
from support.matrices import low_rank

from dask_nmf import Run, nmf
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.runs.record.contents import current_folders
from dask_nmf.storage.locations import locate, locate_file

V = low_rank(12, 7, 2, noise=1)
OPTIONS: dict[str, Any] = {"n_components": 2, "max_iter": 2, "tol": 0, "random_state": 7}
LITTER = 150  # of so many states with what no root names one is gone on with
Bits = tuple[bytes, bytes]

pytestmark = pytest.mark.usefixtures("several_panels")


def fit(store: Path, V: Any = V, **options: Any) -> Bits:
    with dask.config.set(scheduler="synchronous"):
        result = nmf(V, **{**OPTIONS, **options}, store=store)
        W, H = dask.compute(result.W, result.H)
    return W.tobytes(), H.tobytes()


def answer(store: Path) -> Bits | None:
    """W and H of a run, of which `info` must tell; None where there is no run, or no answer."""
    if not locate(store).exists():
        return None
    run = Run.load(store)
    assert run.summary()["state"] in ("finished", "stopped", "unfinished")
    if run.result is None:
        return None
    shown = zarr.open_consolidated(str(store), mode="r")
    W, H = (run.result.read(name).tobytes() for name in "WH")
    assert [shown[name][:].tobytes() for name in "WH"] == [W, H]  # type: ignore[index]
    return W, H


def essence(state: State) -> tuple[bytes | None, frozenset[Any]]:
    """A root that is found, and the data that it names; the answer as it is shown, if there is one."""
    root = state.get("run/zarr.json")
    if not root:
        return root, frozenset(state.items())
    told = json.loads(root)["attributes"]["dask_nmf"]
    folders = [f"run/data/{folder}/" for folder in current_folders(told)]
    if told["result"]:
        mark = "/c/" if told["encoding"] == 0 else "/c."
        folders += [f"run/{name}{mark}" for name in ("H", "W", "error_history", "seconds_history")]
    return root, frozenset((name, data) for name, data in state.items() if name.startswith(tuple(folders)))


def check_all(disk: Disk, again: Callable[[Path], Bits], whole: Bits, old: Bits | None = None) -> None:
    """Check every state that a power cut may leave: what is read of it, and how the same call goes on."""
    states = disk.root.parent / "states"
    found = {essence(state): state for state in reversed(disk.states)}  # the first of each
    states.mkdir()
    roots = [root for root, _ in found if root]
    assert len(set(roots)) == len(roots) > 2  # a root is found with what it names, in every state
    for number, state in enumerate([*found.values(), *disk.states[::LITTER]]):
        place = write(state, states / str(number)) / "run"
        assert answer(place) in (old, whole)
        assert again(place) == whole
        assert answer(place) == whole
        assert tuple(zarr.open_array(place, path=name, mode="r")[:].tobytes() for name in "WH") == whole
    for number, state in enumerate(disk.left()):
        assert answer(write(state, states / f"end-{number}") / "run") == whole


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The folder that is recorded."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_in_a_fit_from_its_beginning_to_its_end(solver: str, disk: Path) -> None:
    whole = fit(disk.parent / "whole", solver=solver)
    with recorded(disk) as changes:
        assert fit(disk / "run", solver=solver) == whole
    check_all(changes, lambda place: fit(place, solver=solver), whole)


@pytest.mark.real
def test_in_a_fit_of_a_matrix_that_is_cut_both_ways(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_both_ways(monkeypatch, (0, 4, 8, 12), (0, 4, 7), 1)
    v = zarr.create_array(disk.parent / "v", data=V, chunks=(4, 4))
    whole = fit(disk.parent / "whole", v)
    with recorded(disk) as changes:
        assert fit(disk / "run", v) == whole
    check_all(changes, lambda place: fit(place, v), whole)


@pytest.mark.parametrize(
    "before", [{"n_components": 3}, {"time_limit": 0, "solver": "mu"}], ids=["other", "stopped"]
)
def test_in_a_fit_while_an_earlier_answer_is_there(before: dict[str, Any], disk: Path) -> None:
    asked = {"solver": "mu", "overwrite": "n_components" in before}
    whole, old = fit(disk.parent / "whole", solver="mu"), fit(disk / "run", **before)
    with recorded(disk) as changes:
        assert fit(disk / "run", **asked) == whole
    check_all(changes, lambda place: fit(place, **asked), whole, old)


def alone(matrix: Any) -> AbstractContextManager[None]:
    """No cluster is needed."""
    return nullcontext()


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("maker", ["transform", "predict"])
def test_while_an_output_is_put_in_its_place(maker: str, replaced: bool, disk: Path, tmp_path: Path) -> None:
    fit(tmp_path / "run")
    (tmp_path / "cells.csv").write_text("row,column\n0,0\n11,6\n")
    zarr.create_array(tmp_path / "v", data=V)
    run, v, cells = str(tmp_path / "run"), str(tmp_path / "v"), str(tmp_path / "cells.csv")

    def make(out: Path) -> bytes | None:
        if maker == "transform":
            transform_to(locate(run), v, locate(out), True, alone)
        else:
            predict_to(locate(run), Path(cells), locate_file(out), True)
        return read(out)

    def read(out: Path) -> bytes | None:
        if not out.exists():
            return None
        return zarr.open_group(out, mode="r")["W"][:].tobytes() if out.is_dir() else out.read_bytes()  # type: ignore[index]

    old = make(disk / "out") if replaced else None
    fit(tmp_path / "run", n_components=3, overwrite=True)
    whole = make(tmp_path / "whole")
    assert whole not in (old, None)
    with recorded(disk) as changes:
        make(disk / "out")
    (tmp_path / "states").mkdir()
    for number, state in enumerate([*changes.states, *changes.left()]):
        place = write(state, tmp_path / "states" / str(number)) / "out"
        assert read(place) in ((old, whole) if number < len(changes.states) else (whole,))
        assert number % 10 or make(place) == whole
