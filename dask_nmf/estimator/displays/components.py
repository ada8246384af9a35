"""`NMFComponentsDisplay`: the components of a fitted estimator, by the conventions of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_nmf.plots.factors.components import TOP, plot_components
from dask_nmf.plots.factors.reading import components_of, labelled_components
from dask_nmf.types import Array


class NMFComponentsDisplay:
    """The components of an `NMF`, one on each axes; make it by `from_estimator`.

    Columns that are pixels make images, columns whose labels are numbers in order make lines, and of all
    others the largest are bars, with their names or numbers.

    Parameters
    ----------
    components : (k, n) array or table, or a `DataArray` over components and the dimensions of the features.
    feature_names : (n,) the names of the columns; None for those that ``components`` has.

    Attributes
    ----------
    ax_ : (k,) array of the axes, one for each component that was drawn.
    figure_ : the figure that they are in.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import NMF, NMFComponentsDisplay
    >>> model = NMF(3, max_iter=2, tol=0).fit(np.random.default_rng(0).random((50, 12)))
    >>> display = NMFComponentsDisplay.from_estimator(model, image_shape=(3, 4))
    >>> display.ax_.shape, display.components.shape
    ((3,), (3, 12))
    >>> display.figure_.savefig("components.png")
    """

    ax_: Array
    figure_: Any

    def __init__(self, components: Any, *, feature_names: Any = None) -> None:
        self.components = components
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Any = None,
        numbers: Sequence[int] | None = None,
        top: int = TOP,
        image_shape: tuple[int, int] | None = None,
    ) -> NMFComponentsDisplay:
        """Draw the components of a fitted estimator, and return the display.

        Parameters
        ----------
        estimator : an `NMF` of this package or of scikit-learn.
        ax, numbers, top, image_shape : see `plot`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            As `plot` does.
        """
        check_is_fitted(estimator, "components_")
        names = getattr(estimator, "feature_names_in_", None)
        display = cls(estimator.components_, feature_names=names)
        return display.plot(ax, numbers=numbers, top=top, image_shape=image_shape)

    def plot(
        self,
        ax: Any = None,
        *,
        numbers: Sequence[int] | None = None,
        top: int = TOP,
        image_shape: tuple[int, int] | None = None,
    ) -> NMFComponentsDisplay:
        """Draw the components, set ``ax_`` and ``figure_``, and return the display.

        Parameters
        ----------
        ax : axes of Matplotlib whose space is divided, or one for each component; None for a new figure.
        numbers : of the components to draw, from 0; None for the first 16.
        top : the number of bars of a component.
        image_shape : height and width of the images that rows of X are.

        Raises
        ------
        ValueError
            If Matplotlib is not installed, there is no such component, or images or axes do not fit.
        """
        known = components_of(self.components)
        if self.feature_names is not None and known.image_shape is None:
            known = labelled_components(known.values, np.asarray(self.feature_names))
        self.ax_ = plot_components(known, ax, numbers=numbers, top=top, image_shape=image_shape)
        self.figure_ = self.ax_[0].figure
        return self
