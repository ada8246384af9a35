"""The arrays and the record of a result whose rows have changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dask_nmf.fitting.components import POWERS
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted


def old_pieces(fitted: Fitted, first: int, last: int, step: int) -> Iterator[Array]:
    """Yield rows of the W of the fit, in the units of the user, in pieces of ``step`` rows."""
    W = fitted.result.array("W")
    for at in range(first, last, step):
        yield np.asarray(W[at : min(at + step, last)])


def scales_of(fitted: Fitted, h: Array) -> Array:
    """Return the norm of each component of a new H, (k,), where the fit gave H a norm; else 1.

    Components keep their order, so that their numbers mean what they meant.
    """
    how = fitted.settings.normalize
    if how is None:
        return np.ones(len(h))
    norms = (fitted.in_user_units(h).astype(np.float64) ** POWERS[how]).sum(axis=1) ** (1 / POWERS[how])
    return np.where(norms > 0, norms, 1.0)


def write_result(changed: ChangedResult, fitted: Fitted, h: Array, numbers: dict[str, Any]) -> None:
    """Write H, (k, n) in the units of the fit, and replace numbers in the record of the result."""
    changed.array("H")[...] = fitted.in_user_units(h)
    changed.record |= numbers
