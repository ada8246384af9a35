"""Measures of one factorisation, compared with closed forms, scikit-learn, SciPy and published clusters."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import explained_variance_score, homogeneity_score
from sklearn.metrics.cluster import contingency_matrix
from support.matrices import low_rank
from support.strategies import cuts

from dask_nmf import nmf
from dask_nmf.quality import (
    Quality,
    cluster_indices,
    entropy,
    evar,
    extract_features,
    feature_score,
    purity,
    quality,
    rss,
    sparseness,
)
from dask_nmf.types import Array

CLASSES = ["B"] * 19 + ["T"] * 8 + ["AML"] * 11  # of the 38 samples of Golub et al., Science 286:531, 1999
RANK_2 = [0] * 27 + [1, 0] + [1] * 9  # clusters of them that nimfa publishes, for ranks 2 and 3
RANK_3 = [2] * 9 + [1] + [2] * 9 + [1] * 8 + [0, 0, 1] + [0] * 8

random = np.random.default_rng(0)
W, H = random.gamma(0.5, size=(50, 4)), random.gamma(0.5, size=(4, 30))
LABELS = random.choice(["a", "b", "c"], 50)


def each_sparseness(rows: Array) -> list[float]:
    """Hoyer's formula, row by row."""
    root = np.sqrt(rows.shape[1])
    return [(root - np.abs(row).sum() / np.sqrt(row @ row)) / (root - 1) for row in rows]


@pytest.mark.parametrize("as_kind", [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_rss_and_evar_of_a_matrix_in_memory(as_kind: Any) -> None:
    v = W @ H + np.where(random.random((50, 30)) < 0.2, random.random((50, 30)), 0)
    assert rss(as_kind(v), W, H) == pytest.approx(np.sum((v - W @ H) ** 2), rel=1e-9)
    assert evar(as_kind(v), W, H) == pytest.approx(1 - np.sum((v - W @ H) ** 2) / np.sum(v**2), rel=1e-12)
    assert evar(as_kind(W @ H), W, H) == pytest.approx(1)
    assert np.isnan(evar(as_kind(np.zeros((50, 30))), W, H))


def test_evar_is_not_centred() -> None:
    """As in R's package: the variance of scikit-learn's score is about the mean, and this one about 0."""
    v, mean = np.array([[1.0, 3.0]]), np.array([[2.0, 2.0]])
    assert evar(v, [[1]], mean) == pytest.approx(0.8)
    assert explained_variance_score(v.T, mean.T) == 0


def test_a_result_of_the_squared_error_knows_its_rss_and_evar() -> None:
    v = low_rank(60, 20, 3)
    result = nmf(v, 3)
    w, h = result.W.compute(), result.H.compute()
    measured = quality(result)
    assert measured.rss == pytest.approx(np.sum((v - w @ h) ** 2), rel=1e-6)
    assert measured.evar == pytest.approx(1 - np.sum((v - w @ h) ** 2) / np.sum(v**2))
    again = astuple(quality((result.W, result.H), V=v))
    assert again == pytest.approx(astuple(measured), rel=1e-6, nan_ok=True)
    assert np.isnan(quality((result.W, result.H)).evar)


@pytest.mark.parametrize("store", [None, "run.zarr"])
def test_a_result_of_another_loss_needs_v(store: str | None, tmp_path: Any) -> None:
    v = np.floor(8 * low_rank(60, 20, 3))
    result = nmf(v, 3, beta_loss="kullback-leibler", store=store and str(tmp_path / store))
    assert result.beta_loss == 1
    assert np.isnan(quality(result).rss)
    w, h = result.W.compute(), result.H.compute()
    assert quality(result, V=v).rss == pytest.approx(np.sum((v - w @ h) ** 2))


def test_sparseness_of_vectors() -> None:
    """The bounds are those of the tests of R's package; (1, 1, 0, 0) is (2 - √2) / (2 - 1)."""
    assert sparseness(np.ones(100)) == pytest.approx(0, abs=1e-12)
    assert sparseness([1] + 100 * [0]) == pytest.approx(1)
    assert sparseness([1, 1, 0, 0]) == pytest.approx(2 - np.sqrt(2))
    assert sparseness([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]) == pytest.approx((3 - np.sqrt(2)) / 2)
    assert sparseness([1e-200, 1e-200, 0, 0]) == pytest.approx(2 - np.sqrt(2))
    assert np.isnan(sparseness([0, 0]))
    assert np.isnan(sparseness([3.0]))


@given(cuts(50), cuts(4), st.sampled_from([np.float32, np.float64]))
def test_quality_does_not_depend_on_how_w_is_cut(rows: Any, columns: Any, dtype: Any) -> None:
    w = da.from_array(
        W.astype(dtype), chunks=tuple(tuple(np.diff(edges).tolist()) for edges in (rows, columns))
    )
    with dask.config.set(scheduler="synchronous"):
        cut = quality((w, H), LABELS)
    assert cut.sparseness_W == pytest.approx(np.mean(each_sparseness(W)), rel=1e-6)
    assert cut.sparseness_H == pytest.approx(np.mean(each_sparseness(H)))
    clusters = cluster_indices(W, H)
    assert (cut.purity, cut.entropy) == (purity(clusters, LABELS), entropy(clusters, LABELS))


def test_the_record_is_readable_by_people_and_as_json() -> None:
    record = quality((W, H))
    assert json.loads(json.dumps(record.to_dict()))["evar"] is None
    assert repr(record).startswith("Quality(n_components=4, sparseness_W=0.")
    assert "evar=0.5" in repr(Quality(2, 0.5, 1.0, 0.1, 0.2))


def test_clusters_do_not_depend_on_the_scales_of_components() -> None:
    by = np.array([1e-200, 1e-3, 1.0, 1e100])
    parts = np.stack([np.linalg.norm(W[:, [t]] @ H[[t]], axis=1) for t in range(4)], axis=1)
    for clusters in (cluster_indices(W, H), cluster_indices(W * by, H / by[:, None])):
        np.testing.assert_array_equal(clusters, parts.argmax(axis=1))
    assert cluster_indices(np.array([[0.0, 0], [0, 2]]), np.eye(2)).tolist() == [-1, 1]
    assert cluster_indices(W, 0 * H).tolist() == [-1] * 50


def test_purity_and_entropy_of_published_clusters() -> None:
    """One sample of 38 is misplaced by rank 2, and two by rank 3."""
    leukemia = ["AML" if label == "AML" else "ALL" for label in CLASSES]
    assert purity(RANK_2, leukemia) == pytest.approx(37 / 38)
    assert purity(RANK_3, CLASSES) == pytest.approx(36 / 38)
    mixed = 28 * scipy.stats.entropy([27 / 28, 1 / 28], base=2)
    assert entropy(RANK_2, leukemia) == pytest.approx(mixed / 38)
    mixed = 10 * scipy.stats.entropy([0.8, 0.1, 0.1], base=2)
    assert entropy(RANK_3, CLASSES) == pytest.approx(mixed / (38 * np.log2(3)))
    assert (purity(CLASSES, CLASSES), entropy(CLASSES, CLASSES)) == (1, 0)
    assert (purity(RANK_2, ["one"] * 38), entropy(RANK_2, ["one"] * 38)) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_purity_and_entropy_agree_with_scikit_learn(pairs: list[tuple[int, str]]) -> None:
    clusters, labels = zip(*pairs, strict=True)
    counts = contingency_matrix(labels, clusters)
    assert purity(clusters, labels) == pytest.approx(counts.max(axis=0).sum() / len(pairs))
    shares = counts.sum(axis=1) / len(pairs)
    expected = 0.0
    if len(shares) > 1:
        of_classes = scipy.stats.entropy(shares) / np.log(len(shares))
        expected = (1 - homogeneity_score(labels, clusters)) * of_classes
    assert entropy(clusters, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "b"],
        [1.0, np.nan, 2.0],
        pd.array(["a", None, "b"], dtype="string"),
        np.ma.array([1, 2, 3], mask=[0, 1, 0]),
    ],
)
def test_missing_labels_are_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match="1 of 3 labels are missing, first that of row 1; leave"):
        quality((W[:3], H), labels)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="49 labels and 50 rows of W"):
        quality((W, H), LABELS[:49])
    with pytest.raises(ValueError, match="2 clusters and 3 labels"):
        purity([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="shape"):
        purity([[1, 2]], [1, 2])
    with pytest.raises(ValueError, match=r"W is \(50, 4\) and H \(3, 30\)"):
        quality((W, H[:3]))
    with pytest.raises(ValueError, match=r"V is \(30, 50\)"):
        rss((W @ H).T, W, H)
    with pytest.raises(ValueError, match="not finite"):
        rss(np.full((50, 30), np.nan), W, H)
    with pytest.raises(ValueError, match="not finite"):
        rss(np.ma.masked_less(W @ H, (W @ H).mean()), W, H)
    with pytest.raises(TypeError, match="Dask"):
        rss(da.ones((50, 30)), W, H)


def test_scores_of_features_in_closed_form() -> None:
    h = np.array([[1.0, 2, 0, 0, 3], [1.0, 0, 0, 0, 1], [1.0, 0, 5, 0, 0]])
    mixed = 1 - scipy.stats.entropy([0.75, 0.25]) / np.log(3)
    np.testing.assert_allclose(feature_score(h), [0, 1, 1, np.nan, mixed], atol=1e-15)
    np.testing.assert_array_equal(feature_score(h, "max"), [1, 2, 5, 0, 3])
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(feature_score(da.from_array(h), "max"), [1, 2, 5, 0, 3])
    assert np.isnan(feature_score([[1, 2]])).all()
    with pytest.raises(ValueError, match="'min'; give"):
        feature_score(h, "min")


def test_features_with_high_scores() -> None:
    """Of 40 columns, 4 are of one component only; one of these is below the median of H."""
    h = 1 + 0.01 * random.random((3, 40))
    h[:, [5, 7, 11, 20]] = [[0, 9, 0, 4], [0, 0.2, 0, 0], [0.5, 0, 6, 0]]
    assert [columns.tolist() for columns in extract_features(h)] == [[20, 7], [], [11]]
    threshold = np.median(feature_score(h)) + 3 * scipy.stats.median_abs_deviation(
        feature_score(h), scale="normal"
    )
    assert set(np.flatnonzero(feature_score(h) >= threshold)) == {5, 7, 11, 20}
    assert [columns.tolist() for columns in extract_features(np.zeros((2, 3)))] == [[], []]


def test_features_ahead_of_all_other_components() -> None:
    h = np.array([[9.0, 5, 4, 1], [1.0, 6, 2, 3], [0.0, 0, 2, 3]])
    assert [columns.tolist() for columns in extract_features(h, "max")] == [[0], [1], []]
    assert [columns.tolist() for columns in extract_features([[1, 3, 2]], "max")] == [[1, 2, 0]]
