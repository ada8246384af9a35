"""What is no run, or another fit's, or is being worked on, is refused and left as it is."""

import errno
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.matrices import Array, low_rank
from support.runs import OPTIONS, assert_same_bits, files, fit

from dask_nmf import Run, nmf
from dask_nmf.errors import InvalidRunError, RunLocked, RunMismatch
from dask_nmf.runs.commits import KEY
from dask_nmf.storage.locations import locate

pytestmark = pytest.mark.usefixtures("several_panels")


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
        Run.load(tmp_path / "run.zarr")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        fit((40, 15), tmp_path / "nowhere" / "run.zarr")


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


def test_an_empty_folder_is_a_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").mkdir()
    v = np.random.default_rng(0).random((20, 6))
    assert nmf(v, 2, max_iter=2, store=tmp_path / "run.zarr").W.shape == (20, 2)
    nmf(v, 3, max_iter=2, store=tmp_path / "run.zarr", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run.zarr"}
