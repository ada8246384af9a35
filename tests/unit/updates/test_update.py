"""Rows added to a finished run: the loss, H, and the sums of the old rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn import decomposition
from support.changed_runs import NEW, OLD, RANK, V, factors, fitted, loss
from support.matrices import low_rank

from dask_nmf import Run, nmf, transform
from dask_nmf.results import verify
from dask_nmf.updates import forget, update
from dask_nmf.updates.fitted import open_fitted
from dask_nmf.updates.rows.known_rows import SquaredRows


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


def test_a_run_that_fits_v_exactly_can_be_read_after_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of all rows is a sum, which rounding may take below 0."""
    exact = low_rank(60, 12, RANK, noise=0)
    run = fitted(tmp_path / "run", exact)
    monkeypatch.setattr(SquaredRows, "change", lambda rows, h: -1e-9)
    assert update(run, exact[:5] * 2).relative_error == 0
    assert [check for check in verify(run, np.vstack([exact, exact[:5] * 2])) if not check.passed] == []


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


def test_a_word_of_one_topic_becomes_one_of_another_that_new_texts_use_it_in(tmp_path: Path) -> None:
    """H is 0 there, as far as the old texts tell, and entries of 0 stay 0 in multiplicative updates."""
    topics = np.kron(np.eye(2), np.ones(10))
    old = np.random.default_rng(0).poisson(np.repeat(np.eye(2), 60, axis=0) @ topics * 3.0)
    new = np.random.default_rng(1).poisson(np.tile(topics[1] * 3.0, (30, 1)))
    new[:, 3] = 40
    run = nmf(old, 2, beta_loss=1, store=tmp_path / "run") and tmp_path / "run"
    H = factors(run)[1]
    of_new = H[:, 15].argmax()
    assert H[of_new, 3] < 1e-3 * H.max()
    update(run, new)
    W, H = factors(run)
    assert H[of_new, 3] > 0.05 * H[of_new, 15]
    assert (H[of_new, :3] < 1e-3 * H.max()).all()
    V = np.vstack([old, new])
    of_all = nmf(V, 2, beta_loss=1)
    assert loss(V, W, H, 1) < 1.02 * loss(V, np.asarray(of_all.W), np.asarray(of_all.H), 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_word_that_old_texts_hardly_use_is_explained_once_new_ones_do(seed: int, tmp_path: Path) -> None:
    """All entries of its column of H are small before, and several topics explain it together."""
    rng = np.random.default_rng(seed)
    v = rng.poisson(10 * rng.gamma(1, 1, (150, 3)) @ rng.gamma(1, 1, (3, 20))).astype(float)
    v[:120, 3] = 0
    v[7, 3] = 1e-3
    run = tmp_path / "run"
    nmf(v[:120], 3, store=run, random_state=0, beta_loss=1)
    update(run, v[120:])
    of_all = nmf(v, 3, beta_loss=1)
    assert loss(v, *factors(run), 1) < 1.05 * loss(v, np.asarray(of_all.W), np.asarray(of_all.H), 1)


def test_a_row_that_an_h_which_stays_cannot_explain_is_added_with_an_infinite_divergence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A word that no text of the fit has; W is that of `transform`, and the next update goes on."""
    old, new = OLD * (np.arange(20) != 3), np.abs(NEW)
    run = fitted(tmp_path / "run", old, beta_loss=1)
    found = update(run, new[:5], keep_h=True)
    assert found.relative_error == np.inf
    assert "H is 0 in columns where new rows have entries" in caplog.text
    assert found.as_json()["relative_error"] is None
    assert Run.load(run).summary()["relative_error"] is None
    W, H = factors(run)
    with pytest.warns(UserWarning, match="H is 0 in columns"):
        expected = transform(new[:5], H, beta_loss="kullback-leibler").compute()
    np.testing.assert_allclose(W[190:], expected, rtol=1e-3, atol=1e-3 * W.max())
    assert np.isfinite(factors(run)[0]).all()
    update(run, new[5:])
    assert (factors(run)[1][:, 3] > 0).any()


def test_rows_that_were_added_with_a_kept_h_leave_a_finite_divergence_when_they_are_taken_out(
    tmp_path: Path,
) -> None:
    """H was not the best one for them, so that the sums without them are estimates, 0 in some columns."""
    rng = np.random.default_rng(1)
    v = rng.poisson(rng.gamma(0.2, 1, (60, 5)) @ rng.gamma(0.1, 1, (5, 120))).astype(float)
    run = fitted(tmp_path / "run", v[:50], beta_loss=1)
    update(run, v[50:], keep_h=True)
    forget(run, list(range(50, 60)), v)
    assert [check for check in verify(run, v[:50]) if check.passed is False] == []


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


def test_a_fixed_h_stays(tmp_path: Path) -> None:
    H = np.random.default_rng(0).random((RANK, 20))
    run = tmp_path / "run"
    nmf(OLD, RANK, fixed_H=H, store=run)
    update(run, NEW)
    np.testing.assert_array_equal(factors(run)[1], H)


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
