"""The end of a fit: its last read of V, and the result, in memory or committed to the run."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dask_nmf.execution import executor
from dask_nmf.execution.engine import FinalFactors, Sink
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.execution.work import work_of
from dask_nmf.fitting import components
from dask_nmf.fitting.components import Moved
from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.result import Errors, Result, make_result, result_of
from dask_nmf.iteration.outcome import judged, relative_error
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.means import Means, safe_divide
from dask_nmf.kernels.summary.residual_sums import Residuals
from dask_nmf.planning.model_groups import group_models
from dask_nmf.progress import report_end
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import Findings
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array, Orientation

logger = logging.getLogger(__name__)

MEANS = {"W": "row_mean", "H": "column_mean"}  # the means of V along the side of each factor
WEIGHT = "column_weight"  # how much counts of each column of V


class Output(NamedTuple):
    """The destination and the form of a result."""

    run: Run | None
    keep: bool  # whether the result stays in (distributed) memory
    normalize: str | None  # the norm by which components are scaled; None: none


def finish(cut: Cut, output: Output, progress: FitProgress) -> Result:
    """Read V for the last time, and return the result, committed to the run if there is one.

    If V is cut both ways, the factors go through the run even if they are to stay in memory.
    """
    stores = ResultStores(cut, output)
    final = cut.finalize(progress, stores.new_sink)
    if output.normalize is not None:
        final = _normalized(cut, final, output.normalize, stores)
    loss = max(final.sums.residual, 0.0)  # for CSR it is expanded, and rounding may make it negative
    if progress.ending is not None and progress.final:
        error = relative_error(loss, progress.measures.baseline)
        progress = replace(progress, ending=judged(progress.ending, error))
    _log_end(loss, progress)
    unit = progress.measures.error_unit(cut.request.settings.beta)
    held_out = _held_out_error(final.sums) * unit
    if stores.new_sink is None:
        return _result_in_memory(
            cut, final, Errors.of(loss, progress.measures, cut.request.settings.beta, held_out), progress
        )
    stores.write_rest(final)
    assert output.run is not None
    found = Findings(loss, held_out, _residuals(final, cut, progress), _work(cut))
    result = result_of(output.run.commit_result(found, progress.ending))
    return kept_in_memory(result, output.run.location) if output.keep else result


class ResultStores:
    """The stores of a result in a run, which each last read makes anew.

    Attributes
    ----------
    new_sink : makes the stores, and returns those that a read writes to; None if the result stays in memory.
    last : the stores that were made last, by their names.
    """

    def __init__(self, cut: Cut, output: Output) -> None:
        self.last: dict[str, FactorStore] = {}
        self.left, self.right = cut.matrix.orientation.turn(("W", "H"))
        in_memory = output.keep and not cut.edges.both_ways
        self.new_sink = None if in_memory else partial(self._new_sink, cut, output)

    def _new_sink(self, cut: Cut, output: Output) -> Sink:
        run = output.run
        assert run is not None
        self.last = dict(run.create_factors())

        def factor(name: str) -> FactorStore:
            return self.last[name] if output.normalize is None else run.temporary_factor(name)

        right = factor(self.right) if cut.edges.both_ways else None
        weights = self.last.get(WEIGHT) if self.left == "H" else None
        return Sink(factor(self.left), right, self.last.get(MEANS[self.left]), weights)

    def write_rest(self, final: FinalFactors) -> None:
        """Write the parts of a result that the last read has not written."""
        if MEANS[self.right] in self.last:
            self.last[MEANS[self.right]].write(0, safe_divide(*np.asarray(final.sums.column_totals)))
        if self.right == "H" and WEIGHT in self.last:
            self.last[WEIGHT].write(0, np.asarray(final.sums.column_totals)[1])
        if isinstance(final.right, np.ndarray):
            self.last[self.right].write(0, final.right.T)


def _normalized(cut: Cut, final: FinalFactors, how: str, stores: ResultStores) -> FinalFactors:
    """Return the factors with components of norm 1 in H, in order."""
    left, right, stored = final.left, final.right, stores.last
    left, right = components.arranged(
        left if isinstance(left, da.Array) else Moved(left, stored[stores.left], cut.edges.rows),
        right
        if isinstance(right, np.ndarray)
        else Moved(right, stored[stores.right], cut.edges.columns or ()),
        how,
        cut.matrix.orientation,
    )
    return final._replace(left=left, right=right)


def _held_out_error(sums: Sums) -> float:
    """Return the root mean squared error of the held-out entries, in units of the fit; NaN without any."""
    weight = sums.held_out_weight
    return float(np.sqrt(sums.held_out_loss / weight)) if weight else float("nan")


def _result_in_memory(cut: Cut, final: FinalFactors, errors: Errors, progress: FitProgress) -> Result:
    left, right, ending = final.left, final.right, progress.ending
    assert isinstance(left, da.Array)
    assert isinstance(right, np.ndarray)
    assert ending is not None
    whole = da.from_array(right, chunks=right.shape)
    W, H = cut.matrix.orientation.turn_factors(left, whole)
    result = make_result(W, H, errors, progress.history, ending)
    means = _means(final, cut.matrix.orientation, progress.measures.mean)
    objectives = np.array(progress.objectives) if progress.objectives else None
    beta = cut.request.settings.beta
    residuals = _residuals(final, cut, progress)
    return replace(result, means=means, beta_loss=beta, objectives=objectives, residuals=residuals)


def _work(cut: Cut) -> dict[str, Any] | None:
    """Return the seconds of tasks and the memory of processes beside the plan, if they are counted."""
    if not cut.engine.name:
        return None
    planned = group_models(cut.plan, cut.ranks).worker_bytes
    return {"planned_bytes": int(planned), **work_of(cut.engine.name)}


def _residuals(final: FinalFactors, cut: Cut, progress: FitProgress) -> Residuals | None:
    """Return where W H differs from V, in the units of the user, if it is known and finite."""
    beta = cut.request.settings.beta
    found, unit = final.residuals, progress.measures.loss_unit(beta)
    if found is None or unit is None or not np.isfinite(found.total):
        return None
    found = found.scaled(unit, unit if beta == 2 else 1.0)
    return found.transposed if cut.matrix.orientation.by_columns else found


def _means(final: FinalFactors, orientation: Orientation, overall: float) -> Means | None:
    """Return the means of rows and columns of V if they are taken and kept in memory, else None."""
    if final.means is None:
        return None
    across = safe_divide(*np.asarray(final.sums.column_totals)).astype(final.means.dtype)
    sides = final.means, da.from_array(across, chunks=across.shape)
    return Means(*orientation.turn(sides), overall)


def _log_end(loss: float, progress: FitProgress) -> None:
    """Write the end of a fit to the log."""
    error = relative_error(loss, progress.measures.baseline)
    outcome, message = progress.ending or (None, None)
    text = f"relative error {error:.6f}; {message}"
    finite = error if np.isfinite(error) else None
    numbers = {"event": "done", "relative_error": finite, "outcome": outcome, "message": message}
    logger.info("%s", text, extra={"nmf": numbers})
    report_end(text)


def kept_in_memory(result: Result, location: Location) -> Result:
    """Return the result in the memory of the cluster, because its run is about to be deleted."""
    W, H = executor.persist(*(factor.map_blocks(_read_in_time, location) for factor in (result.W, result.H)))
    return replace(result, W=W, H=H)


def _read_in_time(block: Array, location: Location) -> Array:
    """Return a block of a factor, after a check that its run still exists: otherwise Zarr gives zeros.

    Raises
    ------
    FileNotFoundError
        If the run is gone.
    """
    if not location.exists():
        raise FileNotFoundError(
            f"a part of the answer was lost with a worker, and its copy in {location.name} is gone; "
            "give store= to keep it"
        )
    return block
