"""Matrices that every checkout has, and the lowest objective that scikit-learn reaches for each.

    PYTHONPATH=tests python -m support.references

computes the objectives anew and writes them to reference_objectives.json, beside this file: the best of six
starts (NNDSVDa and five random ones) of at most 1000 iterations each, by coordinate descent for the squared
error ‖V − W H‖² and multiplicative updates for the divergence of Kullback & Leibler. It takes some minutes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import sklearn
from sklearn.datasets import load_digits, load_sample_image
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer

FILE = Path(__file__).with_name("reference_objectives.json")
CARRIED = Path(__file__).resolve().parents[2] / "examples" / "data"
KL = "kullback-leibler"
STARTS = [("nndsvda", 0), *(("random", seed) for seed in range(5))]


class Case(NamedTuple):
    """A matrix with the rank and the loss of its factorisation."""

    make: Callable[[], Any]
    rank: int
    loss: str


def sparse(name: str, folder: Path = CARRIED) -> Any:
    """Return the CSR matrix of a file; SciPy's own reader refuses the wide index of some."""
    with np.load(folder / f"{name}.npz") as held:
        parts = held["data"].astype(np.float64), held["indices"], held["indptr"]
        return scipy.sparse.csr_array(parts, shape=tuple(held["shape"]))


def dense(name: str, folder: Path = CARRIED, key: str = "X") -> Any:
    """Return one array of an .npz file."""
    with np.load(folder / f"{name}.npz") as held:
        return held[key]


def glosses() -> Any:
    """Return the counts of every 40th gloss of WordNet, with the words that are in three of them or more."""
    counts = sparse("wordnet_gloss")[::40]
    return counts[:, np.flatnonzero((counts > 0).sum(axis=0) >= 3)]


def photograph() -> Any:
    """Return scikit-learn's picture of a flower, grey, from 0 to 1, (427, 640)."""
    return load_sample_image("flower.jpg").mean(axis=2) / 255


CASES = {
    "digits": Case(lambda: load_digits().data, 16, "frobenius"),
    "photograph": Case(photograph, 20, "frobenius"),
    "cells": Case(lambda: sparse("pbmc68k_reduced_lognorm"), 10, "frobenius"),
    "tumours": Case(lambda: dense("hrdetect_sbs96"), 6, KL),
    "glosses": Case(glosses, 10, "frobenius"),
    "glosses, tf-idf": Case(
        lambda: TfidfTransformer(sublinear_tf=True).fit_transform(glosses()), 10, "frobenius"
    ),
    "glosses, divergence": Case(glosses, 10, KL),
}


def objective(case: Case, v: Any, init: str, seed: int) -> float:
    """Return the objective that one start of scikit-learn reaches: ‖V − W H‖², or the divergence."""
    model = NMF(
        case.rank, init=init, random_state=seed, max_iter=1000, tol=1e-6,
        beta_loss=case.loss, solver="mu" if case.loss == KL else "cd",
    )  # fmt: skip
    error = float(model.fit(v).reconstruction_err_)
    return error**2 / (2 if case.loss == KL else 1)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    best = {}
    for name, case in CASES.items():
        v = case.make()
        best[name] = min(objective(case, v, init, seed) for init, seed in STARTS)
        print(
            f"{name:20} {v.shape[0]} x {v.shape[1]}, rank {case.rank}, {case.loss}: {best[name]:.6f}",
            flush=True,
        )
    FILE.write_text(
        json.dumps({"scikit-learn": sklearn.__version__, "least objective": best}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
