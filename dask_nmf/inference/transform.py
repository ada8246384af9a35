"""`transform`: W of a V for a fixed H."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

from dask_nmf.errors import InvalidEntryError
from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.passes import check_factor
from dask_nmf.execution.partition import CutOptions
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.fitting.starts.fixed_factor import solve_h_for_w
from dask_nmf.inference.w_solver import AtPanelScale, w_problem
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary.means import Means, safe_divide
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.options.settings import LOSSES, Settings
from dask_nmf.planning import row_panels
from dask_nmf.sources.factors_and_weights import open_entry_weights, open_for_fixed_factor, read_factor
from dask_nmf.sources.labelled.registry import aligned_weights, check_factors
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import located
from dask_nmf.types import Array, Orientation
from dask_nmf.wording import counted

LARGE_H = 2**18  # entries of an H that no worker should hold several times

Sink = Callable[[tuple[int, int], int, np.dtype[Any]], tuple[FactorStore, FactorStore | None]]


@reject_unknown_keywords
def transform(
    V: Any,
    H: Any,
    dtype: str | None = None,
    *,
    weights: Any = None,
    missing: str | None = None,
    alpha_W: float = 0.0,
    l1_ratio: float = 0.0,
    beta_loss: str | float = "frobenius",
    means: Means | None = None,
    into: Sink | None = None,
) -> da.Array | tuple[da.Array, Means] | None:
    """Return W of a V for a fixed H, (m, k): ``argmin_{W ≥ 0}`` of the loss, solved to tolerance.

    It takes one pass, unless V is stored by columns and the loss is not the squared error.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes.
    H : (k, n), ≥ 0, whatever `open_matrix` takes.
    dtype : floating-point type used for the computation, as in `nmf`.
    weights, missing, alpha_W, l1_ratio, beta_loss : as in `nmf`.
    means : `Result.means` of the fit that H comes from. Then W is returned with the means for `predict` and
        `recommend`. They are the means of the rows of this V, NaN where nothing is observed and W is 0, and
        the means of the columns and of all entries in the fit.
    into : a function that takes the shape of W, the rows that one task writes and the dtype. It returns the
        store to which W is written panel by panel, and the store of the means of its rows, or None if they
        are not needed. By default W is returned.

    Returns
    -------
    W, as a Dask array; with ``means`` a pair of W and the means.

    Raises
    ------
    InvalidEntryError, ValueError, TypeError, MemoryError
        As for `nmf`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import transform
    >>> W = transform([[2.0, 4.0], [3.0, 6.0]], [[1.0, 2.0]])
    >>> np.asarray(W).round(3)
    array([[2.],
           [3.]])
    """
    check_factors(V, H=H)
    h = np.asarray(read_factor(H, "H"), np.float64)
    matrix = open_for_transform(located(V), dtype, beta_loss, len(h))
    if matrix.shape[1] != h.shape[1]:
        raise ValueError(
            f"V has {counted(matrix.shape[1], 'column')} and H has {h.shape[1]}; they must be equal"
        )
    weights = aligned_weights(weights, V, None)
    entry_weights = None if weights is None else open_entry_weights(matrix, weights)
    options: dict[str, Any] = {"missing": missing, "alpha_W": alpha_W, "l1_ratio": l1_ratio, "alpha_H": 0.0}
    settings = Settings(len(h), "mu", beta_loss, **options)
    rule = EntryMask(
        missing, orientation=matrix.orientation, weighted=entry_weights is not None, beta=settings.beta
    )
    _check_means(means, matrix, rule)
    grams = matrix.orientation.by_columns and settings.beta in (1, 2)  # otherwise a pass needs no sums
    panels, _ = partition.cut_into_panels(matrix, len(h), entry_weights, rule, CutOptions(own_grams=grams))
    solve = _solve_by_columns if matrix.orientation.by_columns else _solve_by_rows
    try:
        w, row_means = solve(panels, h, settings, into, means is not None)
    except InvalidEntryError as error:
        raise error.turned(matrix.orientation) from None
    return w if means is None else (w, means._replace(rows=row_means))


def _check_means(means: Means | None, matrix: Matrix, rule: EntryMask) -> None:
    """Refuse means that do not fit V's columns, or that nothing needs."""
    if means is None:
        return
    if not rule.needs_means:
        raise ValueError(
            "means are given and every entry of V counts, so no row is without a W; leave means out, or give "
            "missing or weights"
        )
    if np.shape(means.columns) != matrix.shape[1:]:
        raise ValueError(
            f"means are of {np.shape(means.columns)} columns and V has {matrix.shape[1]}; give the means of "
            "the fit that H comes from"
        )


def open_for_transform(V: Any, dtype: str | None, beta_loss: str | float, rank: int) -> Matrix:
    """Open V as `transform` reads it: by rows, unless the loss is the squared error and H is large.

    A row of W is most exact where the whole row of V is in memory. Only the squared error has sums that
    determine W without it.
    """
    by_rows = open_for_fixed_factor(V, dtype, Orientation.ROWS)
    squared = LOSSES.get(str(beta_loss), beta_loss) == 2
    return open_matrix(V, dtype) if squared and rank * by_rows.shape[1] > LARGE_H else by_rows


def _solve_by_rows(
    panels: PanelEngine, h: Array, settings: Settings, into: Sink | None, averages: bool
) -> tuple[da.Array | None, da.Array | None]:
    """Return W, and the means of its rows if ``averages`` is set; neither if they are written to stores."""
    unit, problem = scaling.unit_of(h), w_problem(settings, panels.matrix)
    h = np.ascontiguousarray(scaling.multiply(h, 1 / unit), panels.matrix.dtype)
    solver = problem.solver_at(1.0, (1.0, 1.0))
    spec = PassSpec(solver.solve_w_final, solver, check=True, residual_only=True, averages=averages)
    spec = spec._replace(anew=AtPanelScale(problem, unit))
    w: da.Array | None = None
    row_means: da.Array | None = None
    if into is None:
        w, totals, row_means = panels.run_pass_keeping_w(h, spec)
    else:
        w_store, means_store = into(
            (panels.edges[-1], len(h)), row_panels.aligned_rows(panels.edges), h.dtype
        )
        spec = spec._replace(w_out=w_store, averages=means_store is not None, means=means_store)
        totals = panels.run_pass(h, spec)
    if np.isinf(totals.residual):
        warnings.warn(
            "H is 0 in columns where V has entries > 0: W H is 0 there whatever W is, and the divergence is "
            "infinite; W explains the other columns",
            stacklevel=5,
        )
    return w, row_means


def _solve_by_columns(
    panels: PanelEngine, h: Array, settings: Settings, into: Sink | None, averages: bool
) -> tuple[da.Array | None, da.Array | None]:
    """Return what `_solve_by_rows` does, where the panels are columns of V."""
    unit, problem = scaling.unit_of(h), w_problem(settings, panels.matrix)
    left = np.ascontiguousarray(scaling.multiply(h, 1 / unit).T, panels.matrix.dtype)
    scale, mean = 1.0, 1.0  # the sums of the squared error are float64, and so are their solutions
    if settings.beta != 2:
        mean = _mean(panels)
        scale = panels.scale = scaling.scale_of(mean, panels.matrix.dtype)
    units = unit, 1 / (scale * unit)
    right, totals = solve_h_for_w(panels, left, problem.solver_at(scale, units), mean * scale, check=True)
    w = np.ascontiguousarray(scaling.multiply(right, units[1]).T)
    check_factor(w)
    w_store, means_store = (None, None) if into is None else into(w.shape, len(w), w.dtype)
    row_means: da.Array | None = None
    if averages or means_store is not None:
        means = safe_divide(*np.asarray(totals.column_totals)).astype(w.dtype)
        row_means = da.from_array(means, chunks=means.shape)
        if means_store is not None:
            means_store.write(0, means)
    if w_store is None:
        return da.from_array(w, chunks=w.shape), row_means
    w_store.write(0, w)
    return None, None


def _mean(panels: PanelEngine) -> float:
    """Return the mean of the entries of V that count; V is read once."""
    summary = panels.summarize(SampleSpec(panels.edges[-1], 0, 0))
    if summary.invalid is not None:
        raise summary.invalid
    weight = float(np.sum(np.broadcast_to(summary.column_weight, panels.matrix.layout.columns)))
    return summary.total / weight if weight else 0.0
