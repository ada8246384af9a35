"""`partial_fit`: batches of rows, in whatever order, beside a fit of all of them."""

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import MiniBatchNMF
from sklearn.decomposition._nmf import _beta_divergence
from sources import Array

from dask_nmf import NMF, transform
from dask_nmf.measures import BadEntry

RANK = 5
LOSSES = {"frobenius": 2, "kullback-leibler": 1}
losses = pytest.mark.parametrize("loss", LOSSES)


def rows(loss: str, sort: bool) -> Array:
    """Rows of some kinds, one kind after the other or mixed."""
    random = np.random.default_rng(0)
    kinds = np.sort(random.integers(0, RANK, 1500))
    w = random.gamma(0.3, 0.3, (1500, RANK))
    w[np.arange(1500), kinds] += random.gamma(2, 1, 1500)
    v = w @ random.gamma(0.5, 1, (RANK, 80))
    v = (
        random.poisson(v).astype(float)
        if loss != "frobenius"
        else v + 0.3 * v.mean() * random.random(v.shape)
    )
    return v if sort else v[random.permutation(1500)]


def error(v: Array, h: Array, loss: str) -> float:
    w = transform(v, h, beta_loss=loss)
    assert w is not None
    return float(_beta_divergence(v, np.asarray(w), h, LOSSES[loss]))


@losses
@pytest.mark.parametrize(("sort", "worse"), [(False, 1.02), (True, 1.2)])
def test_one_look_at_every_batch_is_nearly_a_fit(loss: str, sort: bool, worse: float) -> None:
    v = rows(loss, sort)
    whole = error(v, NMF(RANK, beta_loss=loss, random_state=0).fit(v).components_, loss)
    model, theirs = (
        NMF(RANK, beta_loss=loss, random_state=0),
        MiniBatchNMF(RANK, beta_loss=loss, random_state=0),
    )
    for batch in np.array_split(v, 10):
        model.partial_fit(batch)
        theirs.partial_fit(batch)
    reached = error(v, model.components_, loss)
    assert reached <= worse * whole
    assert reached <= error(v, theirs.components_, loss)
    assert model.n_steps_ == 10


def test_the_kind_of_batch_does_not_matter() -> None:
    v = rows("kullback-leibler", False)
    models = [NMF(RANK, beta_loss=1, random_state=0) for _ in range(2)]
    for batch in np.array_split(v, 3):
        models[0].partial_fit(batch)
        models[1].partial_fit(scipy.sparse.csr_array(batch))
    np.testing.assert_allclose(models[0].components_, models[1].components_, rtol=1e-6, atol=1e-9)


@losses
def test_it_goes_on_where_it_was_pickled(loss: str) -> None:
    first, *rest = np.array_split(rows(loss, False), 4)
    model = NMF(RANK, beta_loss=loss, random_state=0).partial_fit(first)
    copy = pickle.loads(pickle.dumps(model))
    for batch in rest:
        model.partial_fit(batch)
        copy.partial_fit(batch)
    np.testing.assert_array_equal(model.components_, copy.components_)


def test_forgetting_follows_what_changes() -> None:
    random = np.random.default_rng(0)
    before, after = (random.gamma(0.5, 1, (RANK, 80)) for _ in range(2))
    noise = 0.3
    batches = [
        random.gamma(0.5, 1, (300, RANK)) @ h + noise * random.random((300, 80))
        for h in [before] * 3 + [after] * 6
    ]
    last = batches.pop()
    errors = []
    for factor in (1.0, 0.3):
        model = NMF(RANK, random_state=0, forget_factor=factor)
        for batch in batches:
            model.partial_fit(batch)
        errors.append(error(last, model.components_, "frobenius"))
    assert errors[1] < 0.7 * errors[0]


def test_it_begins_with_a_given_h_or_a_fit() -> None:
    v = rows("frobenius", False)
    known = NMF(RANK, random_state=0).fit(v).components_
    model = NMF(RANK, random_state=0).partial_fit(v[:500], H=known)
    assert error(v, model.components_, "frobenius") <= 1.05 * error(v, known, "frobenius")
    fitted = NMF(RANK, random_state=0).fit(v[:500])
    assert fitted.partial_fit(v[500:]).n_steps_ == 1


@pytest.mark.parametrize(
    ("options", "batch", "words"),
    [
        ({"solver": "mu"}, np.ones((9, 8)), "partial_fit"),
        ({"beta_loss": 0.5}, np.ones((9, 8)), "hals"),
        ({}, -np.ones((9, 8)), "Negative values"),
        ({}, np.ones((9, 7)), "7 features"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], batch: Array, words: str) -> None:
    with pytest.raises((ValueError, AttributeError, BadEntry), match=words):
        NMF(2, **options).partial_fit(np.random.default_rng(0).random((9, 8))).partial_fit(batch)
