"""The protocol of a form: what gives factors the names of rows and columns of V, and its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dask_nmf.sources.labels.names import Labels
from dask_nmf.types import Array


def component_names(number: int) -> list[str]:
    """Return the names of components, as scikit-learn's `NMF` gives them: nmf0, nmf1, ..."""
    return [f"nmf{component}" for component in range(number)]


class Form(Protocol):
    """The kind of container that V came in, and the names of its rows and columns."""

    @property
    def column_names(self) -> Any | None:
        """Return the labels of the columns, one for each; None if they are no plain list of labels."""

    @property
    def index(self) -> Any | None:
        """Return the labels of the rows as an index of pandas, or of Dask; None if there is none."""

    @property
    def labels(self) -> Labels:
        """Return the names of rows and columns as a run stores them."""

    def rows(self, array: Any, names: Sequence[Any] | None) -> Any:
        """Return an array that has the rows of V, (m, …), in the form of V.

        Parameters
        ----------
        array : NumPy or Dask.
        names : of its columns, None for numbers.
        """

    def left(self, W: Any) -> Any:
        """Return W (m, k), of NumPy or Dask, in the form of V."""

    def right(self, H: Array) -> Any:
        """Return H (k, n) in the form of V."""
