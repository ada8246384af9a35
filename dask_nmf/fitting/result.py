"""The result of a fit, in memory or in its run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dask_nmf.display.html import AFTER_PASSES, html_curve, html_table
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.iteration.outcome import Ending, Outcome, relative_error
from dask_nmf.kernels.summary.means import Means
from dask_nmf.kernels.summary.residual_sums import Residuals
from dask_nmf.plots.accessors import FitPlots
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labelled.form import Form
from dask_nmf.types import Array


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A factorisation V ≈ W H; ``W, H = result`` unpacks the factors.

    Attributes
    ----------
    W : (m, k) Dask array; from `nmf` of a table, a `DataArray` or an AnnData, in that form with its labels
    H : (k, n) Dask array; likewise, and the components of a `DataArray` are arrays over its other dimensions
    relative_error : ‖V − W H‖ / ‖V‖, or √(D(V | W H) / D(V | mean of V)), over the entries that count
    reconstruction_err : ‖V − W H‖ (Frobenius), or √(2 D(V | W H))
    error_history : (n_iter,) array, relative error after each pass
    n_iter : number of passes
    outcome : why the fit stopped, an `Outcome`; ``outcome.converged`` is False if more passes would help
    message : the outcome as a sentence
    validation_error : root mean squared error of the held-out entries; NaN if there are none, or an update
        has changed H since
    means : means of the entries that count, by row and by column, if some are missing or have weights; else
        None. `predict` and `recommend` use them for rows and columns without an observed entry.
    beta_loss : the β of the loss that was fitted: 2 for Frobenius, 1 for Kullback-Leibler
    objectives : (n_init,) array, the objective of each start after its last pass: the root of ‖V − W H‖², or
        of 2 D(V | W H), with the penalties; None for a fit from one start. The start with the least is kept.
    shape : (m, n), of V
    residuals : where W H differs from V, as the last read saw it: losses and sizes of at most 64 × 64 blocks
        of V, and the rows and columns with the largest losses. Entries that are held out do not count. It is
        None where that is not known: losses are beyond float64, or rows were changed since the fit.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> result = nmf([[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]], 1)
    >>> W, H = result
    >>> (W @ H).compute().round(3)
    array([[1., 2.],
           [3., 6.],
           [2., 4.]])
    >>> result.shape, result.outcome.converged, round(result.explained, 3)
    ((3, 2), True, 1.0)
    """

    W: Any
    H: Any
    relative_error: float
    reconstruction_err: float
    error_history: Array
    n_iter: int
    outcome: Outcome
    message: str
    validation_error: float = float("nan")
    means: Means | None = None
    beta_loss: float = 2.0
    objectives: Array | None = None
    shape: tuple[int, int] = (0, 0)
    residuals: Residuals | None = None

    @property
    def n_init(self) -> int:
        """The number of starts."""
        return 1 if self.objectives is None else len(self.objectives)

    @property
    def explained(self) -> float:
        """The share of ‖V‖², or of the divergence of V from its mean, that W H explains."""
        return 1 - self.relative_error**2

    @property
    def plot(self) -> FitPlots:
        """Figures of the fit: ``result.plot.error()``, `components`, `weights` and `residuals`."""
        factors, rows = (self.W, self.H), self.shape[0]
        loss = self.residuals, self.beta_loss, self.reconstruction_err
        return FitPlots(factors, self.error_history, rows, *loss)

    def labelled(self, form: Form | None) -> Result:
        """Return the result with W and H in the form of a labelled V; unchanged if V had no labels."""
        if form is None:
            return self
        return replace(self, W=form.left(self.W), H=form.right(np.asarray(self.H)))

    def __iter__(self) -> Iterator[Any]:
        """Yield W, and then H."""
        return iter((self.W, self.H))

    def __repr__(self) -> str:
        """Return one line: the shapes, the errors, and why the fit stopped."""
        return f"<Result: {'; '.join(f'{name} {value}' for name, value in self._lines())}>"

    def _repr_html_(self) -> str:
        """Return an HTML table and a small curve of the errors, for notebooks."""
        return html_table(self._lines()) + html_curve(self.error_history.tolist(), AFTER_PASSES)

    def _lines(self) -> list[tuple[str, str]]:
        (m, n), k = self.shape, len(self.H)
        held_out = self.validation_error
        return [
            ("V", f"{m} x {n} ≈ W H of rank {k}"),
            ("relative error", f"{self.relative_error:.6g}, {100 * self.explained:.4g} % explained"),
            *([] if np.isnan(held_out) else [("held out", f"{held_out:.6g}")]),
            ("passes", str(self.n_iter)),
            ("outcome", self.message),
            *([] if self.objectives is None else [("starts", starts_in_words(self.objectives))]),
        ]


def starts_in_words(objectives: Array) -> str:
    """Return the number of starts with the spread of their objectives, as one line."""
    least, most = objectives.min(), objectives.max()
    apart = f", {100 * (most / least - 1):.2g} % apart" if 0 < least <= most < math.inf else ""
    return f"{len(objectives)}, objective {least:.6g} to {most:.6g}{apart}"


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


def make_result(W: da.Array, H: da.Array, errors: Errors, history: Sequence[float], ending: Ending) -> Result:
    """Return a result without means."""
    return Result(
        W,
        H,
        errors.relative,
        errors.reconstruction,
        np.asarray(history, np.float64),  # None, for an unknown error, becomes NaN
        len(history),
        *ending,
        errors.held,
        shape=(W.shape[0], H.shape[1]),
    )


def result_of(stored: StoredResult) -> Result:
    """Return the result of a finished run; W and H stay in Zarr until they are computed."""
    record = stored.record
    W, H = (da.from_zarr(array) for array in stored.factors)
    held = float("nan") if record["validation_error"] is None else record["validation_error"]
    history = record["history"]["relative_error"]
    reached = float("inf") if record["loss"] is None else record["loss"]
    errors = Errors.of(reached, Measures(**record["measures"]), stored.settings.beta, held)
    result = make_result(W, H, errors, history, Ending(Outcome(record["outcome"]), record["message"]))
    result = replace(result, beta_loss=stored.settings.beta, objectives=stored.objectives)
    result = replace(result, residuals=stored.residuals)
    means = stored.means
    if means is None:
        return result
    rows, columns = da.from_zarr(means.rows), da.from_zarr(means.columns)
    return replace(result, means=Means(rows, columns, means.overall))
