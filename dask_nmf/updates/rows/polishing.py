"""The polishing pass of `forget`: W of all rows, and the H that is best for those that are left."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_nmf.kernels.row_sums import Sums
from dask_nmf.progress import report_stage
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.squared_error import loss_of_h
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted
from dask_nmf.updates.row_passes import RowPasses, rows_in_memory
from dask_nmf.updates.rows.chosen_rows import batches


class Polished(NamedTuple):
    """The factors and sums after a polishing pass over the rows that are left.

    Attributes
    ----------
    h : the best H for the W of the rows that are left, (k, n)
    loss : of these rows
    w : W of all rows
    means : means of all rows, if entries may be missing
    column_totals : Σ v of each column and how many entries count, of the rows that are left, (2, n)
    """

    h: Array
    loss: float
    w: ZarrFactor
    means: ZarrFactor | None
    column_totals: float | Array


def polish(fitted: Fitted, passes: RowPasses, numbers: Array, h: Array, changed: ChangedResult) -> Polished:
    """Make one pass over all rows for an H, of which some are taken out.

    The sums of all rows come from the pass, and those of the rows that are taken out are subtracted.
    """
    report_stage("polishing")
    rows, chunk = fitted.shape[0], passes.chunk_rows
    store = changed.temporary_w(rows, chunk)
    means = changed.temporary_means(rows, chunk) if passes.engine.mask.needs_means else None
    sums = passes.write(h, store, with_sums=True, means=means)
    for batch in batches(fitted, passes.matrix, numbers):
        with RowPasses(fitted, rows_in_memory(fitted, batch.block)) as alone:
            places = len(batch.numbers), alone.chunk_rows
            unused = None if means is None else changed.temporary_means(*places)
            sums = sums + alone.write(h, changed.temporary_w(*places), True, unused).scaled(-1)
    best, loss = (h, sums.residual) if fitted.fixed_h else _solved(fitted, sums, h)
    return Polished(best, loss, store, means, sums.column_totals)


def _solved(fitted: Fitted, sums: Sums, h: Array) -> tuple[Array, float]:
    """Return the H that the sums of a pass with ``h`` give, and its loss; 0 where no entry counts."""
    solver = fitted.solver
    there = np.ones(1, bool) if fitted.is_uniform else np.asarray(sums.column_totals)[1] > 0
    if isinstance(solver, HALS):
        best = np.where(there, solver.solve_h(h, sums), 0.0)
        return best, loss_of_h(np.nan, sums, h, best)
    best = np.where(there, solver.update_h(h, sums), 0.0)
    gain, _ = solver.gain(h, best, sums)
    if gain <= 0:
        return h, sums.residual
    return best, sums.residual + solver.penalty.of(sums, h) - gain - solver.penalty.of(sums, best)
