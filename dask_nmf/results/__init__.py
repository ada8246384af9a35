"""Finished runs: their best columns by name, exports, a comparison of two, and checks of what is stored."""

from dask_nmf.results.comparison import Comparison, compare
from dask_nmf.results.exports.export import export
from dask_nmf.results.leading.best import Leading, top
from dask_nmf.results.stored_arrays import Check
from dask_nmf.results.verification import verify

__all__ = ["Check", "Comparison", "Leading", "compare", "export", "top", "verify"]
