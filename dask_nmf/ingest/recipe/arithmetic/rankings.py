"""Rankings of columns, by which the most variable ones are kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dask_nmf.ingest.recipe.arithmetic.statistics import Moments, column_sums
from dask_nmf.types import Array, Block

BINS = 20  # of mean values in Seurat's ranking
LEAST_MEAN = 1e-12  # that stands for a mean of 0


def top_places(scores: Array, number: int) -> Array:
    """Return the places of the highest scores in ascending order; of equal ones the first; NaN is lowest."""
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    return np.sort(order[:number])


def column_scores(blocks: Iterable[Block], ranking: str) -> Array:
    """Return the scores of columns by a ranking: their variances, sums, or Seurat's dispersions, (n,)."""
    if ranking == "sum":
        return column_sums(blocks)
    moments = Moments(blocks)
    variance = moments.variance(1)
    return variance if ranking == "variance" else normalized_dispersions(moments.mean, variance)


def normalized_dispersions(mean: Array, variance: Array) -> Array:
    """Return how far the dispersion of each column is above that of columns with a similar mean, (n,).

    The logarithm of variance / mean is standardised within 20 bins of equal width of ln(1 + mean). This is
    method "mean.var.plot" of Seurat (Satija et al., 2015), and flavor "seurat" of scanpy's
    ``highly_variable_genes``. NaN where a column is constant; 1 where it is alone in its bin.
    """
    mean = np.where(mean == 0, LEAST_MEAN, mean)
    with np.errstate(divide="ignore"):
        dispersion = np.log(variance / mean)
    dispersion[np.isneginf(dispersion)] = np.nan
    bins = _bins(np.log1p(mean))
    known = ~np.isnan(dispersion)
    values, bins_of_values = dispersion[known], bins[known]
    count = np.bincount(bins_of_values, minlength=BINS)
    average = np.bincount(bins_of_values, values, BINS) / np.maximum(count, 1)
    squares = np.bincount(bins_of_values, (values - average[bins_of_values]) ** 2, BINS)
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (dispersion - average[bins]) / deviation[bins]
    return np.where(known & (count[bins] == 1), 1.0, scores)


def _bins(levels: Array) -> Array:
    """Return the bin of each level, which are of equal width and contain their upper edge."""
    low, high = levels.min(), levels.max()
    if low == high:
        return np.zeros(len(levels), np.int64)
    edges = np.linspace(low, high, BINS + 1)[1:-1]
    return np.searchsorted(edges, levels, side="left")
