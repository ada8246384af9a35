"""Features that are specific of a component: columns of H, which are columns of V."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from dask_nmf.quality.unlabelled import h_matrix
from dask_nmf.types import Array

METHODS = "kim", "max"
NORMAL = 1.4826  # times the median absolute deviation: the standard deviation of normal numbers, as R's `mad`
DEVIATIONS = 3  # a score is high if it is this many deviations above the median


def feature_score(H: Any, method: str = "kim") -> Array:
    """Return how specific each feature is of one component, (n,), float64.

    These are the scores of ``featureScore`` of R's package NMF, in which a feature is a row of V. Here a
    feature is a column of V, so that its entries are a column of H.

    Parameters
    ----------
    H : (k, n), whatever NumPy can make an array of. Scores depend on the scales of its rows; give them a
        norm of 1 (``normalize="l1"`` of a fit) to compare components of different sizes.
    method : "kim": 1 + Σ_t p_tj log p_tj / log k, where p_tj is the share of component t in column j of H. It
        is 0 if all components share the feature alike, and 1 if it occurs in one only (Kim & Park,
        Bioinformatics 23:1495, 2007); NaN where H has a column of zeros, and if k is 1.
        "max": the largest entry of the column (Carmona-Saez et al., BMC Bioinformatics 7:78, 2006).

    Examples
    --------
    >>> from dask_nmf.quality import feature_score
    >>> feature_score([[1.0, 0.5, 0.0], [0.0, 0.5, 2.0]])
    array([1., 0., 1.])
    """
    h = _checked(H, method)
    if method == "max":
        return np.asarray(h.max(axis=0))
    if len(h) == 1:
        return np.full(h.shape[1], np.nan)
    totals = h.sum(axis=0)
    shares = np.divide(h, totals, out=np.full_like(h, np.nan), where=totals > 0)
    return np.asarray(1 + xlogy(shares, shares).sum(axis=0) / np.log(len(h)))


def extract_features(H: Any, method: str = "kim") -> list[Array]:
    """Return the features that are most specific of each component, k arrays of column numbers of V.

    These are the features of ``extractFeatures`` of R's package NMF, counted from 0, in which a feature is a
    row of V. A component without such a feature has an empty array.

    Parameters
    ----------
    H : (k, n), as for `feature_score`.
    method : "kim": columns whose score is at least the median plus three deviations (1.4826 times the median
        absolute deviation) of all scores, and whose largest entry is at least the median of H; those of the
        component with the largest entry, by falling score (Kim & Park, Bioinformatics 23:1495, 2007).
        "max": columns by falling entries of the component, up to the first one that has an entry as large in
        another component (Carmona-Saez et al., BMC Bioinformatics 7:78, 2006).

    Examples
    --------
    >>> from dask_nmf.quality import extract_features
    >>> extract_features([[9.0, 0.0, 1.0], [0.0, 8.0, 1.0]], method="max")
    [array([0]), array([1])]
    """
    h = _checked(H, method)
    return _ahead_of_others(h) if method == "max" else _high_scores(h)


def _checked(H: Any, method: str) -> Array:
    if method not in METHODS:
        raise ValueError(f'method is {method!r}; give "kim" or "max"')
    h = np.asarray(h_matrix(H), np.float64)
    if h.ndim != 2 or not h.size:
        raise ValueError(f"H is {h.shape}; it must be (k, n), with at least one entry")
    return h


def _high_scores(h: Array) -> list[Array]:
    scores = feature_score(h)
    known = scores[~np.isnan(scores)]
    if not len(known):
        return [np.empty(0, np.intp) for _ in h]
    middle = np.median(known)
    threshold = middle + DEVIATIONS * NORMAL * np.median(np.abs(known - middle))
    chosen = (scores >= threshold) & (h.max(axis=0) >= np.median(h))
    order = np.argsort(-scores, kind="stable")
    order = order[chosen[order]]
    owners = h.argmax(axis=0)[order]
    return [order[owners == component] for component in range(len(h))]


def _ahead_of_others(h: Array) -> list[Array]:
    found = []
    for component, row in enumerate(h):
        order = np.argsort(-row, kind="stable")
        rivals = np.delete(h, component, axis=0).max(axis=0, initial=-np.inf)
        behind = rivals[order] >= row[order]
        found.append(order[: behind.argmax()] if behind.any() else order)
    return found
