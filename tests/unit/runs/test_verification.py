"""Whether it is the same V: a run goes on with the same content wherever it is, and never with another."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.command import Forks
from support.cuts import cut_both_ways
from support.matrices import SOURCES, Array, sparse
from support.runs import Crash, assert_same_bits, files
from support.verification import V, changed, dense, fit

from dask_nmf.errors import InvalidEntryError, RunMismatch
from dask_nmf.sources.registry import open_matrix

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.mark.parametrize(
    ("kind", "shape"), [(kind, ((30, 20), (20, 30))[number % 2]) for number, kind in enumerate(SOURCES)]
)
def test_one_entry_of_any_kind_of_v_that_changes_is_named(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    v, make = sparse(*shape) + 0.1, SOURCES[kind]
    source = make(v, tmp_path / "v")
    place, _ = open_matrix(source).orientation.turn(("row 11", "column 7"))
    first = fit(source, tmp_path, max_iter=1)
    assert_same_bits(fit(make(v, tmp_path / "same"), tmp_path, max_iter=1), first)
    with pytest.raises(RunMismatch, match=f"holds another fit: V is not the same in {place}; .*--overwrite"):
        fit(make(changed(v), tmp_path / "other"), tmp_path, max_iter=1)


def test_rows_that_are_written_anew_in_place_end_the_command(
    tmp_path: Path, forks: Forks, scheduler: str
) -> None:
    """A finished run of 37,500 rows, of which 35,900 change but for the first, the middle and the last."""
    v = np.random.default_rng(0).random((37_500, 4), dtype=np.float32)
    dense(v, tmp_path / "v.zarr", chunks=(1000, 4))
    command = ["fit", "v.zarr", "-k", "2", "--max-iter", "1", "-o", "run.zarr"]
    shared = {"DASK_SCHEDULER_ADDRESS": scheduler}
    assert forks.call(command, tmp_path, **shared).returncode == 0
    assert "finished already" in forks.call(command, tmp_path, **shared).stderr
    rows = np.setdiff1d(np.arange(1000, 36_901), [18_750])
    v[rows] += 1
    zarr.open_array(str(tmp_path / "v.zarr"), mode="r+")[...] = v
    before = files(tmp_path / "run.zarr")
    done = forks.call(command, tmp_path, **shared)
    assert done.returncode == 2
    assert "V is not the same in rows 1000 to 18749, 18751 to 36900;" in done.stderr
    assert files(tmp_path / "run.zarr") == before
    assert forks.call([*command, "--overwrite"], tmp_path, **shared).returncode == 0


@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
def test_a_chunk_that_changes_while_the_fit_is_under_way_is_noticed_when_it_goes_on(
    solver: str, tmp_path: Path
) -> None:
    path = dense(V, tmp_path / "v.zarr")

    def change(step: Any) -> None:
        zarr.open_array(path, mode="r+")[15, 3] = 9
        raise Crash

    with suppress(Crash):
        fit(path, tmp_path, solver=solver, callback=change)
    with pytest.raises(RunMismatch, match="V is not the same in row 15;"):
        fit(path, tmp_path, solver=solver)


def test_rows_that_are_appended_are_another_shape(tmp_path: Path) -> None:
    path = dense(V, tmp_path / "v.zarr")
    fit(path, tmp_path)
    zarr.open_array(path, mode="r+").append(V[:7])
    with pytest.raises(RunMismatch, match=r"shape is \[37, 20\], the run has \[30, 20\]"):
        fit(path, tmp_path)


@pytest.mark.parametrize("as_path", [True, False])
def test_weights_that_change_are_noticed(as_path: bool, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random(V.shape)

    def given(name: str, of: Array) -> Any:
        return dense(of, tmp_path / name) if as_path else of

    first = fit(V, tmp_path, weights=given("weights", weights))
    assert_same_bits(fit(V, tmp_path, weights=given("same", weights)), first)
    with pytest.raises(RunMismatch, match="weights is not the same in row 11;"):
        fit(V, tmp_path, weights=given("other", changed(weights)))
    with pytest.raises(RunMismatch, match="weights is None"):
        fit(V, tmp_path)


@pytest.mark.parametrize(
    ("name", "as_path"), [("W", True), ("H", False), ("fixed_W", False), ("fixed_H", True)]
)
def test_a_factor_that_changes_is_noticed(name: str, as_path: bool, tmp_path: Path) -> None:
    factor = np.random.default_rng(0).random((30, 3) if name.endswith("W") else (3, 20))
    asked = {} if name.startswith("fixed") else {"init": "custom"}

    def given(of: Array) -> Any:
        np.save(tmp_path / "factor.npy", of)
        return str(tmp_path / "factor.npy") if as_path else of

    fit(V, tmp_path, **{name: given(factor)}, **asked)
    fit(V, tmp_path, **{name: given(factor)}, **asked)
    with pytest.raises(RunMismatch, match=f"{name} is"):
        fit(V, tmp_path, **{name: given(changed(factor, 1, 1))}, **asked)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_v_cut_both_ways_is_verified_too(
    transposed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = V.T.copy() if transposed else V
    with monkeypatch.context() as patch:
        cut_both_ways(patch, (0, 14, 30), (0, 9, 20), 2)
        first = fit(dense(v, tmp_path / "v"), tmp_path)
        assert_same_bits(fit(dense(v, tmp_path / "same"), tmp_path), first)
        other = dense(changed(v), tmp_path / "other")
        with pytest.raises(RunMismatch, match="in column 7;" if transposed else "in row 11;"):
            fit(other, tmp_path)
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(other, tmp_path)


def test_missing_entries_and_stored_zeros_count_as_they_are(tmp_path: Path) -> None:
    v = np.where(np.random.default_rng(0).random(V.shape) < 0.2, np.nan, V)
    first = fit(v, tmp_path, missing="nan")
    assert_same_bits(fit(dense(v, tmp_path / "v"), tmp_path, missing="nan"), first)
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(np.nan_to_num(v), tmp_path, missing="nan")
    rated = scipy.sparse.csr_array(sparse(30, 20))
    fit(rated, tmp_path, missing="unstored", overwrite=True)
    unrated = rated.copy()
    unrated.data[9] = 0
    fit(unrated, tmp_path, missing="unstored", overwrite=True)
    unrated.eliminate_zeros()
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(unrated, tmp_path, missing="unstored")


def test_a_v_that_is_stored_in_another_way_is_the_same(tmp_path: Path) -> None:
    v = np.round(3 * V)
    first = fit(dense(v.astype("i2"), tmp_path / "v"), tmp_path, dtype="float64")
    for number, again in enumerate((v, np.asfortranarray(v), scipy.sparse.csr_array(v), da.from_array(v))):
        assert_same_bits(fit(again, tmp_path, dtype="float64"), first)
        assert_same_bits(fit(dense(v, tmp_path / f"v{number}", zarr_format=2 + number % 2), tmp_path), first)


def test_an_entry_that_is_bad_now_is_a_change(tmp_path: Path) -> None:
    fit(V, tmp_path)
    other = V.copy()
    other[[4, 11], 7] = np.nan
    with pytest.raises(RunMismatch, match="in rows 4, 11;"):
        fit(other, tmp_path)
    with pytest.raises(InvalidEntryError):
        fit(other, tmp_path, overwrite=True)
