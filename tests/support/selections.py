"""Selections of a rank that are compared bit for bit."""

import numpy as np

from dask_nmf.selection.result import RankSelection


def assert_same(one: RankSelection, other: RankSelection) -> None:
    """Assert that two selections have the same table, clusters and final fit."""
    assert one.to_dict() == other.to_dict()
    np.testing.assert_array_equal(one.clusters, other.clusters)
    assert one.result is not None
    assert other.result is not None
    for mine, theirs in zip(one.result, other.result, strict=True):
        np.testing.assert_array_equal(mine.compute(), theirs.compute())
