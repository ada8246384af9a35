"""A finished fit as updates need it: its result, its units, its solver, and its rows by sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.kernels.summary.block_summary import DivergenceTerms
from dask_nmf.options.settings import Settings
from dask_nmf.runs.record.contents import is_masked, orientation_of
from dask_nmf.runs.rows.conditions import check_changeable
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms as UpdateTerms
from dask_nmf.solvers.parts.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import select_inference_solver
from dask_nmf.solvers.solver import factor_scale, smallest_divisor
from dask_nmf.types import Array, Orientation
from dask_nmf.updates.rows.known_rows import DivergenceRows, KnownRows, SquaredRows, WSums

PIECE = 2**25  # bytes of W that are read at once


@dataclass(frozen=True)
class Fitted:
    """A finished fit.

    Attributes
    ----------
    result : W and H
    measures : of V
    h : H in the units of the fit, (k, n), float64
    rows : all rows of V, by sums
    counting : how many rows count in each column, by their weights, (n,), or one number for all columns
    """

    result: StoredResult
    measures: Measures
    h: Array
    rows: KnownRows
    counting: float | Array

    @property
    def settings(self) -> Settings:
        """The settings of the fit."""
        return self.result.settings

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of V."""
        m, n = self.result.record["matrix"]["shape"]
        return m, n

    @property
    def is_uniform(self) -> bool:
        """True if every entry of V counts, and all count alike."""
        return not is_masked(self.result.record) and not self.settings.validation_fraction

    @property
    def weighted(self) -> bool:
        """True if entries of V have weights."""
        return self.result.record["settings"].get("weights") is not None

    @property
    def entries(self) -> float:
        """How many entries of V count, by their weights."""
        return float(np.broadcast_to(self.counting, self.shape[1]).sum())

    @property
    def fixed_h(self) -> bool:
        """True if H was given, and stays whatever rows there are."""
        return self.result.record["settings"].get("fixed_H") is not None

    @property
    def units(self) -> tuple[float, float]:
        """The units of W and of H of the fit, in units of the user."""
        return units_of(self.result, self.measures)

    @property
    def penalty(self) -> Penalty:
        """The penalties in the units of the fit."""
        return penalty_in_units(self.settings, self.measures, self.units)

    @property
    def solver(self) -> HALS | KLNewton:
        """The solver that finds W of rows for a fixed H."""
        floor = smallest_divisor(self.measures.level, self.result.dtype)
        solver = select_inference_solver(self.settings.beta, self.penalty, floor)
        assert isinstance(solver, HALS | KLNewton)
        return solver

    @property
    def terms(self) -> Any:
        """The loss by which new rows give sums that `KnownRows.refreshed` takes."""
        if self.settings.beta == 2:
            return self.solver
        floor = smallest_divisor(self.measures.level, self.result.dtype)
        scale = factor_scale(self.measures.level, self.settings.n_components)
        return UpdateTerms(BetaDivergence(1.0, floor), scale)

    @property
    def loss(self) -> float:
        """The loss of W and H, in the units of the fit."""
        loss: float | None = self.result.record["loss"]
        return math.inf if loss is None else loss

    def in_user_units(self, h: Array) -> Array:
        """Return an H of the fit, (k, n), in the units and the dtype of the user."""
        return np.asarray(scaling.multiply(h, self.units[1]), self.result.dtype)


def open_fitted(run: Run) -> Fitted:
    """Return the finished fit of a run, whose W is read once.

    Raises
    ------
    ValueError
        If it is not finished, or the sums over its rows do not follow from W and H.
    """
    check_changeable(run.location.name, run.record)
    result = run.result
    assert result is not None
    settings, measures = result.settings, Measures(**result.record["measures"])
    if settings.beta not in (1, 2):
        raise ValueError(
            f"{run.location.name} was fitted with beta_loss {settings.beta_loss!r}; the sums over its rows "
            "are known for frobenius and kullback-leibler; fit all rows anew"
        )
    if settings.normalize is not None and any(settings.alphas):
        raise ValueError(
            f"{run.location.name} was fitted with penalties and then normalised, so that its H no longer "
            "balances them; fit all rows anew"
        )
    left, right = units_of(result, measures)
    h = scaling.multiply(result.read("H").astype(np.float64), 1 / right)
    penalty = penalty_in_units(settings, measures, (left, right))
    kind = SquaredRows if settings.beta == 2 else DivergenceRows
    sums = _w_sums(result, left)
    return Fitted(result, measures, h, kind.of(h, sums, penalty), sums.counting)


def units_of(result: StoredResult, measures: Measures) -> tuple[float, float]:
    """Return the units of W and of H of a fit, in units of the user."""
    left, right = orientation_of(result.record).turn(measures.units)
    return left, right


def penalty_in_units(settings: Settings, measures: Measures, units: tuple[float, float]) -> Penalty:
    """Return the penalties of the settings in the units of a fit."""
    exponent = settings.beta * math.log2(measures.scale)
    return penalty_of(settings, Orientation.ROWS).in_units(*units, exponent)


def _w_sums(result: StoredResult, unit: float) -> WSums:
    """Return the sums of W, in the units of the fit; W is read in pieces."""
    W = result.array("W")
    m, k = W.shape
    gram, mass = np.zeros((k, k)), np.zeros(k)
    step = max(1, PIECE // (8 * k) // W.chunks[0]) * W.chunks[0]
    for first in range(0, m, step):
        w = scaling.multiply(np.asarray(W[first : first + step], np.float64), 1 / unit)
        gram += w.T @ w
        mass += w.sum(axis=0)
    settings, counting = result.settings, float(m)
    if is_masked(result.record):
        return WSums(gram, mass, m, result.read("column_weight"))
    shared = result.record.get("counting_rows", counting * (1 - settings.validation_fraction))
    return WSums(gram, mass, m, shared)


def combined(
    measures: Measures, other: DivergenceTerms, sumsq: float, beta: float, entries: float
) -> Measures:
    """Return the measures of V with other rows added.

    Parameters
    ----------
    other : Σ v and the number of entries of these rows, at level 0, and their divergence terms if β is 1;
        negative if they are taken out.
    sumsq : Σ v² of these rows.
    entries : the number of entries of V before.
    """
    mean = (measures.mean * entries + other.weighted_sum) / (entries + other.weight)
    if beta == 2:
        return measures._replace(
            mean=mean, baseline=max(measures.baseline + sumsq * measures.scale * measures.scale, 0.0)
        )
    total = measures.level * entries
    data = measures.baseline / 2 + (total * math.log(measures.level) if total > 0 else 0.0)
    level = -round(math.log2(measures.scale))
    before = DivergenceTerms(1.0, data, total, entries, level)
    return measures._replace(mean=mean, baseline=(before + other.at_level(level)).divergence_from_mean())
