"""The rank to choose, from the held-out errors of fits of several ranks.

Fits of different ranks are compared in pairs that share a fold and a seed, and so the held-out entries: most
of the spread of an error is that of the entries, and cancels in differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan, nan
from typing import Any, NamedTuple

import numpy as np

CLEARLY = 3.0  # standard errors by which an error has clearly risen
FEW = 2  # pairs, whose standard error is no guide
CLEAR_SHARE = 0.02  # share of the lowest error by which an error has clearly risen, for few pairs
ROUNDING = 1e-9  # share of an error: smaller differences are none
WORSE = 0.02  # share of the least training error of a rank by which another start has clearly failed
ALIKE = 0.002  # relative errors whose difference is smaller are alike
NEAR = 0.01  # share of the lowest error by which a smaller rank may be above it to be named
STABLE = 0.95  # stability of components that every start finds, about: a mean cosine
PATIENCE = 2  # ranks in a row whose error has clearly risen, after which larger ones need no fit


class Trial(NamedTuple):
    """One fit whose held-out error is known.

    Attributes
    ----------
    n_components, seed, fold : which fit; trials of the same seed and fold have the same held-out entries.
    held_out_error : error of the held-out entries, the same measure for all; NaN or inf if the fit failed.
    training_error : relative error of the other entries, 0 for an exact fit; NaN if it is unknown.

    Examples
    --------
    >>> from dask_nmf.quality import Trial
    >>> Trial(n_components=3, seed=0, fold=0, held_out_error=0.2).held_out_error
    0.2
    """

    n_components: int
    seed: int
    fold: int
    held_out_error: float
    training_error: float = nan


Errors = dict[tuple[int, int], Trial]  # the trials of a rank, by seed and fold


@dataclass(frozen=True)
class RankSummary:
    """The trials of one rank, compared with those of the best one.

    Attributes
    ----------
    n_components : the rank
    trials : number of its trials that are compared
    pairs : number of those with the same seed and fold as a trial of the best rank
    held_out_error, training_error : means over the trials
    difference : mean difference of the held-out error to that of the best rank, over the pairs
    standard_error : standard error of this mean; NaN for fewer than two pairs
    stability : a measure of stability that was given, such as `Stability.stability`; NaN if none was

    Examples
    --------
    >>> from dask_nmf.quality import Trial, recommend_rank
    >>> trials = [Trial(rank, 0, 0, error) for rank, error in ((1, 0.5), (2, 0.2), (3, 0.25))]
    >>> [summary.n_components for summary in recommend_rank(trials).table]
    [1, 2, 3]
    """

    n_components: int
    trials: int
    pairs: int
    held_out_error: float
    training_error: float
    difference: float
    standard_error: float
    stability: float = nan

    @property
    def is_as_good(self) -> bool:
        """Whether the held-out error is within one standard error of that of the best rank."""
        margin = 0.0 if isnan(self.standard_error) else self.standard_error
        return self.difference <= max(margin, ROUNDING * abs(self.held_out_error))

    @property
    def has_risen(self) -> bool:
        """Whether the held-out error is clearly above that of the best rank."""
        best = self.held_out_error - self.difference
        if self.pairs <= FEW:
            return self.difference > CLEAR_SHARE * abs(best)
        return self.difference > max(CLEARLY * self.standard_error, ROUNDING * abs(best))


@dataclass(frozen=True)
class Recommendation:
    """The recommended rank, why, and the table of ranks that it was chosen from.

    Attributes
    ----------
    n_components : the least rank whose held-out error is within one standard error of the lowest one
    reason : the reason, as a sentence
    best : the rank with the lowest held-out error
    table : one `RankSummary` for each rank, by rising rank

    Examples
    --------
    >>> from dask_nmf.quality import Trial, recommend_rank
    >>> trials = [Trial(rank, 0, 0, error) for rank, error in ((1, 0.5), (2, 0.2), (3, 0.25))]
    >>> found = recommend_rank(trials)
    >>> found.n_components, found.best
    (2, 2)
    """

    n_components: int
    reason: str
    best: int
    table: tuple[RankSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it: None for what is unknown."""
        rows = [
            {name: None if isnan(value) else value for name, value in asdict(row).items()}
            for row in self.table
        ]
        return {"n_components": self.n_components, "reason": self.reason, "best": self.best, "table": rows}


def recommend_rank(trials: Iterable[Trial], stability: Mapping[int, float] | None = None) -> Recommendation:
    """Return the least rank whose held-out error is within one standard error of the lowest one.

    The standard error is that of the mean difference to the best rank over trials with the same seed and
    fold (the rule of Breiman et al., Classification and Regression Trees, 1984, for paired errors). With one
    pair there is none, and the rank with the lowest error is recommended. Trials without a held-out error are
    left out, and so are failed starts: those whose training error is more than 2 % and 0.002 above the least
    one of their rank and fold, if they are a minority there. Ranks without a trial that pairs with one of
    the best rank are left out, too. The reason names the least rank with an error within 1 % of the lowest.
    Stability does not choose. The reason has it, and if it is below 0.95 the largest smaller rank where it
    is not.

    Parameters
    ----------
    trials : fits of several ranks, in any order.
    stability : a measure of stability of each rank, or of some of them.

    Raises
    ------
    ValueError
        If no trial has a held-out error, or two trials are of the same rank, seed and fold.

    Examples
    --------
    >>> from dask_nmf.quality import Trial, recommend_rank
    >>> errors = {1: (0.5, 0.6), 2: (0.21, 0.31), 3: (0.2, 0.32)}
    >>> trials = [Trial(rank, seed, 0, error[seed]) for rank, error in errors.items() for seed in (0, 1)]
    >>> recommend_rank(trials).n_components
    2
    """
    errors = compared_trials(trials)
    if not errors:
        raise ValueError("no trial has a held-out error; give at least one that is finite")
    best = _best(errors)
    table = tuple(_summaries(errors, best, stability or {}))
    chosen = next(row for row in table if row.is_as_good)
    return Recommendation(chosen.n_components, _reason(chosen, best, table), best, table)


def finished_ranks(trials: Iterable[Trial], ranks: Sequence[int]) -> set[int]:
    """Return the ranks that need no further passes, because larger ranks than the best one clearly fit noise.

    These are the ranks above the best one whose held-out error has clearly risen: by more than three standard
    errors of the mean difference, or by more than 2 % if there are only one or two pairs. If the two largest
    ranks that have trials are among them, so are all larger ranks. No rank up to the best one is finished.

    Parameters
    ----------
    trials : the held-out errors so far, such as those after a pass.
    ranks : all ranks that are to be fitted.

    Examples
    --------
    >>> from dask_nmf.quality import Trial, finished_ranks
    >>> trials = [Trial(rank, 0, 0, error) for rank, error in ((1, 0.5), (2, 0.2), (3, 0.25), (4, 0.3))]
    >>> sorted(finished_ranks(trials, [1, 2, 3, 4, 5]))
    [3, 4, 5]
    """
    errors = compared_trials(trials)
    if not errors:
        return set()
    best = _best(errors)
    above = [row for row in _summaries(errors, best, {}) if row.n_components > best]
    risen = {row.n_components for row in above if row.has_risen}
    largest = [row.n_components for row in above][-PATIENCE:]
    over = len(largest) == PATIENCE and risen.issuperset(largest)
    return {rank for rank in ranks if rank in risen or (over and rank > largest[-1])}


def compared_trials(trials: Iterable[Trial]) -> dict[int, Errors]:
    """Return the trials that are compared, by rising rank, and by seed and fold: failed starts are not."""
    errors: dict[int, Errors] = {}
    for trial in trials:
        rank, pair = trial.n_components, (trial.seed, trial.fold)
        if pair in errors.setdefault(rank, {}):
            raise ValueError(
                f"two trials are of rank {rank}, seed {pair[0]} and fold {pair[1]}; give one of each"
            )
        errors[rank][pair] = trial
    known = {
        rank: {pair: trial for pair, trial in some.items() if isfinite(trial.held_out_error)}
        for rank, some in errors.items()
    }
    return {rank: _without_failed(known[rank]) for rank in sorted(known) if known[rank]}


def _without_failed(some: Errors) -> Errors:
    """Return the trials without failed starts, a minority: ranks still have starts in common."""
    failed: set[tuple[int, int]] = set()
    for fold in {pair[1] for pair in some}:
        own = {pair: trial.training_error for pair, trial in some.items() if pair[1] == fold}
        least = min((error for error in own.values() if not isnan(error)), default=nan)
        worse = {pair for pair, error in own.items() if error > (1 + WORSE) * least + ALIKE}
        if 2 * len(worse) < len(own):
            failed |= worse
    return {pair: trial for pair, trial in some.items() if pair not in failed}


def _differences(some: Errors, other: Errors) -> list[float]:
    """Return by how much held-out errors are above those of the same seed and fold at another rank."""
    return [some[pair].held_out_error - other[pair].held_out_error for pair in some if pair in other]


def _best(errors: dict[int, Errors]) -> int:
    """Return the rank with the lowest error in pairs, the least one of those that are equal."""
    best, *others = errors
    for rank in others:
        differences = _differences(errors[rank], errors[best])
        size = _mean(trial.held_out_error for trial in errors[best].values())
        if differences and _mean(differences) < -ROUNDING * abs(size):
            best = rank
    return best


def _summaries(errors: dict[int, Errors], best: int, stability: Mapping[int, float]) -> Iterable[RankSummary]:
    for rank, some in errors.items():
        differences = _differences(some, errors[best])
        if not differences:
            continue
        spread = np.std(differences, ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else nan
        yield RankSummary(
            rank,
            len(some),
            len(differences),
            _mean(trial.held_out_error for trial in some.values()),
            _mean(trial.training_error for trial in some.values()),
            _mean(differences),
            float(spread),
            stability.get(rank, nan),
        )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _reason(chosen: RankSummary, best: int, table: Sequence[RankSummary]) -> str:
    ranks = [row.n_components for row in table]
    lowest = next(row for row in table if row.n_components == best)
    text = f"the held-out error of rank {chosen.n_components}, {chosen.held_out_error:.4g}, is "
    if len(table) == 1:
        text += "the only one"
    elif chosen.n_components == best:
        text += "the lowest"
        if best > ranks[0]:
            smaller = "is within one standard error of it" if lowest.pairs > 1 else "has one as low"
            text += f", and no smaller rank {smaller}"
    else:
        text += (
            f"within one standard error ({chosen.standard_error:.2g}) of the lowest, "
            f"{lowest.held_out_error:.4g} of rank {best}, and no smaller rank is"
        )
    if not isnan(chosen.stability):
        text += f"; the stability of its components is {chosen.stability:.3g}"
        below = [
            row for row in table if 1 < row.n_components < chosen.n_components and row.stability >= STABLE
        ]
        if below and chosen.stability < STABLE:  # a single component is stable in any case
            text += (
                f", and the largest rank below it with at least {STABLE} is {below[-1].n_components} "
                f"({below[-1].stability:.3g})"
            )
    near = next(row for row in table if row.difference <= NEAR * abs(lowest.held_out_error))
    if near.n_components < chosen.n_components:
        text += f"; the error of rank {near.n_components} is within {NEAR:.0%} of the lowest"
    if len(table) > 1 and best == ranks[-1]:
        text += f"; the error still falls at rank {best}, the largest one, so try larger ranks"
    return text
