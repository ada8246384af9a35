"""Figures as methods: `Result.plot` and `RankSelection.plot`."""

from __future__ import annotations

import math
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
    factors : W (m, k) and H (k, n), in any form that results have.
    history : (n_iter,), the relative error after each pass.
    rows : the number of rows of W, m.
    residuals : where W H differs from V; None if it is unknown.
    beta_loss : the β of the loss.
    error : the root of the loss; NaN if it is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib import pyplot
    >>> from dask_nmf import nmf
    >>> result = nmf(np.random.default_rng(0).random((40, 6)), 2)
    >>> figure, (left, right) = pyplot.subplots(1, 2)
    >>> axes = result.plot.error(ax=left), result.plot.weights(ax=right)
    >>> [one.get_title() for one in axes]
    ['Error after each pass', 'Weights']
    >>> figure.savefig("fit.png")
    >>> pyplot.close("all")
    """

    def __init__(
        self,
        factors: tuple[Any, Any],
        history: Array,
        rows: int,
        residuals: Residuals | None = None,
        beta_loss: float = 2.0,
        error: float = math.nan,
    ) -> None:
        self._factors, self._history, self._rows = factors, history, rows
        self._residuals, self._squared, self._error = residuals, beta_loss == 2, error

    def error(self, ax: Any = None) -> Any:
        """Draw the relative error after each pass as a line with n_iter points.

        Parameters
        ----------
        ax : axes of Matplotlib; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.

        Examples
        --------
        >>> from matplotlib import pyplot
        >>> from dask_nmf import nmf
        >>> result = nmf([[1.0, 2.0], [3.0, 5.0]], 1, max_iter=3, tol=0)
        >>> axes = result.plot.error()
        >>> len(axes.lines[0].get_xdata()) == result.n_iter
        True
        >>> pyplot.close("all")
        """
        return plot_error(self._history, ax)

    def components(
        self,
        ax: Any = None,
        *,
        numbers: Sequence[int] | None = None,
        top: int = TOP,
        image_shape: tuple[int, int] | None = None,
    ) -> Array:
        """Draw each component, a row of H (k, n), on axes of its own.

        If V was a `DataArray` whose rows are images, components are images; if its columns have numbers in
        order as labels, they are lines; otherwise the largest columns of each are bars with their names.

        Parameters
        ----------
        ax : axes whose space is divided, or one for each component; None for a new figure.
        numbers : of the components to draw, from 0; None for the first 16.
        top : the number of bars.
        image_shape : height and width of the images that rows of V are; their product is n.

        Returns
        -------
        The axes, an array of (components that were drawn,).

        Raises
        ------
        ValueError
            If there is no such component, or the images or the axes do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib import pyplot
        >>> from dask_nmf import nmf
        >>> result = nmf(np.random.default_rng(0).random((40, 12)), 3)
        >>> result.plot.components(numbers=[0, 2], image_shape=(3, 4)).shape
        (2,)
        >>> pyplot.close("all")
        """
        found = components_of(self._factors[1])
        return plot_components(found, ax, numbers=numbers, top=top, image_shape=image_shape)

    def weights(self, ax: Any = None) -> Any:
        """Draw W (m, k) as a heat map whose rows are ordered by their largest component.

        Of a W of more than 2000 rows, 2000 evenly spaced ones are drawn; it is read once, chunk by chunk.

        Parameters
        ----------
        ax : axes of Matplotlib, of whose space a colour bar takes a part; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib import pyplot
        >>> from dask_nmf import nmf
        >>> result = nmf(np.random.default_rng(0).random((40, 12)), 3)
        >>> result.plot.weights().images[0].get_array().shape
        (40, 3)
        >>> pyplot.close("all")
        """
        rows = sampled_rows(self._factors[0], self._rows, MOST_ROWS)
        return plot_weights(rows, self._rows, ax)

    def residuals(self, ax: Any = None) -> Any:
        """Draw where W H differs from V, as a heat map of at most 64 × 64 blocks of rows and columns.

        The shade of a block is its loss by its size: the part of its ‖V‖² that is not explained, or its mean
        divergence in units of that of V.

        Parameters
        ----------
        ax : axes of Matplotlib, of whose space a colour bar takes a part; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.

        Raises
        ------
        ValueError
            If it is not known, as `Result.residuals` says; the message has the reason and the cure.

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib import pyplot
        >>> from dask_nmf import nmf
        >>> result = nmf(np.random.default_rng(0).random((40, 12)), 3)
        >>> result.plot.residuals().images[0].get_array().shape
        (40, 12)
        >>> pyplot.close("all")
        """
        return plot_residuals(self._residuals, self._squared, ax, self._error)


class SelectionPlots:
    """Figures of a selection of ranks. They need Matplotlib, which is only imported when one is drawn.

    Each method takes axes of Matplotlib as ``ax``, or makes a new figure of pyplot, and returns the axes.
    Without Matplotlib it raises `ValueError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib import pyplot
    >>> from dask_nmf import select_rank
    >>> V = np.random.default_rng(0).random((60, 2)) @ np.random.default_rng(1).random((2, 20))
    >>> selection = select_rank(V, "1:3", n_init=2)
    >>> axes = selection.plot.error(), selection.plot.stability(), selection.plot.consensus()
    >>> [one.get_title() for one in axes[:2]]
    ['Error of held-out entries', 'Agreement of the models of a rank']
    >>> axes[2].images[0].get_array().shape  # rows of V, or of a sample of 2000
    (60, 60)
    >>> pyplot.close("all")
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def error(self, ax: Any = None) -> Any:
        """Draw the held-out error of each rank, with a dot for each model.

        The bar of a rank is the standard error of its difference to the lowest error: ranks whose bar reaches
        the dashed line are within it, and the least of them is recommended.

        Parameters
        ----------
        ax : axes of Matplotlib; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.
        """
        return plot_errors(self._selection, ax)

    def stability(self, ax: Any = None) -> Any:
        """Draw how far the models of each rank agree, with a dot for each component.

        A dot is the mean cosine of a component with its matches in the other models. Ranks of a single model
        have no stability.

        Parameters
        ----------
        ax : axes of Matplotlib; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.
        """
        return plot_stability(self._selection, ax)

    def consensus(self, ax: Any = None) -> Any:
        """Draw how many models of the recommended rank put two rows of V together, as a heat map.

        Rows belong together if they have the same largest component. They are ordered so that clusters are
        blocks on the diagonal; of more than 2000 rows a sample is drawn.

        Parameters
        ----------
        ax : axes of Matplotlib, of whose space a colour bar takes a part; None for those of a new figure.

        Returns
        -------
        The axes that were drawn on.
        """
        return plot_consensus(self._selection, ax)
