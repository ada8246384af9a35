"""Measures of a finished factorisation, and of the agreement of several."""

from dask_nmf.quality.clusters import cluster_indices, entropy, purity
from dask_nmf.quality.consensus import (
    Consensus,
    agreement,
    ambiguous_share,
    consensus_matrix,
    cophenetic_correlation,
    dispersion,
    sample_rows,
)
from dask_nmf.quality.features import extract_features, feature_score
from dask_nmf.quality.matching import Matching, Stability, match_components, match_runs
from dask_nmf.quality.measures import Quality, evar, quality, rss, sparseness
from dask_nmf.quality.recommend import RankSummary, Recommendation, Trial, finished_ranks, recommend_rank

__all__ = [
    "Consensus",
    "Matching",
    "Quality",
    "RankSummary",
    "Recommendation",
    "Stability",
    "Trial",
    "agreement",
    "ambiguous_share",
    "cluster_indices",
    "consensus_matrix",
    "cophenetic_correlation",
    "dispersion",
    "entropy",
    "evar",
    "extract_features",
    "feature_score",
    "finished_ranks",
    "match_components",
    "match_runs",
    "purity",
    "quality",
    "recommend_rank",
    "rss",
    "sample_rows",
    "sparseness",
]
