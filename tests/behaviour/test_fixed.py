"""One factor that is known: the other is the best for it, as SciPy and scikit-learn find it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import nnls
from sklearn.decomposition._nmf import _beta_divergence, non_negative_factorization
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.runs import assert_same_bits

from dask_nmf import Result, Run, nmf, transform
from dask_nmf.errors import RunMismatch

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
KINDS: dict[str, Callable[[Array], Any]] = {
    "numpy": np.asarray,
    "csr": scipy.sparse.csr_array,
    "dask": lambda v: da.from_array(v, chunks=(7, 9)),
}

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
names = pytest.mark.parametrize("name", ["W", "H"])


def problem(shape: tuple[int, int], dtype: Any = np.float64) -> tuple[Array, dict[str, Array]]:
    """V of which a tenth are zeros, and factors that are not its best."""
    v = low_rank(*shape, RANK, noise=1)
    v[v < np.quantile(v, 0.1)] = 0
    random = np.random.default_rng(1)
    known = {"W": random.random((shape[0], RANK)), "H": random.random((RANK, shape[1]))}
    return v.astype(dtype), {name: factor.astype(dtype) for name, factor in known.items()}


def fit(v: Any, name: str, known: dict[str, Array], **options: Any) -> Result:
    """With the factor of that name fixed."""
    fixed: dict[str, Any] = {f"fixed_{name}": known[name]}
    return nmf(v, RANK, **fixed, **options)


def found(result: Result, name: str) -> Array:
    """The factor that was not fixed, as the rows of W are: (rows of V, k), or (columns of V, k)."""
    return np.asarray(result.W if name == "H" else result.H.T)


def seen(v: Array, name: str, known: dict[str, Array]) -> tuple[Array, Array]:
    """V and the fixed factor so that it is H that is fixed."""
    return (v, known["H"]) if name == "H" else (v.T, known["W"].T)


@pairwise({"kind": KINDS, "name": ["W", "H"], "shape": SHAPES})
def test_the_other_factor_is_that_of_nnls(shape: tuple[int, int], name: str, kind: Any) -> None:
    v, known = problem(shape)
    result = fit(kind(v), name, known)
    turned, h = seen(v, name, known)
    expected = np.array([nnls(h.T, row)[0] for row in turned])
    np.testing.assert_allclose(found(result, name), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(getattr(result, name), known[name])
    assert result.reconstruction_err == pytest.approx(np.linalg.norm(turned - expected @ h), rel=1e-9)
    assert (result.n_iter, len(result.error_history)) == (0, 0)
    assert result.message.startswith(f"converged: {name} is fixed")


@pairwise(
    {
        "alpha": [0.0, 0.1],
        "kind": [np.asarray, scipy.sparse.csr_array],
        "name": ["W", "H"],
        "shape": SHAPES,
    }
)
def test_for_kullback_and_leibler_it_is_where_multiplicative_updates_end(
    shape: tuple[int, int], name: str, kind: Any, alpha: float
) -> None:
    v, known = problem(shape)
    result = fit(kind(v), name, known, beta_loss="kullback-leibler", alpha_W=alpha, l1_ratio=0.5)
    turned, h = seen(v, name, known)
    w = np.ones((len(turned), RANK))
    half = 0.5 * alpha * turned.shape[1]
    for _ in range(3000):
        w *= (turned / (w @ h)) @ h.T / (h.sum(axis=1) + half + half * w)
    np.testing.assert_allclose(found(result, name), w, rtol=2e-3, atol=1e-3)
    if alpha == 0:
        assert result.reconstruction_err <= _beta_divergence(turned, w, h, 1, square_root=True) * (1 + 1e-8)


@pairwise(
    {
        "penalty": {"no penalty": {}, "penalised": {"alpha_W": 0.02, "alpha_H": 0.1}},
        "beta_loss": ["frobenius", "kullback-leibler", 1.5],
        "shape": SHAPES,
    }
)
def test_a_fixed_h_is_scikit_learns_h_that_is_not_updated(
    shape: tuple[int, int], beta_loss: Any, penalty: dict[str, float]
) -> None:
    v, known = problem(shape)
    of = {"solver": "cd" if beta_loss == "frobenius" else "mu", "beta_loss": beta_loss, "tol": 1e-8}
    theirs = non_negative_factorization(
        v, H=known["H"], update_H=False, max_iter=1000, **of, **{"alpha_W": 0.0, **penalty}
    )[0]
    ours = fit(v, "H", known, solver="mu", beta_loss=beta_loss, **penalty)
    # (no L1 here: with a fixed H, theirs adds it anew in each update of Kullback & Leibler's)
    np.testing.assert_allclose(ours.W, theirs, rtol=1e-2, atol=2e-3 * theirs.max())


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler", 1.5])
@shapes
def test_a_fixed_w_of_v_is_a_fixed_h_of_its_transpose(shape: tuple[int, int], beta_loss: Any) -> None:
    v, known = problem(shape)
    of: dict[str, Any] = {"solver": "mu", "beta_loss": beta_loss, "l1_ratio": 0.5}
    one = fit(v, "W", known, alpha_H=0.1, **of)
    other = fit(v.T, "H", {"H": known["W"].T}, alpha_W=0.1, **of)
    size = float(np.max(one.H))
    np.testing.assert_allclose(one.H, other.W.T, rtol=1e-3, atol=1e-3 * size)


@names
@shapes
def test_only_entries_that_count_count(shape: tuple[int, int], name: str) -> None:
    v, known = problem(shape)
    there = np.random.default_rng(2).random(shape) < 0.7
    turned, h = seen(np.where(there, v, np.nan), name, known)
    expected = [nnls(h.T[(there_ := ~np.isnan(row))], row[there_])[0] for row in turned]
    missing = fit(np.where(there, v, np.nan), name, known, missing="nan")
    weighted = fit(v, name, known, weights=there.astype(float))
    for result in (missing, weighted):
        np.testing.assert_allclose(found(result, name), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
@shapes
def test_a_fixed_h_gives_what_transform_gives(shape: tuple[int, int], beta_loss: str) -> None:
    v, known = problem(shape)
    expected = transform(v, known["H"], beta_loss=beta_loss, alpha_W=0.01)
    assert expected is not None
    result = fit(v, "H", known, beta_loss=beta_loss, alpha_W=0.01)
    np.testing.assert_allclose(result.W, expected, rtol=1e-5, atol=1e-6)


@names
@shapes
def test_factors_have_the_dtype_of_v(shape: tuple[int, int], name: str) -> None:
    v, known = problem(shape, np.float32)
    result = fit(v, name, {key: factor.astype(np.float64) for key, factor in known.items()})
    assert result.W.dtype == result.H.dtype == np.float32
    wide, expected = problem(shape)
    np.testing.assert_allclose(
        found(result, name), found(fit(wide, name, expected), name), rtol=1e-2, atol=1e-3
    )


@pairwise({"beta_loss": ["frobenius", "kullback-leibler"], "name": ["W", "H"], "shape": SHAPES})
def test_a_store_holds_it_and_a_finished_run_stays_as_it_is(
    shape: tuple[int, int], name: str, beta_loss: str, tmp_path: Path
) -> None:
    v, known = problem(shape)
    chunked = da.from_array(v, chunks=(7, 9))
    place = tmp_path / "run.zarr"
    first = fit(chunked, name, known, beta_loss=beta_loss, store=place)
    expected = found(fit(v, name, known, beta_loss=beta_loss), name)
    np.testing.assert_allclose(found(first, name), expected, rtol=1e-6)
    assert Run.load(place).record["finished"]
    assert_same_bits(fit(chunked, name, known, beta_loss=beta_loss, store=place), first)
    other = {key: 2 * factor for key, factor in known.items()}
    with pytest.raises(RunMismatch, match=f"fixed_{name} is"):
        fit(chunked, name, other, beta_loss=beta_loss, store=place)
    with pytest.raises(RunMismatch, match=f"fixed_{name} is None"):
        nmf(chunked, RANK, beta_loss=beta_loss, store=place)
    again = fit(chunked, name, other, beta_loss=beta_loss, store=place, overwrite=True)
    np.testing.assert_allclose(found(again, name), expected / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fixed_W": np.ones((60, RANK)), "fixed_H": np.ones((RANK, 25))}, "give one, and no init"),
        ({"fixed_H": np.ones((RANK, 25)), "init": "random"}, "give one, and no init"),
        ({"fixed_H": np.ones((RANK, 25)), "init": "custom"}, "give one, and no init"),
        ({"fixed_H": np.ones((RANK, 25)), "W": np.ones((60, RANK))}, "leave W and H out"),
        ({"fixed_W": np.ones((60, RANK)), "H": np.ones((RANK, 25))}, "leave W and H out"),
        ({"fixed_H": np.ones((RANK, 25)), "solver": "sgd"}, "solvers 'hals' and 'mu'"),
        ({"fixed_H": np.ones((RANK, 24))}, r"fixed_H has shape \(3, 24\).*\(3, 25\)"),
        ({"fixed_W": np.ones((RANK, 60))}, r"fixed_W has shape \(3, 60\).*\(60, 3\)"),
        ({"fixed_H": np.zeros((RANK, 25))}, "fixed_H is zero everywhere"),
        ({"fixed_H": -np.ones((RANK, 25))}, "fixed_H has -1.0 at row 0, column 0"),
        ({"fixed_W": np.full((60, RANK), np.nan)}, "fixed_W has nan at row 0, column 0"),
        ({"fixed_H": np.ones((RANK, 25)), "beta_loss": 0.5}, "take solver 'mu'"),
    ],
)
def test_what_cannot_be_fixed_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        nmf(np.ones((60, 25)), RANK, **options)


@pairwise({"value": [-1.0, np.nan, np.inf], "name": ["W", "H"], "shape": SHAPES})
def test_a_bad_entry_of_v_is_named(shape: tuple[int, int], name: str, value: float) -> None:
    v, known = problem(shape)
    v[4, 5] = value
    with pytest.raises(ValueError, match="row 4, column 5"):
        fit(v, name, known)
