"""Standard errors of components against a bootstrap that is refitted sample by sample."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.examples import EXAMPLES
from support.matrices import Array

from dask_nmf import nmf, select_rank

pytestmark = pytest.mark.real
REFITS = 50


def digits() -> Array:
    return np.asarray(load_digits().data)


def tumours() -> Array:
    with np.load(EXAMPLES / "data" / "hrdetect_sbs96.npz") as stored:
        return stored["X"].astype(np.float64)


@pytest.mark.parametrize(("data", "rank"), [(digits, 10), (tumours, 6)])
def test_standard_errors_are_those_of_refits(data: object, rank: int) -> None:
    assert callable(data)
    V = data()
    found = select_rank(V, rank, n_init=1, error_bars=30)
    assert found.result is not None
    assert found.components_stderr is not None
    H, random, samples = found.result.H.compute(), np.random.default_rng(0), []
    for _ in range(REFITS):
        rows = random.integers(0, len(V), len(V))
        own = nmf(V[rows], rank, init="custom", H=H, tol=1e-6).H.compute()
        samples.append(own * (H.sum(axis=1) / own.sum(axis=1))[:, None])
    sums = H.sum(axis=1, keepdims=True)
    ours, theirs = (error / sums for error in (found.components_stderr, np.std(samples, axis=0, ddof=1)))
    large = theirs > 0.01 * theirs.max()
    ratios = ours[large] / theirs[large]
    correlation = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    rms = np.sqrt((ours**2).sum() / (theirs**2).sum())
    assert correlation > 0.9
    assert 1 / 1.5 < np.median(ratios) < 1.5
    assert 1 / 1.5 < rms < 1.5
