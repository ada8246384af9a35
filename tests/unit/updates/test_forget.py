"""Rows taken out of a finished run: the loss, what is left of them, what is refused, and repeated calls."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support import changed_runs
from support.changed_runs import RANK, V, factors
from support.matrices import low_rank
from support.named import write_named
from support.runs import Crash

from dask_nmf import Run, nmf, select_rank
from dask_nmf.errors import RunMismatch
from dask_nmf.ingest import convert
from dask_nmf.results import verify
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.updates import forget, update
from dask_nmf.updates.fitted import open_fitted
from dask_nmf.updates.row_passes import open_rows
from dask_nmf.updates.rows.chosen_rows import batches
from dask_nmf.updates.rows.known_rows import DivergenceRows, SquaredRows

GONE = [7, 190, 3, 55, 56]
KEPT = np.setdiff1d(np.arange(200), GONE)


def fitted(place: Path, v: Any = V, **options: Any) -> Path:
    return changed_runs.fitted(place, v, **options)


def check_shown(run: Path) -> None:
    """Check that the chunks of W under its plain name are those of the result, and no older ones."""
    shown = [path for path in (run / "W").rglob("*") if path.is_file() and path.name != "zarr.json"]
    stored = (run / "data").glob("result-*/W/*")
    assert {path.stat().st_ino for path in shown} == {path.stat().st_ino for path in stored}


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("gone", [[200, 201], [3, 7]])
def test_an_infinite_divergence_is_finite_again_once_all_rows_that_are_left_were_read(
    alone: bool, gone: list[int], tmp_path: Path
) -> None:
    """Rows 200 and 201 have a word that no text of the fit has, and H stays as it is."""
    old = V * (np.arange(20) != 3)
    v = np.concatenate([old, V[:2]])
    run = fitted(tmp_path / "run", old, beta_loss=1)
    update(run, v[200:], keep_h=True)
    found = forget(run, gone, v[gone] if alone else v)
    assert np.isinf(found.relative_error) == alone
    stored = Run.load(run).summary()["relative_error"]
    assert stored is None if alone else stored == found.relative_error
    assert Run.load(run).summary()["lineage"][-1]["relative_error"] == stored
    left = np.delete(v, gone, axis=0)
    assert [check for check in verify(run, left) if not check.passed] == []
    assert np.isfinite(forget(run, [0], left).relative_error)


@pytest.mark.parametrize("beta", [2, 1])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("alone", [False, True])
def test_the_error_is_that_of_a_fit_without_the_rows(
    beta: int, form: Callable[[Any], Any], alone: bool, tmp_path: Path
) -> None:
    run = fitted(tmp_path / "run", form(V), beta_loss=beta)
    found = forget(run, GONE, form(V[GONE] if alone else V))
    without = nmf(form(V[KEPT]), RANK, beta_loss=beta, random_state=0)
    assert found.relative_error == pytest.approx(without.relative_error, rel=1e-3)
    assert (found.rows, found.left, found.polished) == (5, 195, not alone)
    assert [check for check in verify(run, form(V[KEPT])) if not check.passed] == []
    assert Run.load_result(run).record["estimated"] == (alone or beta == 1)
    assert Run.load(run).summary()["shape"] == [195, 20]


@given(seed=st.integers(0, 99), beta=st.sampled_from([1, 2]))
def test_sums_without_rows_are_those_of_the_other_rows(seed: int, beta: int) -> None:
    """The closed form: the gradient that is subtracted is that of the rows themselves."""
    random = np.random.default_rng(seed)
    w, h = random.random((9, 2)), random.random((2, 6))
    v = w @ h * random.random((9, 6))
    kind: Any = SquaredRows if beta == 2 else DivergenceRows
    known = kind(h, w.T @ v, w.T @ w, w.sum(axis=0), 9.0, None) if beta == 2 else (
        kind(h, h * (w.T @ (v / (w @ h))), w.sum(axis=0)[:, None], w.sum(axis=0), 9.0, None)
    )  # fmt: skip
    rest = known.without(w[:4], v[:4])
    np.testing.assert_allclose(rest.mass, w[4:].sum(axis=0))
    if beta == 2:
        np.testing.assert_allclose(rest.num, w[4:].T @ v[4:])
        np.testing.assert_allclose(rest.gram, w[4:].T @ w[4:])
    else:
        np.testing.assert_allclose(rest.pull, h * (w[4:].T @ (v[4:] / (w[4:] @ h))))


def test_the_other_rows_keep_their_order_and_their_w_without_a_polish(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    W = factors(run)[0]
    forget(run, GONE, V[GONE])
    np.testing.assert_array_equal(factors(run)[0], W[KEPT])


def test_nothing_of_the_rows_stays_in_the_run(tmp_path: Path) -> None:
    """No file has their W, their names or the sums of their digests, whatever the arrays are called."""
    names = [f"patient {number}" for number in range(200)]
    source = write_named(tmp_path / "v.zarr", V, names, [f"gene {number}" for number in range(20)])
    run = fitted(tmp_path / "run", str(source))
    digest, W = Run.load(run).digest("V"), factors(run)[0]
    forget(run, [names[number] for number in GONE], V[GONE])
    group = zarr.open_group(run, mode="r")
    assert list(group["row"][:]) == [names[number] for number in KEPT]
    for file in filter(Path.is_file, run.rglob("*")):
        content = file.read_bytes()
        for number in GONE:
            assert names[number].encode() not in content
            assert digest[number].tobytes() not in content
    check_shown(run)
    left = factors(run)[0]
    assert not any((left == W[number]).all(axis=1).any() for number in GONE)


def test_a_name_stands_for_all_of_its_rows(tmp_path: Path) -> None:
    names = [f"patient {number // 4}" for number in range(200)]
    columns = [f"gene {number}" for number in range(20)]
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "v.zarr", V, names, columns)))
    assert forget(run, ["patient 2", "patient 49"], V).left == 192
    with pytest.raises(ValueError, match="no row is named 'patient 2' in"):
        forget(run, ["patient 2"], V[:1])


@pytest.mark.parametrize("stage", ["write_w", "commit", "clean"])
def test_after_a_crash_the_same_call_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(tmp_path / "run")
    before = factors(run)[0]
    calls: list[int] = []
    method = getattr(ChangedResult, stage)

    def crash(self: ChangedResult, *given: Any) -> None:
        calls.append(1)
        if stage != "clean" or len(calls) == 2:  # the first call cleans up after the command before
            raise Crash
        method(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ChangedResult, stage, crash)
        with pytest.raises(Crash):
            forget(run, GONE, V[GONE])
    if stage != "clean":
        np.testing.assert_array_equal(factors(run)[0], before)
    assert forget(run, GONE, V[GONE]).already == (stage == "clean")
    assert factors(run)[0].shape == (195, RANK)
    check_shown(run)


def refused(run: Path, rows: list[Any], v: Any, text: str) -> None:
    """Check that a call is refused with one line, and that W and H stay."""
    before = factors(run)
    with pytest.raises((ValueError, RunMismatch), match=text) as refusal:
        forget(run, rows, v)
    assert "\n" not in str(refusal.value)
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("beta", [2, 1])
def test_after_a_change_a_v_that_is_not_that_of_the_run_is_refused(beta: int, tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V[:190], beta_loss=beta)
    update(run, V[190:])
    forget(run, [0, 1], V)
    left = V[2:]
    refused(run, [5], left[5:6], "give all 198 rows that it has now")
    refused(run, [5], left[::-1], "its relative error is .* give the rows that the run has, in its order")
    refused(run, [5], left * 1.01, "its mean is")
    forget(run, [5], left)
    without = nmf(np.delete(V, [0, 1, 7], axis=0), RANK, beta_loss=beta, random_state=0)
    error = Run.load(run).summary()["relative_error"]
    assert error == pytest.approx(without.relative_error, rel=1e-3)
    assert [check for check in verify(run, np.delete(V, [0, 1, 7], axis=0)) if not check.passed] == []


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("wide", [False, True])
def test_a_row_that_was_exchanged_is_found_after_an_update(
    form: Callable[[Any], Any], wide: bool, tmp_path: Path
) -> None:
    """Two rows that change places leave every sum over V as it was."""
    v = low_rank(30, 90, RANK) if wide else V
    run = fitted(tmp_path / "run", form(v[:20]))
    update(run, form(v[20:25]))
    update(run, form(v[25:]))
    order = np.arange(len(v))
    for pair, text in (([21, 22], "rows 21 to 22"), ([23, 27], "row 23"), ([3, 5], "column|rows? 3")):
        order[pair] = pair[::-1]
        refused(run, [4], form(v[order]), f"it differs in ({text})")
        order[pair] = pair
    if not wide:
        refused(run, [21, 4], form(v[[22, 4]]), "row 21 is not that of the V")
        assert forget(run, [21, 4], form(v[[21, 4]])).left == len(v) - 2
    else:
        assert forget(run, [21, 4], form(v)).left == len(v) - 2


def test_rows_alone_that_the_digests_do_not_tell_are_refused(tmp_path: Path) -> None:
    wide = low_rank(30, 90, RANK)
    run = fitted(tmp_path / "run", wide)
    refused(run, [3], wide[3:4], "it has no digest of each row; give all 30 rows")
    assert forget(run, [3], wide).left == 29


def test_names_of_the_v_are_compared(tmp_path: Path) -> None:
    names, columns = [f"patient {number}" for number in range(200)], [f"gene {i}" for i in range(20)]
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "v.zarr", V, names, columns)))
    some = write_named(tmp_path / "some.zarr", V[[3, 7]], [names[3], names[7]], columns)
    refused(run, [names[7], names[3]], some, "is 'patient 3', and 'patient 7' is needed")
    assert forget(run, [names[3], names[7]], some).left == 198


def test_the_sums_of_the_fit_give_no_sums_of_the_rows(tmp_path: Path) -> None:
    """Sums over V in the record are those of the rows that are left; the others leave no file name."""
    run = fitted(tmp_path / "run", V[:190])
    update(run, zarr.create_array(tmp_path / "alice.zarr", data=V[190:191]))
    forget(run, [7, 190], V[:191])
    bob = zarr.create_array(tmp_path / "bob.zarr", data=V[[3]])
    other = fitted(tmp_path / "other")
    forget(other, [3], bob)
    for place, kept in ((run, np.delete(V[:190], 7, axis=0)), (other, np.delete(V, 3, axis=0))):
        text = (place / "zarr.json").read_text()
        assert "alice" not in text
        assert "bob" not in text
        record = Run.load(place).record
        for part in (record, record["result"]):
            assert part["measures"]["mean"] == pytest.approx(kept.mean())
            baseline = (kept**2).sum() * part["measures"]["scale"] ** 2
            assert part["measures"]["baseline"] == pytest.approx(baseline)
        assert record["state"]["loss"] == record["result"]["loss"]


def test_a_selection_is_refused_and_a_copy_of_its_fit_is_not(tmp_path: Path) -> None:
    place = tmp_path / "selection"
    select_rank(V, [2, 3], n_init=2, max_iter=3, store=place, random_state=0)
    for run in (place, place / "fit"):
        with pytest.raises(ValueError, match="a selection, whose other models keep traces of the rows; copy"):
            forget(run, GONE, V)
    shutil.copytree(place / "fit", tmp_path / "run")
    assert forget(tmp_path / "run", GONE, V).left == 195


def test_each_chunk_is_read_once_for_scattered_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zarr.create_array(tmp_path / "v.zarr", data=V, chunks=(50, 20))
    run = fitted(tmp_path / "run", source)
    opened = open_rows(open_fitted(Run.load(run)), source)
    reads: list[Any] = []
    method = type(opened.reader).__getitem__
    monkeypatch.setattr(
        type(opened.reader), "__getitem__", lambda self, box: reads.append(box) or method(self, box)
    )
    found = list(batches(open_fitted(Run.load(run)), opened, np.array([190, 3, 7, 55, 58, 160, 49, 50])))
    np.testing.assert_array_equal(found[0].block, V[[3, 7, 49, 50, 55, 58, 160, 190]])
    assert len(reads) <= 3


def test_the_same_numbers_are_not_taken_out_twice(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    forget(run, GONE, V)
    assert forget(run, GONE, V).already
    refused(run, GONE, V[KEPT][GONE], "took out rows of these numbers, and now they mean other rows")
    assert not forget(run, GONE, V[KEPT]).already  # with a V of the rows that are there, it means them


def test_rows_that_were_added_can_be_taken_out(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V[:190])
    update(run, V[190:])
    found = forget(run, [190, 5], V)
    lineage = Run.load(run).summary()["lineage"]
    assert lineage[0]["rows"] == [189, 198]
    assert lineage[0]["digest"] is None
    without = nmf(np.delete(V, [190, 5], axis=0), RANK, random_state=0)
    assert found.relative_error == pytest.approx(without.relative_error, rel=1e-3)


REFUSED = {
    "no such row": ([200], V, "there is no row 200"),
    "negative": ([-1], V, "there is no row -1"),
    "twice": ([3, 3], V, "given twice"),
    "all": (list(range(200)), V, "leave at least one"),
    "names": (["ann"], V, "have no names"),
    "size": ([3, 4], V[:7], r"has 7 rows, and .* below the others \(dask-nmf convert OLD NEW ALL\)"),
    "columns": ([3, 4], V[:, :7], "has 7 columns and"),
    "other rows": ([3, 4], V[4:6], "row 3 is not that of the V"),
    "other V": ([3, 4], V[::-1], "V is not the same in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_out_is_refused_with_one_line(case: str, tmp_path: Path) -> None:
    rows, v, text = REFUSED[case]
    run = fitted(tmp_path / "run")
    refused(run, rows, v, text)


def test_forget_does_not_warn_of_the_steps_of_a_conversion_that_made_its_own_v(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert(V, tmp_path / "v.zarr", log1p=True)
    run = fitted(tmp_path / "run", tmp_path / "v.zarr")
    forget(run, GONE, tmp_path / "v.zarr")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
