"""Finished runs: compared with each other, and verified against what is stored and against V."""

from dask_nmf.results.comparison import Comparison, compare
from dask_nmf.results.stored_arrays import Check
from dask_nmf.results.verification import verify

__all__ = ["Check", "Comparison", "compare", "verify"]
