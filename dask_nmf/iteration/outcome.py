"""Why a fit ended, as a value that code can ask, with a sentence for people beside it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-6  # of a relative error: that of zero factors is about 1


class Outcome(StrEnum):
    """Why a fit ended."""

    CONVERGED = "converged"  # a pass changed the loss by less than tol, or could not lower it
    EXPLAINED = "explained"  # nothing is left of V that the factors do not explain
    FIXED = "fixed"  # one factor is fixed, and the other one is the best for it
    ZERO = "zero"  # V is zero everywhere
    TARGET = "target"  # ‖V − W H‖ is below the target that was given
    HELD_OUT = "held out"  # the error of the entries held out falls no more
    MAX_ITER = "max_iter"  # the number of passes that was given is reached
    TIME_LIMIT = "time limit"  # the time is up: the same call goes on
    DIVERGED = "diverged"  # no step is short enough
    NOT_CONVERGED = "not converged"  # the passes ended at no solution
    UNOBSERVED = "nothing observed"  # no entry counts

    @property
    def converged(self) -> bool:
        """Whether the fit ended where more passes would gain nothing that was asked for."""
        return self not in _SHORT

    @property
    def final(self) -> bool:
        """Whether no pass is to follow: False where the same call would go on."""
        return self is not Outcome.TIME_LIMIT


_SHORT = (
    Outcome.MAX_ITER,
    Outcome.TIME_LIMIT,
    Outcome.DIVERGED,
    Outcome.NOT_CONVERGED,
    Outcome.UNOBSERVED,
)


class Ending(NamedTuple):
    """The end of a fit: why, and the sentence that says so."""

    outcome: Outcome
    message: str


def judged(ending: Ending, error: float) -> Ending:
    """Return an ending, which is no convergence where W H is no better than the mean of V.

    Parameters
    ----------
    error : the relative error, infinite where W H is 0 and V is not and the loss is a divergence.
    """
    if error == np.inf:
        return Ending(
            Outcome.NOT_CONVERGED,
            "not converged: W H is 0 at entries where V is not, so the divergence is infinite; "
            "leave the factor that was given out, or give one without zeros there",
        )
    if error > 1 + ROUNDING and ending.outcome in (Outcome.CONVERGED, Outcome.EXPLAINED, Outcome.FIXED):
        return Ending(
            Outcome.NOT_CONVERGED,
            f"not converged: the passes end at relative error {error:.4g}, where the mean of V has 1; "
            "give another seed, or init='random'",
        )
    return ending


def relative_error(loss: float, baseline: float) -> float:
    """Return ‖V − W H‖ / ‖V‖ from their squares, or √(D(V | W H) / D(V | mean)); 0 where V is 0."""
    return float(np.sqrt(max(loss, 0.0) / baseline)) if baseline > 0 else 0.0
