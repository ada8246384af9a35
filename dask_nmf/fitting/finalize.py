"""The last read of V, and the result of a fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dask_nmf.execution.engine import Engine, FinalFactors, Model, Sink
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.passes import PassSpec, keep_w
from dask_nmf.execution.tasks.factor_store import FactorSlots, FactorStore
from dask_nmf.fitting import components
from dask_nmf.fitting.starts import initialize, problem
from dask_nmf.fitting.starts.problem import Factors, Measures
from dask_nmf.iteration.outcome import Ending, Outcome, judged, relative_error
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.summary.means import Means, safe_divide
from dask_nmf.progress import report_end, report_stage
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.settings import Settings
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import Solver
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

MEANS = {"W": "row_mean", "H": "column_mean"}  # the means of V along the side of each factor


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A factorisation V ≈ W H; ``W, H = result`` unpacks the factors.

    Attributes
    ----------
    W : (m, k) Dask array
    H : (k, n) Dask array
    relative_error : ‖V − W H‖ / ‖V‖, or √(D(V | W H) / D(V | mean of V)), over the entries that count
    reconstruction_err : ‖V − W H‖ (Frobenius), or √(2 D(V | W H))
    error_history : (n_iter,) array, relative error after each pass
    n_iter : number of passes
    outcome : why the fit stopped, an `Outcome`; ``outcome.converged`` is False if more passes would help
    message : the outcome as a sentence
    validation_error : root mean squared error of the held-out entries; NaN if there are none
    means : means of the entries that count, by row and by column, if some are missing or have weights; else
        None. `predict` and `recommend` use them for rows and columns without an observed entry.
    beta_loss : the β of the loss that was fitted: 2 for Frobenius, 1 for Kullback-Leibler
    """

    W: da.Array
    H: da.Array
    relative_error: float
    reconstruction_err: float
    error_history: Array
    n_iter: int
    outcome: Outcome
    message: str
    validation_error: float = float("nan")
    means: Means | None = None
    beta_loss: float = 2.0

    @property
    def explained(self) -> float:
        """The share of ‖V‖², or of the divergence of V from its mean, that W H explains."""
        return 1 - self.relative_error**2

    def __iter__(self) -> Iterator[da.Array]:
        """Yield W, and then H."""
        return iter((self.W, self.H))

    def __repr__(self) -> str:
        """Return one line: the shapes, the errors, and why the fit stopped."""
        return f"<Result: {'; '.join(f'{name} {value}' for name, value in self._told())}>"

    def _repr_html_(self) -> str:
        """Return an HTML table for notebooks."""
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._told())
        return f"<table>{''.join(rows)}</table>"

    def _told(self) -> list[tuple[str, str]]:
        (m, k), n = self.W.shape, self.H.shape[1]
        held = self.validation_error
        return [
            ("V", f"{m} x {n} ≈ W H of rank {k}"),
            ("relative error", f"{self.relative_error:.6g}, {100 * self.explained:.4g} % explained"),
            *([] if np.isnan(held) else [("held out", f"{held:.6g}")]),
            ("passes", str(self.n_iter)),
            ("outcome", self.message),
        ]


@dataclass(frozen=True)
class Progress:
    """A fit between two passes."""

    solver: Solver
    measures: Measures
    carried: FactorSlots | None  # the store of a carried W
    state: State[Any]
    number: int = 0
    history: tuple[float, ...] = ()
    ending: Ending | None = None

    @property
    def final(self) -> bool:
        """True if no pass follows."""
        return self.ending is not None and self.ending.outcome.final


def answer(engine: Engine, panels: PanelEngine, output: Output, progress: Progress) -> Result:
    """Read V for the last time to find the left factor for the right one, and return the result."""
    report_stage("last read")
    places = Places(panels, output)
    model = Model(progress.solver, progress.state, slots=progress.carried)
    return _finish(panels, output, progress, engine.finalize(model, places.new_sink), places.last)


def answer_fixed(
    panels: PanelEngine, settings: Settings, fixed: Factors, output: Output, progress: Progress
) -> Result:
    """Return the result with the best factor for a fixed one."""
    matrix, measures = panels.matrix, progress.measures
    solver = problem.fixed_factor_solver(settings, measures, matrix)
    given, right = problem.in_units(fixed, solver.penalty, matrix.dtype)
    if given is None:
        assert right is not None
        right, weigh = np.ascontiguousarray(right), solver.solve_w_final
    else:
        right, weigh = initialize.right_of(panels, solver, measures.level, given), keep_w
    weighing = PassSpec(weigh, solver, residual=True, bare=True, unit=solver.penalty.left_unit)
    report_stage("last read")
    places = Places(panels, output)
    last = panels.last_pass(right, weighing, places.new_sink, given)
    name, other = ("W", "H") if (fixed.left is None) == matrix.transposed else ("H", "W")
    message = f"converged: {name} is fixed, and {other} is the best for it"
    progress = replace(progress, ending=Ending(Outcome.FIXED, message))
    last = last._replace(right=scaling.multiply(right, solver.penalty.right_unit))
    return _finish(panels, output, progress, last, places.last)


class Output(NamedTuple):
    """The destination and the form of a result."""

    run: Run | None
    keep: bool  # whether the result stays in (distributed) memory
    normalize: str | None  # the norm by which components are scaled; None: none


class Places:
    """The stores of a result in a run, which each last read makes anew.

    Attributes
    ----------
    new_sink : makes the stores, and returns those that a read writes to; None if the result stays in memory.
    last : the stores that were made last, by their names.
    """

    def __init__(self, panels: PanelEngine, output: Output) -> None:
        self.last: dict[str, FactorStore] = {}
        self.new_sink = None if output.keep else partial(self._new_sink, panels, output)

    def _new_sink(self, panels: PanelEngine, output: Output) -> Sink:
        run, (name, _) = output.run, _sides(panels)
        assert run is not None
        self.last = dict(run.create_factors())
        left = self.last[name] if output.normalize is None else run.temporary_factor(name)
        return Sink(left, means=self.last.get(MEANS[name]))


def _sides(panels: PanelEngine) -> tuple[str, str]:
    """Return the names of the left and the right factor: "W" and "H" in panel orientation."""
    return ("H", "W") if panels.matrix.transposed else ("W", "H")


def _finish(
    panels: PanelEngine,
    output: Output,
    progress: Progress,
    last: FinalFactors,
    places: Mapping[str, FactorStore],
) -> Result:
    """Return the result, normalised, logged, and committed to the run if there is one."""
    left, right, totals = last.left, last.right, last.sums
    assert isinstance(right, np.ndarray)
    turned = panels.matrix.transposed
    name, other = _sides(panels)
    if output.normalize is not None:
        left = left if isinstance(left, da.Array) else components.Moved(left, places[name])
        left, right = components.arranged(left, panels.edges, right, output.normalize, turned)
    reached = max(totals.residual, 0.0)  # for CSR it is expanded, and rounding may make it negative
    measures = progress.measures
    unit = measures.error_unit(panels.rule.beta)
    held = (
        float(np.sqrt(totals.held_out_loss / totals.held_out_weight)) * unit
        if totals.held_out_weight
        else float("nan")
    )
    if progress.ending is not None and progress.final:
        error = relative_error(reached, measures.baseline)
        progress = replace(progress, ending=judged(progress.ending, error))
    tell(reached, progress)
    if not isinstance(left, da.Array):
        assert output.run is not None
        if panels.rule.needs_means:
            places[MEANS[other]].write(0, safe_divide(*np.asarray(totals.column_totals)))
        places[other].write(0, right.T)
        return result_of(output.run.commit_result(reached, held, progress.ending))
    whole = da.from_array(right, chunks=right.shape)
    W, H = (whole.T, left.T) if turned else (left, whole)
    errors = Errors.of(reached, measures, panels.rule.beta, held)
    assert progress.ending is not None
    found = _result(W, H, errors, progress.history, progress.ending)
    means = _means(last, turned, progress.measures.mean)
    return replace(found, means=means, beta_loss=panels.rule.beta)


def _means(last: FinalFactors, turned: bool, overall: float) -> Means | None:
    """Return the means of rows and columns of V if they are taken and kept in memory, else None."""
    if last.means is None:
        return None
    across = safe_divide(*np.asarray(last.sums.column_totals)).astype(last.means.dtype)
    sides = last.means, da.from_array(across, chunks=across.shape)
    return Means(*(sides[::-1] if turned else sides), overall)


def tell(reached: float, progress: Progress) -> None:
    """Write the end of a fit to the log."""
    error = relative_error(reached, progress.measures.baseline)
    outcome, message = progress.ending or (None, None)
    text = f"relative error {error:.6f}; {message}"
    told = error if np.isfinite(error) else None
    numbers = {"event": "done", "relative_error": told, "outcome": outcome, "message": message}
    logger.info("%s", text, extra={"nmf": numbers})
    report_end(text)


class Errors(NamedTuple):
    """The errors of a result, in the units of the user."""

    relative: float
    reconstruction: float
    held: float

    @classmethod
    def of(cls, reached: float, measures: Measures, beta: float, held: float) -> Errors:
        """Return the errors of a result with the loss ``reached``, in the units of the fit."""
        size = math.sqrt(reached)
        relative = relative_error(reached, measures.baseline)
        return cls(relative, size and size * measures.error_unit(beta), held)


def _result(W: da.Array, H: da.Array, errors: Errors, history: Sequence[float], ending: Ending) -> Result:
    return Result(
        W,
        H,
        errors.relative,
        errors.reconstruction,
        np.asarray(history, np.float64),  # None, for an unknown error, becomes NaN
        len(history),
        *ending,
        errors.held,
    )


def result_of(stored: StoredResult) -> Result:
    """Return the result of a finished run; W and H stay in Zarr until they are computed."""
    record = stored.record
    W, H = (da.from_zarr(array) for array in stored.factors)
    held = float("nan") if record["validation_error"] is None else record["validation_error"]
    history = record["history"]["relative_error"]
    reached = float("inf") if record["loss"] is None else record["loss"]
    errors = Errors.of(reached, Measures(**record["measures"]), stored.settings.beta, held)
    found = _result(W, H, errors, history, Ending(Outcome(record["outcome"]), record["message"]))
    found = replace(found, beta_loss=stored.settings.beta)
    means = stored.means
    if means is None:
        return found
    rows, columns = da.from_zarr(means.rows), da.from_zarr(means.columns)
    return replace(found, means=Means(rows, columns, means.overall))
