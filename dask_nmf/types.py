"""Types that the whole package shares: aliases, and the orientation in which V is cut."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import Enum
from typing import Any, TypeVar

from numpy.typing import NDArray

Array = NDArray[Any]

Block = Any  # NDArray, scipy.sparse.csr_array or Cells

SampleDims = Hashable | Iterable[Hashable] | None  # the dimensions of a `DataArray` that make the rows of V

T = TypeVar("T")


class Orientation(Enum):
    """How V is cut into panels, which have rows of their own: the rows of V, or its columns.

    It is decided when V is opened. What is turned twice is as it was.
    """

    ROWS = "rows"
    COLUMNS = "columns"  # panels hold Vᵀ ≈ Hᵀ Wᵀ: their left factor is Hᵀ, their right one is Wᵀ

    @property
    def by_columns(self) -> bool:
        """Return whether the rows of panels are columns of V."""
        return self is Orientation.COLUMNS

    def turn(self, pair: tuple[T, T]) -> tuple[T, T]:
        """Return what is known of the rows and of the columns of V as that of panels, or the other way."""
        rows, columns = pair
        return (columns, rows) if self.by_columns else (rows, columns)

    def turn_array(self, array: T) -> T:
        """Return a part of V as that of panels, or the other way."""
        part: Any = array
        turned: T = part.T if self.by_columns else part
        return turned

    def turn_factors(self, W: Any, H: Any) -> tuple[Any, Any]:
        """Return W (m, k) and H (k, n) as the left and right factor of panels, or the other way.

        Either may be None.
        """
        if not self.by_columns:
            return W, H
        return None if H is None else H.T, None if W is None else W.T
