"""Clusters of the rows of V by their largest component, and their agreement with known classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import rel_entr

from dask_nmf.types import Array

UNEXPLAINED = -1  # the cluster of rows in which no component occurs


def component_sizes(h: Array) -> Array:
    """Return the Euclidean norms of the rows of H (k, n) in units of the largest entry, (k,), float64."""
    rows = np.abs(np.asarray(h, np.float64))
    largest = rows.max(axis=1, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1)[:, None]  # so that no square underflows
    top = largest.max(initial=0.0)
    return np.asarray(largest / (top if top > 0 else 1) * np.linalg.norm(rows, axis=1))


def largest_components(w: Array, sizes: Array) -> Array:
    """Return the index of the largest component in each row of W (rows, k), as `cluster_indices` does."""
    parts = np.asarray(w, np.float64) * sizes
    return np.where(parts.any(axis=1), parts.argmax(axis=1), UNEXPLAINED)


def cluster_indices(w: Array, h: Array) -> Array:
    """Return the index of the component with the largest part in each row of V ≈ W H, (rows,), int64.

    The part of component t in row i is w_it h_t, and its size is its Euclidean norm, so that the index does
    not depend on how a component's scale is split between W and H. This is ``predict(what = "samples")`` of
    R's package NMF for rows of H of norm 1. A row of zeros of W gets the index -1.

    Parameters
    ----------
    w : (rows, k), any rows of W.
    h : (k, n)

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import cluster_indices
    >>> cluster_indices(np.array([[1.0, 0.2], [0.1, 3.0], [0.0, 0.0]]), np.eye(2))
    array([ 0,  1, -1])
    """
    return largest_components(w, component_sizes(h))


def class_numbers(labels: Any) -> tuple[Array, int]:
    """Return labels as numbers of classes from 0, (rows,), and the number of classes.

    Raises
    ------
    ValueError
        If the labels are not one-dimensional, or one of them is missing (None or NaN).
    """
    given = np.asarray(labels)
    if given.ndim != 1:
        raise ValueError(f"labels are of shape {given.shape}; give one label for each row of V")
    missing = np.ma.getmaskarray(labels) if np.ma.is_masked(labels) else _missing(given)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} of {len(given)} labels are missing, first that of row {missing.argmax()}; "
            "leave out these rows of W, or give them a label of their own"
        )
    classes, numbers = np.unique(given, return_inverse=True)
    return numbers, len(classes)


def _missing(labels: Array) -> Array:
    """Return which labels are None, NaN or another object that is not equal to itself."""
    if labels.dtype.kind in "biuUS":
        return np.zeros(len(labels), bool)
    equal = [label == label for label in labels.tolist()]  # pandas.NA == pandas.NA is no truth value
    known = [isinstance(same, bool | np.bool_) and bool(same) for same in equal]
    none = [label is None for label in labels.tolist()]
    return np.asarray(~np.array(known, bool) | np.array(none, bool))


def count_pairs(clusters: Array, numbers: Array, n_clusters: int, n_classes: int) -> Array:
    """Return how many rows of each cluster are of each class, (n_clusters + 1, n_classes).

    The last row counts the rows of the cluster `UNEXPLAINED`.
    """
    pairs = (clusters % (n_clusters + 1)) * n_classes + numbers
    counts = np.bincount(pairs, minlength=(n_clusters + 1) * n_classes)
    return np.asarray(counts.reshape(-1, n_classes))


def purity_of(counts: Array) -> float:
    """Return the purity of clusters, from how many rows of each are of each class."""
    return float(counts.max(axis=1).sum() / counts.sum())


def entropy_of(counts: Array) -> float:
    """Return the entropy of clusters, from how many rows of each are of each class."""
    classes = np.count_nonzero(counts.sum(axis=0))
    if classes == 1:
        return 0.0
    mixed = -rel_entr(counts, counts.sum(axis=1, keepdims=True)).sum()
    return max(0.0, float(mixed / (counts.sum() * np.log(classes))))


def purity(clusters: Any, labels: Any) -> float:
    """Return the share of rows whose class is the most frequent one of their cluster, in (0, 1].

    Σ_q max_j n_qj / n, where n_qj rows of cluster q are of class j (Kim & Park, Bioinformatics 23:1495,
    2007; ``purity`` of R's package NMF).

    Parameters
    ----------
    clusters, labels : one of each for a row, numbers or strings; see `cluster_indices`.

    Raises
    ------
    ValueError
        If there are no rows, or not as many labels as clusters, or one of them is missing.

    Examples
    --------
    >>> from dask_nmf.quality import purity
    >>> purity([0, 0, 0, 1], ["a", "a", "b", "b"])
    0.75
    """
    return purity_of(_counted(clusters, labels))


def entropy(clusters: Any, labels: Any) -> float:
    """Return how mixed the classes are within clusters: 0 for pure clusters, 1 for classes of equal shares.

    -Σ_q Σ_j n_qj log(n_qj / n_q) / (n log l), where n_qj of the n_q rows of cluster q are of class j, one of
    l (Kim & Park, Bioinformatics 23:1495, 2007; ``entropy`` of R's package NMF). It is 0 if l is 1.

    Parameters
    ----------
    clusters, labels : one of each for a row, numbers or strings; see `cluster_indices`.

    Raises
    ------
    ValueError
        If there are no rows, or not as many labels as clusters, or one of them is missing.

    Examples
    --------
    >>> from dask_nmf.quality import entropy
    >>> entropy([0, 0, 1, 1], ["a", "a", "b", "b"]), entropy([0, 0, 0, 0], ["a", "a", "b", "b"])
    (0.0, 1.0)
    """
    return entropy_of(_counted(clusters, labels))


def _counted(clusters: Any, labels: Any) -> Array:
    (rows, n_clusters), (columns, n_classes) = class_numbers(clusters), class_numbers(labels)
    if len(rows) != len(columns) or not len(rows):
        raise ValueError(
            f"there are {len(rows)} clusters and {len(columns)} labels; give one of each for every row"
        )
    return count_pairs(rows, columns, n_clusters, n_classes)
