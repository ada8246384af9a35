"""Rows taken out of a finished run: the loss, what is left of them, what is refused, and repeated calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import low_rank
from support.named import write_named
from support.runs import Crash

from dask_nmf import Run, nmf
from dask_nmf.cli.app import app
from dask_nmf.errors import DataError, RunMismatch
from dask_nmf.results import verify
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.updates import forget, update
from dask_nmf.updates.rows.known_rows import DivergenceRows, SquaredRows

RANK = 3
V = low_rank(200, 20, RANK, noise=1.0)
GONE = [7, 190, 3, 55, 56]
KEPT = np.setdiff1d(np.arange(200), GONE)


def fitted(place: Path, v: Any = V, **options: Any) -> Path:
    nmf(v, RANK, store=place, **{"random_state": 0, **options})
    return place


def factors(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return W and H of a run."""
    result = Run.load_result(run)
    return result.read("W"), result.read("H")


def check_shown(run: Path) -> None:
    """Check that the chunks of W under its plain name are those of the result, and no older ones."""
    shown = [path for path in (run / "W").rglob("*") if path.is_file() and path.name != "zarr.json"]
    stored = (run / "data").glob("result-*/W/*")
    assert {path.stat().st_ino for path in shown} == {path.stat().st_ino for path in stored}


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
    assert Run.load(run).summary()["shape"] == [195, 20]


@given(seed=st.integers(0, 99), beta=st.sampled_from([1, 2]))
def test_sums_without_rows_are_those_of_the_other_rows(seed: int, beta: int) -> None:
    """The closed form: the gradient that is subtracted is that of the rows themselves."""
    random = np.random.default_rng(seed)
    w, h = random.random((9, 2)), random.random((2, 6))
    v = w @ h * random.random((9, 6))
    kind: Any = SquaredRows if beta == 2 else DivergenceRows
    known = kind(h, w.T @ v, w.T @ w, w.sum(axis=0), 9.0, None) if beta == 2 else (
        kind(h, h * (w.T @ (v / (w @ h))), w.sum(axis=0), 9.0, None)
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


def test_the_same_numbers_are_not_taken_out_twice(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    forget(run, GONE, V)
    assert forget(run, GONE, V).already
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
    "size": ([3, 4], V[:7], "has 7 rows, and"),
    "columns": ([3, 4], V[:, :7], "has 7 columns and"),
    "other rows": ([3, 4], V[4:6], "row 3 is not that of the V"),
    "other V": ([3, 4], V[::-1], "V is not the same in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_out_is_refused_with_one_line(case: str, tmp_path: Path) -> None:
    rows, v, text = REFUSED[case]
    run = fitted(tmp_path / "run")
    before = factors(run)
    with pytest.raises((ValueError, RunMismatch), match=text) as refusal:
        forget(run, rows, v)
    assert "\n" not in str(refusal.value)
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_command_reads_a_file_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path / "run")
    zarr.create_array(tmp_path / "v.zarr", data=V)
    ids = tmp_path / "ids.txt"
    ids.write_text("3\n\n+5\n")
    words = ["forget", str(run), str(tmp_path / "v.zarr"), "--rows", str(ids)]
    with pytest.raises(DataError, match=r"line 3 of .*ids.txt is '\+5'; give the number"):
        app(words, standalone_mode=False)
    ids.write_text("3\n\n5\n")
    assert app(words, standalone_mode=False) == 0
    assert "2 rows taken out, 198 left, polished in one pass; relative error" in capsys.readouterr().out
    assert app(words, standalone_mode=False) == 0
    assert "these 2 rows were taken out already; 198 are left" in capsys.readouterr().out
