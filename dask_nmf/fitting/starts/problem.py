"""The measures of V after the first read, and the solvers and penalties that follow from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import select_inference_solver, select_solver
from dask_nmf.solvers.solver import Problem, RightSolver, Solver, factor_scale, smallest_divisor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block

LEAST_SQUARES = 1e-290  # the least square of a mean, well above the least number of float64


class Measures(NamedTuple):
    """The measures of V that the first read takes."""

    mean: float
    baseline: float  # of scaled V: ‖V‖², or twice the divergence from the mean; losses are relative to it
    stored: int  # number of stored entries
    empty: int  # number of panel rows without an entry > 0
    unobserved_rows: int = 0  # number of rows of V in which no entry counts: their factors are zero
    unobserved_columns: int = 0
    scale: float = 1.0  # a power of two by which V is multiplied for the fit, see `scaling`
    right_unit: float = 1.0  # the unit of the right factor, before that of a penalty

    @property
    def level(self) -> float:
        """The mean of the scaled V, about 1."""
        return self.mean * self.scale

    @property
    def units(self) -> tuple[float, float]:
        """The units of the left and the right factor of the fit, in units of the user."""
        if self.right_unit == scaling.power(self.scale, -0.5):
            return self.right_unit, self.right_unit
        return 1 / (self.scale * self.right_unit), self.right_unit

    def error_unit(self, beta: float) -> float:
        """Return the unit of the square root of a loss of the fit, in units of the user."""
        return scaling.power(self.scale, -beta / 2)

    def loss_unit(self, beta: float) -> float | None:
        """Return the unit of a loss of the fit, in units of the user; None if it is beyond float64."""
        unit = self.error_unit(beta) * self.error_unit(beta)
        return unit if 0 < unit < math.inf else None


class Factors(NamedTuple):
    """W and H, or either, in panel orientation: panels hold the left factor, and are given the right one."""

    left: Array | None  # (rows of the panels, k)
    right: Array | None  # (k, columns of the panels)


NO_FACTORS = Factors(None, None)


def penalty_of_fit(settings: Settings, measures: Measures, matrix: Matrix) -> Penalty:
    """Return the penalties in the units of a fit, see `Penalty.in_balanced_units`.

    With given factors, mu and sgd make the steps of the textbook, so that these factors keep their scale.
    """
    penalty = own_penalty(settings, measures, matrix)
    if settings.start == "custom" and settings.algorithm.carries_w:
        return penalty
    return penalty.in_balanced_units(factor_scale(measures.level, settings.n_components))


def own_penalty(settings: Settings, measures: Measures, matrix: Matrix) -> Penalty:
    """Return the penalties of the settings for a fit of the scaled V."""
    exponent = settings.beta * math.log2(measures.scale)
    return penalty_of(settings, matrix.orientation).in_units(*measures.units, exponent)


def scale_and_unit(mean: float, factors: Factors, matrix: Matrix) -> tuple[float, float]:
    """Return the scale of V, and the unit of the right factor, which makes both factors alike in size.

    If a factor is given, its unit is its own size.
    """
    scale = scaling.scale_of(mean, matrix.dtype)
    if factors.right is not None:
        return scale, scaling.unit_of(factors.right)
    if factors.left is not None:
        return scale, 1 / (scale * scaling.unit_of(factors.left))
    return scale, scaling.power(scale, -0.5)


def check_squares(mean: float, sumsq: float) -> None:
    """Check that the squares of V fit float64; those of float32 entries always do.

    Raises
    ------
    DataError
        If they do not; the message names the cure.
    """
    if mean > 0 and not (mean * mean > LEAST_SQUARES and sumsq < math.inf):
        raise DataError(
            f"V has mean {mean:.3g}: squares do not fit float64; multiply V by a number "
            "that brings its mean near 1"
        )


def make_solver(settings: Settings, measures: Measures, matrix: Matrix) -> Solver:
    """Return the solver that the settings name, at the scale of V."""
    penalty = penalty_of_fit(settings, measures, matrix)
    columns, orientation = matrix.layout.columns, matrix.orientation
    return select_solver(
        Problem(settings, penalty, measures.level, measures.scale, matrix.dtype, columns, orientation)
    )


def fixed_factor_solver(settings: Settings, measures: Measures, matrix: Matrix) -> RightSolver:
    """Return the solver that finds one factor for a fixed other one, whichever solver the settings name."""
    scale = factor_scale(measures.level, settings.n_components)
    penalty = own_penalty(settings, measures, matrix)
    return select_inference_solver(
        settings.beta, penalty, smallest_divisor(measures.level, matrix.dtype), scale
    )


def in_units(factors: Factors, penalty: Penalty, dtype: np.dtype[Any]) -> Factors:
    """Return given factors, or either, in the units of a fit."""
    left, right = (
        None if factor is None else scaling.multiply(np.asarray(factor, np.float64), 1 / unit).astype(dtype)
        for factor, unit in zip(factors, (penalty.left_unit, penalty.right_unit), strict=True)
    )
    return Factors(left, right)


def penalty_of_sample(penalty: Penalty, sample: Block, rows: float) -> Penalty:
    """Return the penalties for a sample of rows that stands for all ``rows`` of the panels.

    Rows with larger weights count more in the penalties too. Other samples have scaled rows, and W scales
    with them: by 1/√p for the squared error, where p is the share of sampled rows, and by 1/p for a
    divergence.
    """
    scaled = not isinstance(sample, MaskedBlock) or sample.mask.by_groups
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
