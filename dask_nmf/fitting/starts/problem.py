"""What a fit knows of V after its first read, and the solvers and penalties that follow from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import select_inference_solver, select_solver
from dask_nmf.solvers.solver import Problem, RightSolver, Solver, factor_scale, smallest_divisor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block

LEAST_SQUARES = 1e-290  # of the mean: squares that are much smaller are numbers, too


class Measures(NamedTuple):
    """What the first read tells of V."""

    mean: float
    baseline: float  # what losses are compared with: ‖V‖², or twice the divergence from the mean, of scaled V
    stored: int  # entries held
    empty: int  # panel rows (columns, where the panels are columns) without an entry > 0
    unobserved_rows: int = 0  # of V, of which no entry counts: their factors are zero
    unobserved_columns: int = 0
    scale: float = 1.0  # a power of two: the fit is one of V times this, see `scaling`
    right_unit: float = 1.0  # of the factor that panels are given, before a penalty's own unit

    @property
    def level(self) -> float:
        """The mean of what is fitted, about 1."""
        return self.mean * self.scale

    @property
    def units(self) -> tuple[float, float]:
        """Of the left and the right factor of the fit, in those of the user."""
        if self.right_unit == scaling.power(self.scale, -0.5):
            return self.right_unit, self.right_unit
        return 1 / (self.scale * self.right_unit), self.right_unit

    def error_unit(self, beta: float) -> float:
        """The unit of the square root of a loss of the fit, in that of the user."""
        return scaling.power(self.scale, -beta / 2)


class Factors(NamedTuple):
    """W and H, or either, in panel orientation: what the panels hold, and what they are given."""

    left: Array | None  # (rows of the panels, k)
    right: Array | None  # (k, columns of the panels)


NO_FACTORS = Factors(None, None)


def orient(w: Array | None, h: Array | None, transposed: bool) -> Factors:
    """W (m, k) and H (k, n), or either, as the panels see them."""
    if not transposed:
        return Factors(w, h)
    return Factors(None if h is None else h.T, None if w is None else w.T)


def penalty_of_fit(settings: Settings, measures: Measures, matrix: Matrix) -> Penalty:
    """Return the penalties in the units of a fit: see `Penalty.in_balanced_units`.

    The steps of mu and sgd from given factors are the textbook's, so these factors stay as they are.
    """
    penalty = own_penalty(settings, measures, matrix)
    if settings.start == "custom" and settings.algorithm.carries_w:
        return penalty
    return penalty.in_balanced_units(factor_scale(measures.level, settings.n_components))


def own_penalty(settings: Settings, measures: Measures, matrix: Matrix) -> Penalty:
    """Return the penalties that the user asks for, for a fit of V at its scale."""
    exponent = settings.beta * math.log2(measures.scale)
    return penalty_of(settings, matrix.transposed).in_units(*measures.units, exponent)


def scale_and_unit(mean: float, given: Factors, matrix: Matrix) -> tuple[float, float]:
    """Return the scale of V, and the unit of the right factor: by that both factors of a fit are alike.

    Where one is given it is of size 1 in its own unit.
    """
    scale = scaling.scale_of(mean, matrix.dtype)
    if given.right is not None:
        return scale, scaling.unit_of(given.right)
    if given.left is not None:
        return scale, 1 / (scale * scaling.unit_of(given.left))
    return scale, scaling.power(scale, -0.5)


def check_squares(mean: float, sumsq: float) -> None:
    """Refuse a V whose squares are no numbers of float64; those of float32 always are.

    Raises
    ------
    DataError
        With the cure.
    """
    if mean > 0 and not (mean * mean > LEAST_SQUARES and sumsq < math.inf):
        raise DataError(
            f"V has mean {mean:.3g}: squares do not fit float64; multiply V by a number "
            "that brings its mean near 1"
        )


def make_solver(settings: Settings, measures: Measures, matrix: Matrix) -> Solver:
    """Return the solver that the settings name, at the scale of V."""
    penalty = penalty_of_fit(settings, measures, matrix)
    columns, transposed = matrix.layout.columns, matrix.transposed
    return select_solver(
        Problem(settings, penalty, measures.level, measures.scale, matrix.dtype, columns, transposed)
    )


def answerer(settings: Settings, measures: Measures, matrix: Matrix) -> RightSolver:
    """The solver that finds one factor for the other, whatever they come from."""
    scale = factor_scale(measures.level, settings.n_components)
    penalty = own_penalty(settings, measures, matrix)
    return select_inference_solver(
        settings.beta, penalty, smallest_divisor(measures.level, matrix.dtype), scale
    )


def in_units(given: Factors, penalty: Penalty, dtype: np.dtype[Any]) -> Factors:
    """Return given factors, or either, in the units of a fit."""
    left, right = (
        None if factor is None else scaling.multiply(np.asarray(factor, np.float64), 1 / unit).astype(dtype)
        for factor, unit in zip(given, (penalty.left_unit, penalty.right_unit), strict=True)
    )
    return Factors(left, right)


def penalty_of_sample(penalty: Penalty, sample: Block, rows: float) -> Penalty:
    """Return the penalties for rows that stand for all ``rows`` of the panels.

    Rows that count more by their weights do so in the penalties too. The others are scaled, so their W is:
    by √p⁻¹ for the squared error (p is the share that is drawn), and by p⁻¹ for a divergence.
    """
    scaled = not isinstance(sample, MaskedBlock)
    if not scaled and not sample.mask.implicit_zeros:
        return penalty
    more = rows / max(sample.shape[0], 1)
    left, left_l1 = (1.0, math.sqrt(more)) if scaled else (1 / more, 1.0)
    return replace(
        penalty,
        left=penalty.left * left,
        left_l1=penalty.left_l1 * left_l1,
        right=penalty.right * more,
        right_l1=penalty.right_l1 * more,
    )
