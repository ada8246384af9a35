"""Reports of runs and selections for people: one HTML file that needs no network."""

from dask_nmf.report.writing import write

__all__ = ["write"]
