"""The outcome of a fit, as a value that code can test, with a message for people."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-6  # tolerance of a relative error: that of zero factors is about 1


class Outcome(StrEnum):
    """The reason why a fit ended.

    Examples
    --------
    >>> from dask_nmf import Outcome, nmf
    >>> nmf([[1.0, 2.0], [3.0, 5.0]], 1, max_iter=1, tol=0).outcome is Outcome.MAX_ITER
    True
    >>> Outcome.MAX_ITER.converged, Outcome.MAX_ITER.final
    (False, True)
    """

    CONVERGED = "converged"  # a pass changed the loss by less than tol, or could not lower it
    EXPLAINED = "explained"  # the factors explain all of V, up to rounding
    FIXED = "fixed"  # one factor is fixed, and the other is the best for it
    ZERO = "zero"  # V is zero everywhere
    TARGET = "target"  # ‖V − W H‖ is below the given target
    HELD_OUT = "held out"  # the error of the held-out entries falls no more
    MAX_ITER = "max_iter"  # the given number of passes is reached
    TIME_LIMIT = "time limit"  # the time is up; the same call continues the fit
    DIVERGED = "diverged"  # no step is short enough
    NOT_CONVERGED = "not converged"  # the passes ended at no solution
    UNOBSERVED = "nothing observed"  # no entry counts

    @property
    def converged(self) -> bool:
        """True if the fit reached its goal: more passes would gain nothing that was asked for."""
        return self not in _SHORT

    @property
    def final(self) -> bool:
        """True if no pass follows; False after the time limit, since the same call continues the fit."""
        return self is not Outcome.TIME_LIMIT


_SHORT = (
    Outcome.MAX_ITER,
    Outcome.TIME_LIMIT,
    Outcome.DIVERGED,
    Outcome.NOT_CONVERGED,
    Outcome.UNOBSERVED,
)


class Ending(NamedTuple):
    """The end of a fit: its outcome, and a message for people."""

    outcome: Outcome
    message: str


def judged(ending: Ending, error: float) -> Ending:
    """Return the ending, changed to `Outcome.NOT_CONVERGED` if W H is no better than the mean of V.

    Parameters
    ----------
    error : the relative error; a divergence is infinite if W H is 0 at an entry of V that is not.
    """
    if error == np.inf:
        return Ending(
            Outcome.NOT_CONVERGED,
            "not converged: W H is 0 at entries where V is not, so the divergence is infinite; "
            "leave the factor that was given out, or give one without zeros there",
        )
    if error > 1 + ROUNDING and ending.outcome in (Outcome.CONVERGED, Outcome.EXPLAINED, Outcome.FIXED):
        known = ending.outcome == Outcome.FIXED
        advice = "the known factor does not fit this V" if known else "give another seed, or init='random'"
        return Ending(
            Outcome.NOT_CONVERGED,
            f"not converged: the passes end at relative error {error:.4g}, where the mean of V has 1; "
            f"{advice}",
        )
    return ending


def relative_error(loss: float, baseline: float) -> float:
    """Return ‖V − W H‖ / ‖V‖ from their squares, or √(D(V | W H) / D(V | mean)); 0 if V is 0."""
    return float(np.sqrt(max(loss, 0.0) / baseline)) if baseline > 0 else 0.0
