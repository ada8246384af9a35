"""`partial_fit`: batches of rows in any order, compared with a fit of all of them."""

import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import MiniBatchNMF
from support.matrices import Array
from support.streams import error, losses, of_kinds, relative

from dask_nmf import NMF
from dask_nmf.errors import InvalidEntryError

RANK = 5


def rows(loss: str, sort: bool) -> Array:
    """Return rows of some kinds, one kind after the other or mixed."""
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
    with pytest.raises((ValueError, AttributeError, InvalidEntryError), match=words):
        NMF(2, **options).partial_fit(np.random.default_rng(0).random((9, 8))).partial_fit(batch)


def with_late_words(seed: int) -> Array:
    """Return counts, (800, 120); half of the topics have words of their own and come after 50 rows."""
    random = np.random.default_rng(seed)
    topics = np.zeros((6, 120))
    topics[:3, :60], topics[3:, 60:] = (random.dirichlet(np.full(60, 0.1), 3) for _ in range(2))
    shares = random.dirichlet(np.full(6, 0.1), 800)
    shares[:50, 3:] = 0
    return random.poisson(60 * shares / shares.sum(axis=1, keepdims=True) @ topics).astype(float)


@pytest.mark.parametrize(
    ("loss", "v", "rank", "cuts"),
    [
        ("frobenius", of_kinds(1), 8, 24),
        ("kullback-leibler", with_late_words(1), 6, 32),
    ],
    ids=["one kind first", "late words"],
)
def test_what_the_first_batch_did_not_have_is_learned_later(
    loss: str, v: Array, rank: int, cuts: int
) -> None:
    whole = relative(v, NMF(rank, beta_loss=loss, random_state=0).fit(v).components_, loss)
    model = NMF(rank, beta_loss=loss, random_state=0)
    theirs = MiniBatchNMF(rank, beta_loss=loss, random_state=0)
    for batch in np.array_split(v, cuts):
        model.partial_fit(batch)
        theirs.partial_fit(batch)
    reached = relative(v, model.components_, loss)
    assert reached <= 1.03 * whole
    assert reached <= 1.01 * relative(v, theirs.components_, loss)


NOTHING = np.zeros((10, 60))


V = of_kinds(3)[100:340]


@cache
def of_a_fit(loss: str) -> float:
    """Return the relative error of a fit of all of V that has converged."""
    return relative(V, NMF(8, beta_loss=loss, tol=1e-6, random_state=0).fit(V).components_, loss)


@losses
@pytest.mark.parametrize(
    "batches",
    [
        [NOTHING, V],
        [NOTHING, V[:80], NOTHING, NOTHING, V[80:], NOTHING],
        [V[:1], V[1:]],
        [V[:3], NOTHING[:2], V[3:100], V[100:]],
        [*V[:10, None], V[10:]],
    ],
    ids=["zeros first", "zeros anywhere", "one row first", "less than the rank", "row by row"],
)
def test_batches_may_be_zero_or_smaller_than_the_rank(loss: str, batches: list[Array]) -> None:
    model = NMF(8, beta_loss=loss, random_state=1)
    for batch in batches:
        model.partial_fit(batch)
    assert relative(V, model.components_, loss) <= 1.05 * of_a_fit(loss)
    assert model.n_steps_ == len(batches)


@losses
@pytest.mark.parametrize(
    "options",
    [{"missing": "nan"}, {"alpha_W": 1e-3, "l1_ratio": 0.5}, {"weighted": True}, {"forget_factor": 0.9}],
    ids=lambda options: next(iter(options)),
)
def test_so_it_is_with_gaps_penalties_weights_and_forgetting(loss: str, options: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    weighted = options.get("weighted", False)
    model = NMF(8, beta_loss=loss, random_state=0, **{k: o for k, o in options.items() if k != "weighted"})
    for batch in [NOTHING, V[:2], *np.array_split(V[2:], 4)]:
        given = batch.copy()
        if "missing" in options:
            given[random.random(batch.shape) < 0.2] = np.nan
        model.partial_fit(given, weights=0.5 + random.random(batch.shape) if weighted else None)
    assert relative(V, model.components_, loss) <= 1.1 * of_a_fit(loss)


@losses
def test_batches_may_be_held_in_different_ways(loss: str) -> None:
    one, two = (NMF(8, beta_loss=loss, random_state=0) for _ in range(2))
    ways: list[Any] = [np.asarray, scipy.sparse.csr_array, np.float32, scipy.sparse.csc_matrix, np.asarray]
    for number, batch in enumerate(np.array_split(V, 5)):
        one.partial_fit(batch)
        ones = np.ones(batch.shape) if number in (1, 4) else None
        two.partial_fit(ways[number](batch), weights=ones)
    assert two.components_.dtype == np.float64
    assert relative(V, two.components_, loss) == pytest.approx(relative(V, one.components_, loss), rel=0.02)


NOWHERE: dict[str, tuple[Any, dict[str, Any], Any]] = {  # a batch, the options, and its weights
    "nan": (np.full((5, 60), np.nan), {"missing": "nan"}, None),
    "unstored": (scipy.sparse.csr_array((5, 60)), {"missing": "unstored"}, None),
    "weights of 0": (np.ones((5, 60)), {}, np.zeros((5, 60))),
}


@losses
@pytest.mark.parametrize("kind", NOWHERE)
def test_a_batch_of_which_nothing_is_observed_changes_nothing(kind: str, loss: str) -> None:
    nothing, options, weights = NOWHERE[kind]
    some = scipy.sparse.csr_array(V) if kind == "unstored" else V
    ones = None if weights is None else np.ones((120, 60))
    model, other = (NMF(3, beta_loss=loss, random_state=0, **options) for _ in range(2))
    assert not model.partial_fit(nothing, weights=weights).components_.any()
    assert model.components_.shape == (3, 60)
    if loss == "frobenius":
        assert not np.asarray(model.transform(some[:4])).any()
    for batch in (some[:120], some[120:]):
        other.partial_fit(batch, weights=ones)
        model.partial_fit(batch, weights=ones).partial_fit(nothing, weights=weights)
    np.testing.assert_array_equal(model.components_, other.components_)
    assert model.n_steps_ == 5
    known = NMF(3, beta_loss=loss, random_state=0, **options)
    known.partial_fit(nothing, H=other.components_, weights=weights)
    np.testing.assert_array_equal(known.components_, other.components_)


@losses
@pytest.mark.parametrize(("how", "order"), [("l1", 1), ("l2", 2)])
def test_components_of_a_stream_have_the_norm_that_is_asked(how: str, order: int, loss: str) -> None:
    scaled, plain = (NMF(3, beta_loss=loss, random_state=0, normalize=norm) for norm in (how, None))
    for batch in np.array_split(V, 3):
        scaled.partial_fit(batch)
        plain.partial_fit(batch)
        np.testing.assert_allclose(np.linalg.norm(scaled.components_, order, axis=1), 1, rtol=1e-12)
    assert relative(V, scaled.components_, loss) == pytest.approx(
        relative(V, plain.components_, loss), rel=1e-3
    )
    copy = pickle.loads(pickle.dumps(scaled))
    np.testing.assert_array_equal(
        copy.partial_fit(V[:50]).components_, scaled.partial_fit(V[:50]).components_
    )
