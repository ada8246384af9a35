"""Weights of samples: a row of weight 2 counts as if it were there twice."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from support.matrices import low_rank

from dask_nmf import NMF
from dask_nmf.sources.decoding.row_weights import RepeatedWeights, scale_block, scale_rows
from dask_nmf.sources.registry import open_matrix

TIMES = np.random.default_rng(0).integers(0, 4, 60)  # numbers of repetitions, with zeros
SHAPES = {"tall": (60, 12), "wide": (12, 60)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mu": {"solver": "mu"},
    "ridge": {"alpha_W": 0.01, "alpha_H": 0.02, "max_iter": 90},
    "lasso": {"alpha_W": 0.01, "l1_ratio": 0.7},
    "kl": {"beta_loss": "kullback-leibler"},
    "missing": {"missing": "nan"},
}
FORMS: dict[str, Any] = {
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
    "dask": lambda x: da.from_array(x, chunks=(7, 5)),
    "sparse dask": lambda x: da.from_array(x, chunks=(7, -1)).map_blocks(scipy.sparse.csr_array),
}


def problem(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return X, the weights of its rows, and W and H to begin with."""
    rng = np.random.default_rng(1)
    x = low_rank(*shape, 3, noise=1)
    return x, TIMES[: len(x)], rng.random((len(x), 3)) + 0.1, rng.random((3, x.shape[1])) + 0.1


@pytest.mark.usefixtures("several_panels")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_weight_counts_as_so_many_repetitions(options: dict[str, Any], shape: tuple[int, int]) -> None:
    x, times, first_w, first_h = problem(shape)
    model, repeated = (NMF(3, **{"tol": 0, "max_iter": 20, **options}) for _ in range(2))
    given = {"W": first_w} if "solver" in options else {}  # hals solves for W anew
    more = {name: np.repeat(factor, times, axis=0) for name, factor in given.items()}
    W = model.fit_transform(x, H=first_h, sample_weight=times, **given)
    expected = repeated.fit_transform(np.repeat(x, times, axis=0), H=first_h, **more)
    np.testing.assert_allclose(model.components_, repeated.components_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.repeat(W, times, axis=0), expected, rtol=1e-3, atol=1e-3)
    assert model.reconstruction_err_ == pytest.approx(repeated.reconstruction_err_, rel=1e-6)
    assert W[times == 0].max() < 1e-15


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_all_forms_of_x_are_weighted_alike(form: Any, shape: tuple[int, int]) -> None:
    x, times, _, first_h = problem(shape)
    models = [NMF(3, tol=0, max_iter=5).fit(one, H=first_h, sample_weight=times) for one in (x, form(x))]
    np.testing.assert_allclose(models[0].components_, models[1].components_, rtol=1e-6)
    W = NMF(3, tol=0, max_iter=5).fit_transform(form(x), H=first_h, sample_weight=times)
    assert np.isfinite(np.asarray(W)).all()


@pytest.mark.parametrize("options", [{}, {"solver": "mu"}], ids=["hals", "mu"])
def test_weights_of_rows_are_weights_of_their_entries(options: dict[str, Any], tmp_path: Any) -> None:
    x, times, first_w, first_h = problem((60, 12))
    weights = np.repeat(times[:, None], 12, axis=1).astype(float)
    given = {"W": first_w, "H": first_h}
    rows, entries = (NMF(3, tol=0, max_iter=20, **options) for _ in range(2))
    rows.fit(x, sample_weight=times, **given)
    entries.fit(x, weights=weights, **given)
    np.testing.assert_allclose(rows.components_, entries.components_, rtol=1e-4, atol=1e-6)
    stored = NMF(3, tol=0, max_iter=20, store=tmp_path / "run.zarr", **options)
    stored.fit(x, sample_weight=times, **given)
    np.testing.assert_array_equal(stored.components_, entries.components_)


def test_neither_x_nor_weights_are_copied_as_a_whole() -> None:
    x, times, *_ = problem((60, 12))
    scaled = scale_rows(open_matrix(x.astype(np.float32)), np.sqrt(times))
    assert scaled.layout.needs_cast  # so that the plan counts the copy of a panel
    block = scaled.reader[slice(3, 9), slice(0, 12)]
    assert block.dtype == np.float32
    np.testing.assert_allclose(block, x[3:9] * np.sqrt(times[3:9, None]), rtol=1e-6)
    weights = RepeatedWeights(times.astype(float), scaled.orientation, (60, 12))
    np.testing.assert_array_equal(weights[slice(3, 9), slice(2, 5)], np.repeat(times[3:9, None], 3, axis=1))


@pytest.mark.parametrize("scales", [np.array([[2.0], [0.0]]), np.array([[2.0, 0.0, 1.0]])])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_a_block_is_scaled_along_either_side(form: Any, scales: np.ndarray) -> None:
    block = np.array([[1.0, 0.0, 3.0], [0.0, 5.0, 6.0]])
    scaled = scale_block(form(block), scales)
    dense = scaled.toarray() if scipy.sparse.issparse(scaled) else scaled
    np.testing.assert_array_equal(dense, block * scales)


def test_batches_have_weights() -> None:
    x, times, *_ = problem((60, 12))
    rows, entries = NMF(3, random_state=0), NMF(3, random_state=0)
    for some in (slice(0, 30), slice(30, 60)):
        weights = np.repeat(times[some, None], 12, axis=1).astype(float)
        rows.partial_fit(x[some], sample_weight=times[some])
        entries.partial_fit(x[some], weights=weights)
    np.testing.assert_array_equal(rows.components_, entries.components_)


def test_metadata_is_routed() -> None:
    x, times, *_ = problem((60, 12))
    direct = NMF(3, random_state=0).fit(MaxAbsScaler().fit_transform(x), sample_weight=times)
    with sklearn.config_context(enable_metadata_routing=True):
        model = NMF(3, random_state=0).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(MaxAbsScaler(), model).fit(x, sample_weight=times)
    np.testing.assert_array_equal(pipeline[-1].components_, direct.components_)


REFUSED: dict[str, tuple[Any, str]] = {
    "too few": (np.ones(59), r"sample_weight has shape \(59,\) and X has 60 rows"),
    "two columns": (np.ones((60, 2)), r"sample_weight has shape \(60, 2\)"),
    "negative": (-np.ones(60), "sample_weight is -1.0 for row 0"),
    "infinite": (np.full(60, np.inf), "sample_weight is inf for row 0"),
    "texts": (["a"] * 60, "sample_weight is a list of other things than numbers; give one number for each"),
    "zero": (np.zeros(60), "sample_weight is zero for all rows"),
    "masked": (np.ma.masked_array(np.ones(60), np.arange(60) == 7), "sample_weight is nan for row 7"),
    "masked, of Dask": (da.ma.masked_greater(da.arange(60) % 9, 7), "sample_weight is nan for row 8"),
}


@pytest.mark.parametrize(("weights", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_weights_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NMF(3).fit(low_rank(60, 12, 3), sample_weight=weights)


def test_two_kinds_of_weights_are_refused() -> None:
    x = low_rank(60, 12, 3)
    with pytest.raises(ValueError, match="multiply them"):
        NMF(3).fit(x, weights=np.ones_like(x), sample_weight=np.ones(60))
