"""The solver that the settings name, for a matrix whose scale is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import ConvergedMU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.penalties import Penalty


def select_inference_solver(
    beta: float, penalty: Penalty, floor: float, scale: float = 1.0
) -> HALS | KLNewton | ConvergedMU:
    """The solver that finds W of a fixed H."""
    if beta == 2:
        return HALS(penalty)
    if beta == 1:
        return KLNewton(floor, penalty)
    return ConvergedMU(beta, floor, scale, 0.0, penalty)


def smallest_divisor(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the least number that a divergence divides by, for a V of that mean."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))
