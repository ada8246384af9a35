"""Figures as methods: `Result.plot` and `RankSelection.plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dask_nmf.kernels.summary.residual_sums import Residuals
from dask_nmf.plots.consensus import plot_consensus
from dask_nmf.plots.factors.components import TOP, plot_components
from dask_nmf.plots.factors.reading import components_of, sampled_rows
from dask_nmf.plots.factors.residuals import plot_residuals
from dask_nmf.plots.factors.weights import MOST_ROWS, plot_weights
from dask_nmf.plots.passes import plot_error
from dask_nmf.plots.ranks import plot_errors, plot_stability
from dask_nmf.plots.subjects import Selection
from dask_nmf.types import Array


class FitPlots:
    """Figures of a fit. They need Matplotlib, which is only imported when one is drawn.

    Each method takes axes of Matplotlib as ``ax``, or makes a new figure of pyplot, and returns the axes.
    Without Matplotlib it raises `ValueError`.

    Parameters
    ----------
    factors : W and H, in any form that results have.
    history : (n_iter,), the relative error after each pass.
    rows : the number of rows of W.
    residuals : where W H differs from V; None if it is unknown.
    beta_loss : the β of the loss.
    """

    def __init__(
        self,
        factors: tuple[Any, Any],
        history: Array,
        rows: int,
        residuals: Residuals | None = None,
        beta_loss: float = 2.0,
    ) -> None:
        self._factors, self._history, self._rows = factors, history, rows
        self._residuals, self._squared = residuals, beta_loss == 2

    def error(self, ax: Any = None) -> Any:
        """Draw the relative error after each pass, and return the axes."""
        return plot_error(self._history, ax)

    def components(
        self,
        ax: Any = None,
        *,
        numbers: Sequence[int] | None = None,
        top: int = TOP,
        image_shape: tuple[int, int] | None = None,
    ) -> Array:
        """Draw each component, and return an array of axes.

        If V was a `DataArray` whose rows are images, components are images; if its columns have numbers in
        order as labels, they are lines; otherwise the largest columns of each are bars with their names.

        Parameters
        ----------
        ax : axes whose space is divided, or one for each component; None for a new figure.
        numbers : of the components to draw, from 0; None for the first 16.
        top : the number of bars.
        image_shape : height and width of the images that rows of V are.

        Raises
        ------
        ValueError
            If there is no such component, or the images or the axes do not fit.
        """
        found = components_of(self._factors[1])
        return plot_components(found, ax, numbers=numbers, top=top, image_shape=image_shape)

    def weights(self, ax: Any = None) -> Any:
        """Draw W as a heat map whose rows are ordered by their largest component, and return the axes.

        Of a W of more than 2000 rows, 2000 evenly spaced ones are drawn; it is read once, chunk by chunk.
        """
        rows = sampled_rows(self._factors[0], self._rows, MOST_ROWS)
        return plot_weights(rows, self._rows, ax)

    def residuals(self, ax: Any = None) -> Any:
        """Draw where W H differs from V, as a heat map of blocks of rows and columns, and return the axes.

        The shade of a block is its loss by its size: the part of its ‖V‖² that is not explained, or its mean
        divergence in units of that of V.

        Raises
        ------
        ValueError
            If it is not known: V was cut both ways, entries were held out, or rows were changed since.
        """
        return plot_residuals(self._residuals, self._squared, ax)


class SelectionPlots:
    """Figures of a selection of ranks. They need Matplotlib, which is only imported when one is drawn.

    Each method takes axes of Matplotlib as ``ax``, or makes a new figure of pyplot, and returns the axes.
    Without Matplotlib it raises `ValueError`.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def error(self, ax: Any = None) -> Any:
        """Draw the held-out error of each rank, as `dask_nmf.plots.plot_errors` does."""
        return plot_errors(self._selection, ax)

    def stability(self, ax: Any = None) -> Any:
        """Draw how far the models of each rank agree, as `dask_nmf.plots.plot_stability` does."""
        return plot_stability(self._selection, ax)

    def consensus(self, ax: Any = None) -> Any:
        """Draw which rows the models of the recommended rank group alike: see `plots.plot_consensus`."""
        return plot_consensus(self._selection, ax)
