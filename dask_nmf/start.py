"""Where a fit begins: the first read of V, and factors from that, at random, or as given."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf import draws, fit, observed, sampling, svd
from dask_nmf.beta import BetaMU, Newton, Settled, exact
from dask_nmf.divergence import from_mean
from dask_nmf.errors import DataError
from dask_nmf.fit import Panels, Stop, in_threads, iterate
from dask_nmf.gradient import Descent, extended
from dask_nmf.kernels import Array, Block, Sums
from dask_nmf.matrix import Matrix
from dask_nmf.observed import Observed
from dask_nmf.passes import Weighing, Weights, as_it_is
from dask_nmf.sampling import Draw, Summary
from dask_nmf.settings import Settings
from dask_nmf.sgd import SGD, Plain
from dask_nmf.solvers import HALS, MU, Penalty, Solver, State, lift, penalty_of

logger = logging.getLogger(__name__)

ROUGHLY, CLOSELY = Stop(max_iter=60, tol=1e-3), Stop(max_iter=60, tol=3e-5)
FEW = 4  # one in so many rows of a sample of MANY entries, to come near
MANY = 1024 * 1024
TRIES = 8  # random starts, where the sample is little work:
EASY = 256 * 1024  # entries, and those of its W and H
ALIKE = 1.001  # times the least loss: rounding must not choose among starts that lead to one end
LOOSE = 0.1  # inner solves: a third less time than with 1e-2
FAINT = 1e-2  # of a component's mean entry: a column that the sample has not seen
FITTED = {
    4: (1e-20, 1e17),
    8: (1e-70, 1e70),
}  # by itemsize: sizes of entries that were fitted as those near 1 are
LIFT = 1e-3  # of a factor's mean entry


class Measures(NamedTuple):
    """What the first read tells of V."""

    mean: float
    baseline: float  # what the loss is compared with: ‖V‖², or twice the divergence of V from its mean
    stored: int  # entries held
    empty: int  # panel rows (columns, where the panels are columns) without an entry > 0
    unobserved_rows: int = 0  # of V, of which no entry counts: their factors are zero
    unobserved_columns: int = 0


class Factors(NamedTuple):
    """W and H, or either, in panel orientation: what the panels hold, and what they are given."""

    left: Array | None  # (rows of the panels, k)
    right: Array | None  # (k, columns of the panels)


def orient(w: Array | None, h: Array | None, transposed: bool) -> Factors:
    """W (m, k) and H (k, n), or either, as the panels see them."""
    if not transposed:
        return Factors(w, h)
    return Factors(None if h is None else h.T, None if w is None else w.T)


def first_read(panels: Panels, settings: Settings, sample_rows: int) -> tuple[Measures, Array | None]:
    """Check and measure V; and look at a sample of its rows, where the fit starts so.

    That is H of the sample, (k, n), or what `svd.sampled_directions` has of it.

    Raises
    ------
    BadEntry
        For the first entry that is negative or not finite.
    """
    matrix = panels.matrix
    sampled = sample_rows > 0 and (settings.start == "sample" or settings.by_svd)
    draw = Draw(panels.edges[-1], sample_rows if sampled else 0, settings.seed)
    summary = fit.summarise(panels, draw)
    if summary.bad is not None:
        raise summary.bad.at(0, matrix.transposed)
    if panels.weights is None:
        _check_scale(summary, matrix, settings.beta)
    measures = _measures(summary, matrix, settings.beta)
    tell(measures)
    if not sampled:
        return measures, None
    if settings.by_svd:
        return measures, svd.sampled_directions(summary.candidates, draw, settings.rank)
    sample = sampling.draw_sample(summary.candidates, draw)
    logger.info("factorising a sample of %d panel rows, for the start", sample.shape[0])
    penalty = penalty_of(settings, matrix.transposed)
    if not isinstance(sample, Observed) or sample.rule.skips_zeros:
        # its rows stand for all of them, and the penalty on H is for all
        more = panels.edges[-1] / sample.shape[0]
        penalty = replace(penalty, right=penalty.right * more, right_l1=penalty.right_l1 * more)
    return measures, sampled_h(sample, settings, penalty, _streams(matrix)[1])


def _check_scale(summary: Summary, matrix: Matrix, beta: float) -> None:
    """Refuse a V whose squares, or products with its factors, would overflow or vanish."""
    norm, size = summary.sumsq, summary.sumsq / max(summary.stored, 1)
    if beta == 2:
        norm, size = math.sqrt(norm), math.sqrt(size)
    least, most = FITTED[matrix.dtype.itemsize]
    if summary.total > 0 and not (size > least and norm < most):
        raise DataError(
            f"V has entries of about {size:.3g} and norm {norm:.3g}: squares do not fit {matrix.dtype}; "
            "multiply V by a number that brings them near 1"
        )


def tell(measures: Measures) -> None:
    """A line in the log."""
    logger.info(
        "first read: %d entries, mean %.4g, %d empty panel rows; nothing observed in %d rows and %d columns",
        measures.stored,
        measures.mean,
        measures.empty,
        measures.unobserved_rows,
        measures.unobserved_columns,
        extra={"nmf": {"event": "first read", **measures._asdict()}},
    )


def _measures(summary: Summary, matrix: Matrix, beta: float) -> Measures:
    mass = np.broadcast_to(summary.mass, matrix.layout.columns)
    unobserved = summary.unobserved_rows, int((mass == 0).sum())
    if not mass.any():
        raise DataError("V has no entry that counts: all are missing, held out or of weight 0")
    entries = float(mass.sum())
    return Measures(
        summary.total / entries,
        summary.sumsq if beta == 2 else from_mean(summary.power, summary.total, entries, beta),
        summary.stored,
        summary.empty_rows,
        *(unobserved[::-1] if matrix.transposed else unobserved),
    )


def make_solver(settings: Settings, measures: Measures, matrix: Matrix) -> Solver:
    """The solver that the settings name, at the scale of V."""
    penalty = penalty_of(settings, matrix.transposed)
    floor = _floor(measures.mean, matrix.dtype)
    if settings.solver == "sgd":
        return _descending(settings, measures, matrix)
    if settings.solver == "hals":
        return HALS(penalty) if settings.beta == 2 else Newton(floor, penalty)
    scale = factor_scale(measures.mean, settings.rank)
    first = not matrix.transposed
    if settings.beta != 2:
        return BetaMU(settings.beta, floor, scale, LIFT * scale, penalty, settings.inner_iter, first)
    trifle = _floor(measures.mean * scale, matrix.dtype)
    delta = trifle if settings.delta is None else settings.delta
    return MU(delta, LIFT * scale, settings.inner_iter, first, penalty)


def _floor(mean: float, dtype: np.dtype[Any]) -> float:
    """What is divided by in a divergence is at least this."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))


def _descending(settings: Settings, measures: Measures, matrix: Matrix) -> SGD:
    """SGD by minibatches of rows, or of cells where not all count."""
    by_cell = settings.missing is not None or settings.validation_fraction > 0
    adaptive = settings.schedule == "adagrad"
    batch = settings.batch_size or (1 if by_cell else 32)
    unit = measures.mean or 1.0
    together = 1 if by_cell else max(batch, matrix.layout.columns)
    relative = 0.1 if settings.start == "random" else 0.03  # or a good start would be undone at first
    rate = settings.learning_rate or (relative if adaptive else 0.5 / (unit * together))
    penalty = penalty_of(settings, matrix.transposed)
    alphas = penalty.left, penalty.right, penalty.left_l1, penalty.right_l1
    return SGD(Descent(rate, adaptive, unit, *alphas, batch), settings.schedule, penalty)


def writes_left(settings: Settings, given: Factors) -> bool:
    """Whether the factor that the panels hold is there before the first pass."""
    drawn = settings.start not in ("sample", "custom") and settings.solver == "mu"
    return given.left is not None or drawn or settings.solver == "sgd"


def begin(
    panels: Panels,
    settings: Settings,
    measures: Measures,
    given: Factors,
    sampled: Array | None,
    slot: Weights | None,
) -> State:
    """The state before the first pass; writes the left factor to ``slot``, where there is one."""
    matrix, dtype = panels.matrix, panels.matrix.dtype
    scale = factor_scale(measures.mean, settings.rank)
    left_stream, right_stream = _streams(matrix)
    if slot is not None and settings.solver == "sgd":
        slot = Plain(slot)
    if settings.start == "custom":
        right = _from_given(panels, settings, measures, given, slot)
    elif settings.by_svd:
        assert sampled is not None
        fill = svd.Fill(settings.start, measures.mean, settings.seed, _streams(matrix))
        right = svd.begin(panels, settings.rank, sampled, fill, slot)
    elif sampled is not None:
        right = sampled if settings.solver != "mu" else lift(sampled, LIFT * scale)
    else:
        right = random_factor(settings, np.arange(matrix.layout.columns), scale, right_stream).T
        if slot is not None and writes_left(settings, given):
            for first, last in pairwise(panels.edges):
                w = random_factor(settings, np.arange(first, last), scale, left_stream)
                slot.write(first, w.astype(dtype))
    h = np.ascontiguousarray(right, dtype=dtype)
    entering = h
    if settings.solver == "sgd":
        assert slot is not None
        if settings.start == "sample" or (settings.start == "custom" and given.left is None):
            solver = HALS(penalty_of(settings, matrix.transposed))
            fit.sweep(panels, h, Weighing(solver.weigh, solver, after=slot, bare=True))
        entering = np.ascontiguousarray(extended(h.T).T)
    return State(h, entering, slot=0 if writes_left(settings, given) else -1)


def _from_given(
    panels: Panels, settings: Settings, measures: Measures, given: Factors, slot: Weights | None
) -> Array:
    """H in panel orientation, from given factors.

    Where only the panels' side is given, or a column-panelled V must be updated W first, that takes a pass.
    """
    matrix, dtype = panels.matrix, panels.matrix.dtype
    if given.left is not None:
        assert slot is not None
        for first, last in pairwise(panels.edges):
            slot.write(first, np.asarray(given.left[first:last], dtype))
        solver = make_solver(settings, measures, matrix)
        if given.right is None:
            right = right_of(panels, settings, measures, given.left)
            return right if settings.solver != "mu" else lift(right, LIFT * float(right.mean()))
        if matrix.transposed and isinstance(solver, MU | BetaMU):
            totals = fit.sweep(panels, np.asarray(given.right, dtype), Weighing(as_it_is, solver, slot))
            return solver.follow(np.asarray(given.right, dtype), totals)
    assert given.right is not None
    return given.right


def right_of(panels: Panels, settings: Settings, measures: Measures, left: Array) -> Array:
    """The factor that the panels are given, (k, n), that fits the one that they hold, (rows, k)."""
    solver = answerer(settings, measures, panels.matrix)
    return fit.settle_right(panels, np.ascontiguousarray(left, panels.matrix.dtype), solver, measures.mean)


def answerer(settings: Settings, measures: Measures, matrix: Matrix) -> HALS | Newton | Settled:
    """The solver that finds one factor for the other, whatever they come from."""
    scale = factor_scale(measures.mean, settings.rank)
    penalty = penalty_of(settings, matrix.transposed)
    return exact(settings.beta, penalty, _floor(measures.mean, matrix.dtype), scale)


def _streams(matrix: Matrix) -> tuple[int, int]:
    """Of random numbers, for the left and the right factor: W's and H's, however V is cut."""
    streams = (draws.W_FACTOR, draws.H_FACTOR)
    return streams[::-1] if matrix.transposed else streams


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

    solver = HALS(penalty) if squared else Newton(_floor(mean, sample.dtype), penalty, LOOSE)
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
