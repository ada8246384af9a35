"""The factor that a fit begins with: H of a sample of V's rows, factorised in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dask_nmf import draws, observed, sampling
from dask_nmf.beta import Newton, floor_of
from dask_nmf.divergence import from_mean
from dask_nmf.fit import Stop, in_threads, iterate
from dask_nmf.kernels import Array, Block, Sums
from dask_nmf.observed import Observed
from dask_nmf.passes import Weighing
from dask_nmf.settings import Settings
from dask_nmf.solvers import HALS, Penalty, State

ROUGHLY, CLOSELY = Stop(max_iter=60, tol=1e-3), Stop(max_iter=60, tol=3e-5)
FEW = 4  # one in so many rows of a sample of MANY entries, to come near
MANY = 1024 * 1024
TRIES = 8  # random starts, where the sample is little work:
EASY = 256 * 1024  # entries, and those of its W and H
ALIKE = 1.001  # times the least loss: rounding must not choose among starts that lead to one end
LOOSE = 0.1  # inner solves: a third less time than with 1e-2
FAINT = 1e-2  # of a component's mean entry: a column that the sample has not seen


def factor_scale(mean: float, rank: int) -> float:
    """√(mean(V) / k): the size of an entry of W and H that gives V its mean."""
    return float(np.sqrt(mean / rank))


def random_factor(settings: Settings, rows: NDArray[np.intp], scale: float, stream: int) -> Array:
    """Rows of a random factor, scale · |N(0, 1)| as in scikit-learn, never 0, (len(rows), k), float64."""
    numbers = draws.half_normal(settings.seed, stream, rows, settings.rank)
    return scale * np.maximum(numbers, np.finfo(np.float64).eps)


def sampled_h(sample: Block, settings: Settings, penalty: Penalty, stream: int) -> Array:
    """H of the sampled rows, (k, n).

    Of columns in which they have no entry nothing is known, and the sample is looked at without them.
    For the squared error they are 0; of a divergence they begin small, as they would stay 0.
    """
    found = observed.measure(sample)
    mean = found.total / float(np.broadcast_to(found.mass, sample.shape[1]).sum())
    squared = settings.beta == 2
    anywhere = squared and isinstance(sample, Observed)
    seen = np.ones(sample.shape[1], bool) if anywhere else _seen(sample)
    part, columns = sample, np.arange(len(seen))
    if seen.any() and not seen.all():
        part = _of_columns(sample, np.flatnonzero(seen))
    if part is not sample:
        columns = columns[seen]

    def begin(attempt: int) -> Array:
        apart = attempt << 32  # so that no start has numbers of another
        random = random_factor(settings, apart + columns, factor_scale(mean, settings.rank), stream)
        return np.ascontiguousarray(random.T, sample.dtype)

    solver = HALS(penalty) if squared else Newton(floor_of(mean, sample.dtype), penalty, LOOSE)
    h = np.zeros((settings.rank, len(seen)), sample.dtype)
    tries = TRIES if settings.solver == "hals" else 1  # measured for it alone: mu ended worse on 5 x 6
    h[:, columns] = _factorised(part, begin, solver, tries)
    if not squared:
        h[:, ~seen] = FAINT * h[:, columns].mean(axis=1, keepdims=True)
    return h


def _of_columns(sample: Block, columns: NDArray[np.intp]) -> Block:
    """The sample without its other columns, if nothing but what it stores counts."""
    if not isinstance(sample, Observed):
        return sample[:, columns]
    return replace(sample, v=sample.v[:, columns]) if sample.rule.skips_zeros else sample


def _factorised(sample: Block, begin: Callable[[int], Array], solver: HALS | Newton, tries: int) -> Array:
    """H of rows in memory, from random starts, (k, n): from one, or of few rows from the best of some.

    Of a large sample a few rows first, and looser inner solves: most of the way can be gone with them. An L1
    penalty comes last: of random components, which are much alike, it would leave none but the largest. A
    divergence has poor minima among its many; it begins at H of the squared error, which has fewer. A
    component that the sample does not need at all comes back as it began.
    """
    squared, first = _squared(sample), solver if isinstance(solver, HALS) else HALS()
    smooth = replace(first, penalty=replace(first.penalty, left_l1=0.0, right_l1=0.0))
    work = observed.stored(sample) + sum(sample.shape) * len(begin(0))
    plain = first is solver and not isinstance(
        sample, Observed
    )  # the least error is not the least divergence
    tries = tries if plain and work <= EASY else 1
    begun = h = begin(0)
    if tries > 1 or smooth != first:
        tried = [_descend(squared, begin(attempt), smooth, ROUGHLY) for attempt in range(tries)]
        least = min(state.loss for state in tried)
        h = _best(next(state for state in tried if state.loss <= max(least, ALIKE * least)))
    if observed.stored(sample) >= MANY:
        first = replace(first, tol=LOOSE)
        h = _best(_descend(squared[::FEW], h, first, ROUGHLY))
    h = _best(_descend(squared, h, first, CLOSELY))
    if isinstance(solver, Newton):
        h = _best(_descend(sample, h, solver, CLOSELY))
    return np.where(h.any(axis=1, keepdims=True), h, begun)


def _best(state: State) -> Array:
    """H by what is held out the best, if anything is."""
    return state.h if state.best is None else state.best


def _squared(sample: Block) -> Block:
    """The same cells, where the squared error is the loss."""
    if not isinstance(sample, Observed):
        return sample
    return sample.v if sample.rule.all_alike else replace(sample, rule=replace(sample.rule, beta=2.0))


def _seen(sample: Block) -> NDArray[np.bool_]:
    """The columns in which the sample has an entry > 0."""
    seen = np.zeros(sample.shape[1], bool)
    if isinstance(sample, np.ndarray):
        return np.asarray(sample.any(axis=0))
    if not isinstance(sample, Observed):
        seen[sample.indices[sample.data > 0]] = True
        return seen
    for _, cells, _ in observed.strips(sample):
        seen[cells.indices[cells.values > 0]] = True
    return seen


def _descend(sample: Block, h: Array, solver: HALS | Newton, stop: Stop) -> State:
    """After passes over a sample in memory, from H (k, n)."""
    rows = sampling.pieces(sample)
    found = observed.measure(sample)
    baseline = float(found.norms.sum())
    if isinstance(solver, Newton):
        entries = float(np.broadcast_to(found.mass, sample.shape[1]).sum())
        baseline = from_mean(found.power, found.total, entries, 1.0)

    state = State(h, h)
    with in_threads(rows) as over:

        def sweep(state: State, exact: bool) -> Sums:
            return over(state.entering, Weighing(solver.weigh, solver, residual=exact))

        for step in iterate(sweep, solver, state, baseline, stop):
            state = step.state  # and no other is kept: each has two of H
    return state
