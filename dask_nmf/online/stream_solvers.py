"""The solvers of a stream: one for batches, one for its sample, each with the penalties in its units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.fitting.starts.problem import penalty_of_sample
from dask_nmf.fitting.starts.sampled.sample_fit import LOOSE
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns
from dask_nmf.inference.w_solver import DIVISOR_FLOOR
from dask_nmf.kernels.summary import masked_summary
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import Penalty, penalty_of
from dask_nmf.solvers.solver import smallest_divisor
from dask_nmf.types import Array, Block, Orientation

StreamSolver = HALS | KLNewton


def stream_penalty(settings: Settings, scale: float, unit: float) -> Penalty:
    """Return the penalties for V at a scale and H in a unit; a scale of 0 counts as 1."""
    scale = scale or 1.0
    exponent = settings.beta * math.log2(scale)
    return penalty_of(settings, Orientation.ROWS).in_units(1 / (scale * unit), unit, exponent)


def batch_solver(settings: Settings, dtype: np.dtype[Any], penalty: Penalty) -> StreamSolver:
    """Return the solver for a batch: least squares, or Newton's method for Kullback–Leibler."""
    if settings.beta == 2:
        return HALS(penalty)
    return KLNewton(max(float(np.finfo(dtype).tiny), DIVISOR_FLOOR), penalty)


def sample_solver(sample: Block, settings: Settings, penalty: Penalty, rows: float) -> StreamSolver:
    """Return the solver for a sample that stands for ``rows`` rows."""
    penalty = penalty_of_sample(penalty, sample, rows)
    if settings.beta == 2:
        return HALS(penalty)
    summary = masked_summary.summarize_block(sample)
    weight = float(np.broadcast_to(summary.column_weight, sample.shape[1]).sum())
    return KLNewton(smallest_divisor(summary.total / max(weight, 1.0), sample.dtype), penalty, LOOSE)


def lift_zero_columns(h: Array, nonzero: NDArray[np.bool_]) -> Array:
    """Return H with small entries in its zero columns where V has entries > 0.

    No step for a divergence leaves 0. H itself is returned where it has no such column.

    Parameters
    ----------
    nonzero : (n,), whether a column of V has an entry > 0.
    """
    return lift_columns(h, 0, rng.Stream.H_FACTOR, nonzero)
