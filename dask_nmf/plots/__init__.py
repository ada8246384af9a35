"""Figures of results, on axes of Matplotlib."""

from dask_nmf.plots.consensus import plot_consensus
from dask_nmf.plots.files import save_figures
from dask_nmf.plots.ranks import plot_errors, plot_stability

__all__ = ["plot_consensus", "plot_errors", "plot_stability", "save_figures"]
