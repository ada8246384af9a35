"""The results of adding rows to a run, and of taking rows out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dask_nmf.types import Array

OTHER_KIND = 1.5  # times the error of the old rows: the new rows are of another kind


@dataclass(frozen=True)
class Update:
    """The result of `update`.

    Attributes
    ----------
    first, last : the first new row of W, and the last one plus 1
    already : whether these rows had been added before, so that nothing was done
    relative_error : of all rows, with the new H; infinite if a divergence is
    old_error, new_error : relative errors of the old rows and of the new rows, with the H before
    shares : the share of each component in the sum of W H of the old and of the new rows, (2, k)
    cosines : of each component of H with itself before the update, (k,)

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import nmf
    >>> from dask_nmf.updates import update
    >>> V = np.random.default_rng(0).random((40, 6))
    >>> result = nmf(V[:30], 2, store="nightly.zarr")
    >>> added = update("nightly.zarr", V[30:])
    >>> added.last - added.first, added.already, added.of_another_kind
    (10, False, False)
    >>> added.shares.shape, added.cosines.shape
    ((2, 2), (2,))
    """

    first: int
    last: int
    already: bool
    relative_error: float
    old_error: float
    new_error: float
    shares: Array
    cosines: Array

    @property
    def of_another_kind(self) -> bool:
        """True if the components explain the new rows so much worse that a fit of all rows is due."""
        return self.new_error > OTHER_KIND * self.old_error

    def as_json(self) -> dict[str, Any]:
        """Return the update as JSON holds it."""
        names = "relative_error", "old_error", "new_error"
        numbers = {name: getattr(self, name) for name in names}
        return {
            "rows": [self.first, self.last],
            "already": self.already,
            **{name: number if math.isfinite(number) else None for name, number in numbers.items()},
            "shares": None if self.already else self.shares.tolist(),
            "cosines": None if self.already else self.cosines.tolist(),
            "of_another_kind": self.of_another_kind,
        }


@dataclass(frozen=True)
class Forgotten:
    """The result of `forget`.

    Attributes
    ----------
    rows : how many rows were taken out
    left : how many rows are left
    already : whether they had been taken out before, so that nothing was done
    polished : whether one pass over the rows that are left has refreshed W and H
    relative_error : of the rows that are left

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import nmf
    >>> from dask_nmf.updates import forget
    >>> V = np.random.default_rng(0).random((40, 6))
    >>> result = nmf(V, 2, store="forgetful.zarr")
    >>> forgotten = forget("forgetful.zarr", [3, 5], V)
    >>> forgotten.rows, forgotten.left
    (2, 38)
    """

    rows: int
    left: int
    already: bool
    polished: bool
    relative_error: float
