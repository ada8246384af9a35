"""The arrays and the record of a result whose rows have changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.fitting.components import POWERS
from dask_nmf.kernels.summary.means import safe_divide
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted


def old_pieces(fitted: Fitted, name: str, first: int, last: int, step: int) -> Iterator[Array]:
    """Yield rows of W of the fit, or of another array by rows, in the units of the user, in pieces."""
    array = fitted.result.array(name)
    for at in range(first, last, step):
        yield np.asarray(array[at : min(at + step, last)])


def with_new_rows(
    fitted: Fitted, name: str, new: FactorStore, edges: tuple[int, int, int], step: int
) -> Iterator[Array]:
    """Yield rows of an array of the fit, and then those of the new rows, in pieces of ``step`` rows.

    Parameters
    ----------
    edges : the first row that is wanted, the number of old rows, and the number of new ones.
    """
    first, last, count = edges
    yield from old_pieces(fitted, name, first, last, step)
    for at in range(0, count, step):
        yield new.read(at, min(at + step, count))


def write_means(changed: ChangedResult, fitted: Fitted, new: ZarrFactor, totals: Array | float) -> int:
    """Write the means of rows and columns and the weights of columns, with those of new rows.

    Parameters
    ----------
    new : the means of the new rows
    totals : Σ v of each column of the new rows and how many of its entries count, (2, n), in user units

    Returns
    -------
    The number of columns without an entry that counts.
    """
    old, count = fitted.shape[0], changed.record["matrix"]["shape"][0] - fitted.shape[0]
    pieces = with_new_rows(fitted, "row_mean", new, (0, old, count), changed.chunk_rows)
    changed.write_rows("row_mean", pieces)
    before = fitted.result.read("column_weight")
    total, weight = np.asarray(totals)
    means = np.nan_to_num(fitted.result.read("column_mean").astype(np.float64))
    return write_columns(changed, means * before + total, before + weight)


def write_columns(changed: ChangedResult, total: Array, weight: Array) -> int:
    """Write means and weights of columns, from Σ v and how many entries count; return how many have none."""
    changed.array("column_mean")[...] = safe_divide(total, weight)
    changed.array("column_weight")[...] = weight
    return int((weight == 0).sum())


def scales_of(fitted: Fitted, h: Array) -> Array:
    """Return the norm of each component of a new H, (k,), where the fit gave H a norm; else 1.

    Components keep their order, so that their numbers mean what they meant.
    """
    how = fitted.settings.normalize
    if how is None:
        return np.ones(len(h))
    norms = (fitted.in_user_units(h).astype(np.float64) ** POWERS[how]).sum(axis=1) ** (1 / POWERS[how])
    return np.where(norms > 0, norms, 1.0)


def write_h(changed: ChangedResult, fitted: Fitted, h: Array) -> None:
    """Write H, which is given in the units of the fit, (k, n)."""
    changed.array("H")[...] = fitted.in_user_units(h)
