"""Rows added to a finished run: the loss, what is kept, what is refused, and what a crash leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
import zarr
from sklearn import decomposition
from support.matrices import low_rank
from support.named import write_named
from support.runs import Crash

from dask_nmf import Run, nmf, transform
from dask_nmf.cli.app import app
from dask_nmf.errors import DataError, RunMismatch
from dask_nmf.results import verify
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.updates import update
from dask_nmf.updates.fitted import open_fitted

RANK = 3
V = low_rank(200, 20, RANK, noise=1.0)
OLD, NEW = V[:190], V[190:]


def fitted(place: Path, v: Any = OLD, **options: Any) -> Path:
    nmf(v, RANK, store=place, **{"random_state": 0, **options})
    return place


def factors(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return W and H of a run."""
    result = Run.load_result(run)
    return result.read("W"), result.read("H")


def loss(v: Any, W: np.ndarray, H: np.ndarray, beta: float) -> float:
    """Return the loss of the definition."""
    dense = v.toarray() if scipy.sparse.issparse(v) else v
    product = W.astype(float) @ H.astype(float)
    if beta == 2:
        return float(((dense - product) ** 2).sum())
    there = dense > 0
    return float((dense[there] * np.log(dense[there] / product[there])).sum() - dense.sum() + product.sum())


@pytest.mark.parametrize("beta", [2, 1])
@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_the_loss_is_that_of_a_fit_of_all_rows(beta: int, solver: str, form: Any, tmp_path: Path) -> None:
    """The oracle is scikit-learn on all rows; the rows of a run of columns are appended alike."""
    options = {"max_iter": 400} if solver == "mu" else {}
    run = fitted(tmp_path / "run", form(OLD), beta_loss=beta, solver=solver, **options)
    before = factors(run)[0]
    found = update(run, form(NEW))
    W, H = factors(run)
    model = decomposition.NMF(
        RANK, solver="cd" if beta == 2 else "mu", beta_loss="frobenius" if beta == 2 else "kullback-leibler",
        init="nndsvda", max_iter=5000, tol=1e-5,
    )  # fmt: skip
    of_all = loss(V, model.fit_transform(V), model.components_, beta)
    assert loss(V, W, H, beta) < 1.005 * of_all
    np.testing.assert_array_equal(W[:190], before)
    assert (found.first, found.last, found.already) == (190, 200, False)
    assert np.isclose(found.relative_error, Run.load(run).summary()["relative_error"])
    assert [check for check in verify(run, V) if not check.passed] == []


def test_a_wide_v_whose_panels_are_columns_is_updated_by_rows(tmp_path: Path) -> None:
    wide = low_rank(30, 90, RANK)
    run = fitted(tmp_path / "run", wide[:28])
    assert Run.load(run).record["matrix"]["transposed"]
    update(run, wide[28:])
    W, H = factors(run)
    _, of_all = factors(fitted(tmp_path / "all", wide))
    W_all = transform(wide, of_all).compute()
    assert loss(wide, W, H, 2) < 1.005 * loss(wide, W_all, of_all, 2)


@pytest.mark.parametrize("penalties", [{}, {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5}])
def test_the_sums_of_the_old_rows_follow_from_w_and_h(penalties: dict[str, float], tmp_path: Path) -> None:
    """Where H > 0, WᵀV is known without V; with it, the loss for another H is."""
    run = fitted(tmp_path / "run", tol=1e-8, max_iter=100, **penalties)
    found, (W, H) = open_fitted(Run.load(run)), factors(run)
    left, right = found.units
    scale = found.measures.scale
    mine = W.T @ OLD * scale / left
    np.testing.assert_allclose(found.rows.num[H > 0], mine[H > 0], rtol=2e-3)
    other = H * (1 + 0.05 * np.random.default_rng(0).random(H.shape))
    change = (loss(OLD, W, other, 2) - loss(OLD, W, H, 2)) * scale**2
    assert found.rows.change(other / right) == pytest.approx(change, rel=0.02)


def test_h_with_kept_h_stays_and_w_is_that_of_transform(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    H = factors(run)[1]
    update(run, NEW, keep_h=True)
    W, kept = factors(run)
    np.testing.assert_array_equal(kept, H)
    np.testing.assert_allclose(W[190:], transform(NEW, H).compute(), rtol=1e-6)
    assert Run.load(run).summary()["lineage"][0]["keep_h"] is True


def test_a_column_without_entries_so_far_gets_its_size(tmp_path: Path) -> None:
    """As a word does that no text before had."""
    old, new = OLD.copy(), NEW.copy()
    old[:, 4] = 0
    new[:, 4] = 5 * new[:, 5]
    for beta in (1, 2):
        run = fitted(tmp_path / f"run-{beta}", old, beta_loss=beta)
        update(run, new)
        W, H = factors(run)
        assert (W[190:] @ H)[:, 4].mean() > 0.05 * new[:, 4].mean()
        assert [check for check in verify(run, np.vstack([old, new])) if check.passed is False] == []


def test_normalised_components_keep_their_norm_and_number(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", normalize="l2")
    H = factors(run)[1]
    found = update(run, NEW)
    W, after = factors(run)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1)
    np.testing.assert_allclose(np.einsum("ij,ij->i", H, after), found.cosines, rtol=1e-6)
    assert found.relative_error == pytest.approx(np.sqrt(loss(V, W, after, 2)) / np.linalg.norm(V), rel=1e-3)


def test_whole_chunks_of_w_are_linked_and_the_run_is_shown_under_plain_names(
    tmp_path: Path, several_panels: None
) -> None:
    run = fitted(tmp_path / "run")
    rows = Run.load_result(run).array("W").chunks[0]
    assert rows < 190
    before = {path.stat().st_ino for path in (run / "data").glob("result-*/W/*")}
    update(run, NEW)
    after = {path.stat().st_ino for path in (run / "data").glob("result-*/W/*")}
    assert len(before & after) == 190 // rows
    group = zarr.open_group(run, mode="r")
    for name, factor in zip("WH", factors(run), strict=True):
        np.testing.assert_array_equal(group[name][...], factor)


def test_several_updates_follow_each_other_and_none_is_made_twice(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V[:180])
    for first in (180, 190):
        update(run, V[first : first + 10])
        state = run.joinpath("zarr.json").read_bytes()
        for rows in (V[180 : first + 10], V[first : first + 10]):
            if len(rows) == 10:
                assert update(run, rows).already
        assert run.joinpath("zarr.json").read_bytes() == state
    assert [entry["rows"] for entry in Run.load(run).summary()["lineage"]] == [[180, 190], [190, 200]]
    W, H = factors(run)
    assert loss(V, W, H, 2) < 1.005 * loss(V, *factors(fitted(tmp_path / "all", V)), 2)
    assert Run.load(run).summary()["shape"] == [200, 20]


@pytest.mark.parametrize("stage", ["temporary_w", "write_w", "commit"])
def test_a_crash_leaves_the_run_as_it_was_and_the_same_call_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(tmp_path / "run")
    before = factors(run)

    def crash(*given: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ChangedResult, stage, crash)
        with pytest.raises(Crash):
            update(run, NEW)
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert all(check.passed for check in verify(run, OLD))
    assert not update(run, NEW).already
    assert len(list((run / "data").glob("result-*"))) == 1
    assert factors(run)[0].shape == (200, RANK)


def test_names_of_rows_follow_and_those_of_columns_must_be_the_same(tmp_path: Path) -> None:
    columns, rows = [f"word {number}" for number in range(20)], [f"text {number}" for number in range(200)]
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "old.zarr", OLD, rows[:190], columns)))
    turned = write_named(tmp_path / "turned.zarr", NEW, rows[190:], columns[::-1])
    with pytest.raises(ValueError, match="column 0 is 'word 19' in"):
        update(run, str(turned))
    update(run, str(write_named(tmp_path / "new.zarr", NEW[:5], rows[190:195], columns)))
    update(run, NEW[5:])  # which has no names
    result = Run.load_result(run)
    assert result.row_names is not None
    assert result.column_names is not None
    assert list(result.row_names[188:]) == [*rows[188:195], "195", "196", "197", "198", "199"]
    assert list(result.column_names[:]) == columns


REFUSED = {
    "columns": ({}, V[:5, :19], "has 19 columns and"),
    "missing": (
        {"missing": "nan"},
        NEW,
        "missing entries, .* or compute W of new rows with dask-nmf transform",
    ),
    "weights": ({"weights": np.ones(OLD.shape)}, NEW, "with weights"),
    "held out": ({"validation_fraction": 0.1}, NEW, "held-out entries"),
    "loss": ({"beta_loss": 0.5, "solver": "mu", "max_iter": 2}, NEW, "beta_loss 0.5"),
    "normalised": ({"normalize": "l1", "alpha_W": 0.1}, NEW, "no longer balances"),
    "negative": ({}, -NEW, "NMF takes entries >= 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_is_refused_with_one_line(case: str, tmp_path: Path) -> None:
    options, rows, text = REFUSED[case]
    run = fitted(tmp_path / "run", **options)
    before = factors(run)
    with pytest.raises(ValueError, match=text) as refusal:
        update(run, rows)
    assert "\n" not in str(refusal.value)
    assert isinstance(refusal.value, DataError) == (case == "negative")
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_unfinished_fit_is_refused(tmp_path: Path) -> None:
    nmf(OLD, RANK, store=tmp_path / "run", time_limit=1e-9)
    with pytest.raises(ValueError, match="is not finished; finish it with dask-nmf fit"):
        update(tmp_path / "run", NEW)


def test_a_fit_does_not_go_on_in_a_run_of_other_rows(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    update(run, NEW)
    with pytest.raises(RunMismatch, match=r"rows of .* were changed since its fit"):
        fitted(run)
    fitted(run, overwrite=True)
    assert factors(run)[0].shape == (190, RANK)
    assert "lineage" not in Run.load(run).summary()


def test_a_fixed_h_stays(tmp_path: Path) -> None:
    H = np.random.default_rng(0).random((RANK, 20))
    run = tmp_path / "run"
    nmf(OLD, RANK, fixed_H=H, store=run)
    update(run, NEW)
    np.testing.assert_array_equal(factors(run)[1], H)


def test_the_command_reports_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path / "run")
    for name, rows in {"new": NEW, "other": low_rank(10, 20, 6, seed=9)}.items():
        zarr.create_array(tmp_path / f"{name}.zarr", data=rows)
    assert app(["update", str(run), str(tmp_path / "new.zarr")], standalone_mode=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{run}: rows 190 to 199 added; relative error 0.")
    assert len(lines) == 3 + RANK
    app(["update", str(run), str(tmp_path / "new.zarr")], standalone_mode=False)
    assert capsys.readouterr().out == f"{run}: these rows are in it already, as rows 190 to 199\n"
    app(["update", str(run), str(tmp_path / "other.zarr")], standalone_mode=False)
    assert "the new rows are of another kind; fit all rows anew" in capsys.readouterr().out.splitlines()[-1]
    app(["update", str(run), str(tmp_path / "other.zarr"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["already"] is True


def named_frame(v: Any, first: int, columns: list[str]) -> pd.DataFrame:
    """Return rows whose names count from a number on."""
    return pd.DataFrame(v, index=[f"text {first + number}" for number in range(len(v))], columns=columns)


@pytest.mark.parametrize(
    "form", [lambda frame: frame, lambda frame: xr.DataArray(frame, dims=("text", "word"))]
)
def test_names_of_tables_and_arrays_in_memory_are_those_of_the_rows(form: Any, tmp_path: Path) -> None:
    columns = [f"word {number}" for number in range(20)]
    run = fitted(tmp_path / "run", form(named_frame(OLD, 0, columns)))
    with pytest.raises(
        ValueError, match=r"column 0 is 'word 19' in .*the names are the same in another order"
    ):
        update(run, form(named_frame(NEW, 190, columns[::-1])))
    assert update(run, form(named_frame(NEW, 190, columns))).first == 190
    assert update(run, form(named_frame(NEW, 190, columns))).already
    other_names = update(run, form(named_frame(NEW, 200, columns)))
    assert (other_names.first, other_names.already) == (200, False)
    names = Run.load_result(run).row_names
    assert names is not None
    assert list(names[:]) == [f"text {number}" for number in range(210)]


def test_the_rows_of_the_fit_are_not_added_to_it(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    found = update(run, OLD)
    assert (found.first, found.last, found.already) == (0, 190, True)
    update(run, NEW)
    assert update(run, OLD).already


@pytest.mark.parametrize("size", [1e160, 1e300])
def test_rows_whose_squares_are_infinite_are_refused(size: float, tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    with pytest.raises(DataError, match=r"has entries so large that .* give rows in the units of the V"):
        update(run, np.full((2, 20), size))
    assert all(check.passed for check in verify(run, OLD))


def test_an_error_that_is_a_bound_is_called_an_estimate(tmp_path: Path) -> None:
    """Rows of another kind move H so far that the bound of the old rows is above their error."""
    run = fitted(tmp_path / "run", beta_loss=1)
    assert "error_is_estimate" not in Run.load(run).summary()
    new = 20 * np.random.default_rng(0).random((20, 20)) ** 4
    stored = update(run, new).relative_error
    W, H = factors(run)
    whole = np.vstack([OLD, new])
    mean = np.full((len(whole), 1), whole.mean()), np.ones((1, 20))
    assert np.sqrt(loss(whole, W, H, 1) / loss(whole, *mean, 1)) < 0.997 * stored
    assert Run.load(run).summary()["error_is_estimate"] is True
    (error,) = (check for check in verify(run, whole) if check.name == "error")
    assert error.passed
    assert error.text.endswith("stored as an estimate")
    (error,) = (check for check in verify(run, whole[::-1]) if check.name == "error")
    assert error.passed is False
    assert error.text.endswith("restore the run, give the V of its rows, or fit V anew")
