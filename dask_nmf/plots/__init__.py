"""Figures of results, on axes of Matplotlib."""

from dask_nmf.plots.consensus import plot_consensus
from dask_nmf.plots.factors.components import plot_components
from dask_nmf.plots.files import save_figures
from dask_nmf.plots.passes import plot_error
from dask_nmf.plots.ranks import plot_errors, plot_stability

__all__ = ["plot_components", "plot_consensus", "plot_error", "plot_errors", "plot_stability", "save_figures"]
