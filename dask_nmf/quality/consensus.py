"""Consensus of the clusters of several runs: how often two rows of V fall into one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np
import scipy  # which imports a part at its first use, so that commands start sooner

from dask_nmf import rng
from dask_nmf.types import Array

MOST_ROWS = 2000  # of the sample: its consensus matrix takes 32 MB
BOUNDS = 0.1, 0.9  # of consensus values that are ambiguous
UNTIED = 1e-9  # added to distances at most, where SciPy's tree of equal ones is not valid


class Consensus(NamedTuple):
    """The agreement of the clusters of several runs; all but the matrix is NaN for a single run or row.

    Examples
    --------
    >>> from dask_nmf.quality import agreement
    >>> consensus = agreement([[0, 0, 1], [1, 1, 0]])
    >>> consensus.matrix.shape, consensus.dispersion
    ((3, 3), 1.0)
    """

    matrix: Array  # share of runs in which two rows are in one cluster, (rows, rows)
    order: Array  # order of the rows in which clusters are adjacent, for a picture, (rows,)
    cophenetic: float
    dispersion: float
    ambiguous: float  # proportion of ambiguous clustering
    relative_ambiguous: float  # the same, as a multiple of that of unrelated clusters of the same sizes


def sample_rows(n_rows: int, seed: int, size: int = MOST_ROWS) -> Array:
    """Return the numbers of the rows of a sample, rising: all rows if there are at most ``size``.

    One row is drawn from each of ``size`` ranges of equal length, by a hash of (seed, range), so that the
    sample does not depend on how V is cut.

    Examples
    --------
    >>> from dask_nmf.quality import sample_rows
    >>> sample_rows(3, seed=0), sample_rows(10**7, seed=0).shape
    (array([0, 1, 2]), (2000,))
    """
    if n_rows <= size:
        return np.arange(n_rows)
    edges = np.arange(size + 1) * n_rows // size
    shares = rng.uniform(seed, rng.Stream.CONSENSUS_ROWS, np.arange(size))[:, 0]
    return edges[:-1] + (shares * np.diff(edges)).astype(np.int64)


def agreement(clusters: Sequence[Array]) -> Consensus:
    """Return the agreement of several runs on the clusters of the same rows.

    Parameters
    ----------
    clusters : the cluster of each row, (rows,), of each run; see `cluster_indices`. Clusters of different
        runs need not have the same numbers.

    Examples
    --------
    >>> from dask_nmf.quality import agreement
    >>> agreement([[0, 0, 1, 1], [1, 1, 0, 0]]).cophenetic  # the same groups under other numbers
    1.0
    """
    matrix = consensus_matrix(clusters)
    if len(clusters) < 2 or len(matrix) < 2:
        return Consensus(matrix, np.arange(len(matrix)), nan, nan, nan, nan)
    tree, distances = _tree(matrix)
    ambiguous = ambiguous_share(matrix)
    by_chance = _ambiguous_by_chance(clusters)
    return Consensus(
        matrix,
        scipy.cluster.hierarchy.leaves_list(tree),
        _correlation(tree, distances),
        dispersion(matrix),
        ambiguous,
        ambiguous / by_chance if by_chance > 0 else nan,
    )


def consensus_matrix(clusters: Sequence[Array]) -> Array:
    """Return the share of runs in which two rows are in the same cluster, (rows, rows), float64.

    (Brunet et al., PNAS 101:4164, 2004; ``consensus`` of R's package NMF.)

    Raises
    ------
    ValueError
        If there is no run, or the runs are of different rows.

    Examples
    --------
    >>> from dask_nmf.quality import consensus_matrix
    >>> consensus_matrix([[0, 0, 1], [0, 1, 1]])
    array([[1. , 0.5, 0. ],
           [0.5, 1. , 0.5],
           [0. , 0.5, 1. ]])
    """
    labels = [np.asarray(labels) for labels in clusters]
    if len({label.shape for label in labels}) != 1 or labels[0].ndim != 1:
        raise ValueError(
            f"clusters are of shapes {[label.shape for label in labels]}; give one cluster a row, of the "
            "same rows for every run, and at least one run"
        )
    together = np.zeros((len(labels[0]), len(labels[0])), np.int32)
    for label in labels:
        together += label[:, None] == label
    return together / len(labels)


def cophenetic_correlation(matrix: Array) -> float:
    """Return the correlation of 1 - C with the distances in its tree of average linkage.

    It is 1 if the tree reproduces all distances, as for a consensus of zeros and ones (Brunet et al., PNAS
    101:4164, 2004; ``cophcor`` of R's package NMF, which has no value if all distances are alike).

    Examples
    --------
    >>> from dask_nmf.quality import consensus_matrix, cophenetic_correlation
    >>> cophenetic_correlation(consensus_matrix([[0, 0, 1, 1]] * 3))
    1.0
    """
    return _correlation(*_tree(matrix))


def dispersion(matrix: Array) -> float:
    """Return the dispersion of a consensus matrix C, the mean of 4 (C - ½)²: 1 if it is all zeros and ones.

    (Kim & Park, Bioinformatics 23:1495, 2007; ``dispersion`` of R's package NMF.)

    Examples
    --------
    >>> from dask_nmf.quality import consensus_matrix, dispersion
    >>> dispersion(consensus_matrix([[0, 0, 1, 1]] * 3))
    1.0
    """
    return float(np.mean(4 * (matrix - 0.5) ** 2))


def ambiguous_share(matrix: Array, bounds: tuple[float, float] = BOUNDS) -> float:
    """Return the proportion of ambiguous clustering: the share of pairs of rows with a C in (low, high].

    It is F(high) - F(low) for the distribution F of C over pairs of rows, and 0 for a perfect consensus
    (Şenbabaoğlu, Michailidis & Li, Scientific Reports 4:6207, 2014).

    Examples
    --------
    >>> from dask_nmf.quality import ambiguous_share, consensus_matrix
    >>> ambiguous_share(consensus_matrix([[0, 0, 1, 1]] * 3))
    0.0
    """
    values = matrix[np.triu_indices(len(matrix), 1)]
    return float(np.mean((values > bounds[0]) & (values <= bounds[1]))) if len(values) else nan


def _tree(matrix: Array) -> tuple[Array, Array]:
    """Return the tree of average linkage of 1 - C, and these distances, condensed.

    SciPy sorts merges by their distance. Where many are equal, rounding may put one before its parts, and the
    tree is not valid. Distances that differ by a billionth have no such ties.
    """
    distances = scipy.spatial.distance.squareform(1 - matrix, checks=False)
    tree = scipy.cluster.hierarchy.linkage(distances, "average")
    if len(tree) and not scipy.cluster.hierarchy.is_valid_linkage(tree):
        untied = distances + UNTIED * np.random.default_rng(0).random(len(distances))
        tree = scipy.cluster.hierarchy.linkage(untied, "average")
    return tree, distances


def _correlation(tree: Array, distances: Array) -> float:
    return 1.0 if np.ptp(distances) == 0 else float(scipy.cluster.hierarchy.cophenet(tree, distances)[0])


def _ambiguous_by_chance(clusters: Sequence[Array]) -> float:
    """Return the expected share of ambiguous pairs if the clusters of the runs were unrelated.

    Two rows are together in a run with the probability p_r = Σ_c n_c (n_c - 1) / (n (n - 1)) for clusters of
    n_c rows each, so that the number of runs in which they are together has a Poisson binomial distribution.
    """
    rows = len(clusters[0])
    chances = np.ones(1)
    for labels in clusters:
        sizes = np.unique(labels, return_counts=True)[1]
        together = float((sizes * (sizes - 1)).sum()) / (rows * (rows - 1))
        chances = np.convolve(chances, [1 - together, together])
    values = np.arange(len(chances)) / len(clusters)
    return float(chances[(values > BOUNDS[0]) & (values <= BOUNDS[1])].sum())
