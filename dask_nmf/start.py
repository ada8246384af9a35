"""Where a fit begins: the first read of V, and factors from that, at random, or as given."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dask_nmf import draws, fit, observed, sampling, svd
from dask_nmf.fit import Panels, Stop, iterate, sweep_rows
from dask_nmf.gradient import Descent, extended
from dask_nmf.kernels import Array, Block, Sums
from dask_nmf.matrix import Matrix
from dask_nmf.measures import DataError
from dask_nmf.observed import Observed
from dask_nmf.passes import Weighing, Weights, as_it_is
from dask_nmf.sampling import Draw, Summary
from dask_nmf.settings import Settings
from dask_nmf.sgd import SGD, Plain
from dask_nmf.solvers import HALS, MU, Penalty, Solver, State, lift, solve_rows

logger = logging.getLogger(__name__)

ROUGHLY, CLOSELY = Stop(max_iter=60, tol=1e-3), Stop(max_iter=60, tol=3e-5)
FEW = 4  # one in so many rows of a sample of MANY entries, to come near
MANY = 1024 * 1024
LOOSE = 0.1  # inner solves: a third less time than with 1e-2
MOST_PIECES = 4  # each has sums of H's size to be added
PIECE = 64 * 1024  # entries of the sample that are worth a thread
LIFT = 1e-3  # of a factor's mean entry


class Measures(NamedTuple):
    """What the first read tells of V."""

    mean: float
    sumsq: float  # ‖V‖²
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

    That is H of the sample, (k, n), or the directions that matter to it: see `svd.of_sample`.

    Raises
    ------
    BadEntry
        For the first entry that is negative or not finite.
    """
    matrix = panels.matrix
    sampled = settings.start == "sample" or settings.by_svd
    draw = Draw(panels.edges[-1], sample_rows if sampled else 0, settings.seed)
    summary = fit.summarise(panels, draw)
    if summary.bad is not None:
        raise summary.bad.at(0, matrix.transposed)
    measures = _measures(summary, matrix)
    logger.info(
        "first read: %d entries, mean %.4g, %d empty panel rows; nothing observed in %d rows and %d columns",
        measures.stored,
        measures.mean,
        measures.empty,
        measures.unobserved_rows,
        measures.unobserved_columns,
        extra={"nmf": {"event": "first read", **measures._asdict()}},
    )
    if not sampled:
        return measures, None
    sample = sampling.draw_sample(summary.candidates, draw)
    if settings.by_svd:
        logger.info("singular vectors of a sample of %d panel rows, for the start", sample.shape[0])
        return measures, _sampled_directions(sample, settings, (panels.edges[-1], sample.shape[1]))
    logger.info("factorising a sample of %d panel rows, for the start", sample.shape[0])
    penalty = _penalty(settings, matrix)
    if not isinstance(sample, Observed):  # its rows stand for all of them, and the penalty on H is for all
        penalty = replace(penalty, right=penalty.right * panels.edges[-1] / sample.shape[0])
    return measures, sampled_h(sample, settings, penalty, _streams(matrix)[1])


def _measures(summary: Summary, matrix: Matrix) -> Measures:
    mass = np.broadcast_to(summary.mass, matrix.layout.columns)
    unobserved = summary.unobserved_rows, int((mass == 0).sum())
    if not mass.any():
        raise DataError("V has no entry that counts: all are missing, held out or of weight 0")
    return Measures(
        summary.total / float(mass.sum()),
        summary.sumsq,
        summary.stored,
        summary.empty_rows,
        *(unobserved[::-1] if matrix.transposed else unobserved),
    )


def _penalty(settings: Settings, matrix: Matrix) -> Penalty:
    on_w, on_h = settings.alphas
    return Penalty(on_h, on_w) if matrix.transposed else Penalty(on_w, on_h)


def make_solver(settings: Settings, measures: Measures, matrix: Matrix) -> Solver:
    """The solver that the settings name, at the scale of V."""
    if settings.solver == "hals":
        return HALS(_penalty(settings, matrix))
    if settings.solver == "sgd":
        return _descending(settings, measures, matrix)
    limits = np.finfo(matrix.dtype)
    scale = factor_scale(measures.mean, settings.rank)
    trifle = max(float(limits.eps) * measures.mean * scale, float(limits.tiny))
    delta = trifle if settings.delta is None else settings.delta
    first = not matrix.transposed
    return MU(delta, LIFT * scale, settings.inner_iter, first, _penalty(settings, matrix))


def _descending(settings: Settings, measures: Measures, matrix: Matrix) -> SGD:
    """SGD by minibatches of rows, or of cells where not all count."""
    by_cell = settings.missing is not None or settings.validation_fraction > 0
    adaptive = settings.schedule == "adagrad"
    batch = settings.batch_size or (1 if by_cell else 32)
    unit = measures.mean or 1.0
    together = 1 if by_cell else max(batch, matrix.layout.columns)
    relative = 0.1 if settings.start == "random" else 0.03  # or a good start would be undone at first
    rate = settings.learning_rate or (relative if adaptive else 0.5 / (unit * together))
    penalty = _penalty(settings, matrix)
    return SGD(Descent(rate, adaptive, unit, penalty.left, penalty.right, batch), settings.schedule, penalty)


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
        right = _from_svd(panels, settings, measures, sampled, slot)
    elif sampled is not None:
        right = sampled if settings.solver != "mu" else lift(sampled, LIFT * scale)
    else:
        right = random_factor(settings, range(matrix.layout.columns), scale, right_stream).T
        if slot is not None and writes_left(settings, given):
            for first, last in pairwise(panels.edges):
                w = random_factor(settings, range(first, last), scale, left_stream)
                slot.write(first, w.astype(dtype))
    h = np.ascontiguousarray(right, dtype=dtype)
    entering = h
    if settings.solver == "sgd":
        assert slot is not None
        if settings.start == "sample" or (settings.start == "custom" and given.left is None):
            fit.sweep(panels, h, Weighing(HALS(_penalty(settings, matrix)).weigh, after=slot, bare=True))
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
        if given.right is None or (matrix.transposed and settings.solver != "sgd"):
            blank = np.zeros((settings.rank, matrix.layout.columns), dtype)
            totals = fit.sweep(panels, blank, Weighing(as_it_is, before=slot))
            solver = make_solver(settings, measures, matrix)
            if isinstance(solver, MU) and given.right is not None:
                return solver.follow(np.asarray(given.right, dtype), totals)
            gram = solver.penalty.add_right(totals, settings.rank)
            solved = solve_rows(totals.num.T, gram, HALS().tol).T
            return solved if settings.solver != "mu" else lift(solved, LIFT * float(solved.mean()))
    assert given.right is not None
    return given.right


def _from_svd(
    panels: Panels, settings: Settings, measures: Measures, directions: Array, slot: Weights | None
) -> Array:
    """NNDSVD's H in panel orientation, in two reads of V; its W goes to ``slot``, where there is one."""
    matrix, rank, dtype = panels.matrix, settings.rank, panels.matrix.dtype
    totals = fit.sweep(panels, directions.astype(dtype), Weighing(svd.along))
    found = svd.oriented(svd.sharpen(totals, dtype)[:rank])
    right = np.zeros((rank, matrix.layout.columns))
    right[: len(found)] = found
    looking = Weighing(svd.halves, after=None if slot is None else svd.Whole(slot))
    squares = np.diagonal(fit.sweep(panels, right.astype(dtype), looking).gram)
    left, other = svd.sides(squares, right)
    floor = svd.TRIFLE * factor_scale(measures.mean, rank)
    fill = svd.Fill(settings.start, measures.mean, settings.seed)
    left_stream, right_stream = _streams(matrix)
    if slot is not None:
        for first, last in pairwise(panels.edges):
            w = left.factor(slot.read(first, last), floor)
            slot.write(first, fill(w, first, left_stream).astype(dtype))
    return fill(other.factor(right.T, floor), 0, right_stream).T


def _sampled_directions(sample: Block, settings: Settings, shape: tuple[int, int]) -> Array:
    """Directions to look along first, for a V of ``shape`` in panel orientation, (width, n)."""
    rows = _cut(sample)

    def sweep(directions: Array) -> Sums:
        return sweep_rows(rows, directions.astype(sample.dtype), Weighing(svd.along))

    return svd.of_sample(sweep, svd.random_directions(settings.rank, shape, settings.seed), sample.dtype)


def _streams(matrix: Matrix) -> tuple[int, int]:
    """Of random numbers, for the left and the right factor: W's and H's, however V is cut."""
    streams = (draws.W_FACTOR, draws.H_FACTOR)
    return streams[::-1] if matrix.transposed else streams


def factor_scale(mean: float, rank: int) -> float:
    """√(mean(V) / k): the size of an entry of W and H that gives V its mean."""
    return float(np.sqrt(mean / rank))


def random_factor(settings: Settings, rows: range, scale: float, stream: int) -> Array:
    """Rows of a random factor, scale · |N(0, 1)| as in scikit-learn, never 0, (len(rows), k), float64."""
    numbers = draws.half_normal(settings.seed, stream, np.arange(rows.start, rows.stop), settings.rank)
    return scale * np.maximum(numbers, np.finfo(np.float64).eps)


def sampled_h(sample: Block, settings: Settings, penalty: Penalty, stream: int) -> Array:
    """H of the sampled rows, factorised in memory from a random start, (k, n).

    Of a large sample a few rows first, and looser inner solves: most of the way can be gone with them. A
    component that the sample does not need at all comes back as it began.
    """
    found = observed.measure(sample)
    mean = found.total / float(np.broadcast_to(found.mass, sample.shape[1]).sum())
    scale = factor_scale(mean, settings.rank)
    random = random_factor(settings, range(sample.shape[1]), scale, stream).astype(sample.dtype)
    h = begun = np.ascontiguousarray(random.T)
    if observed.stored(sample) >= MANY:
        loose = HALS(penalty, LOOSE)
        h = _descend(sample, _descend(sample[::FEW], h, loose, ROUGHLY), loose, CLOSELY)
    else:
        h = _descend(sample, h, HALS(penalty), CLOSELY)
    return np.where(h.any(axis=1, keepdims=True), h, begun)


def _descend(sample: Block, h: Array, solver: HALS, stop: Stop) -> Array:
    """H after passes over a sample in memory, (k, n): of the best of them, where entries are held out."""
    rows = _cut(sample)
    sumsq = float(observed.measure(sample).norms.sum())

    def sweep(state: State, exact: bool) -> Sums:
        return sweep_rows(rows, state.entering, Weighing(solver.weigh, residual=exact))

    state = State(h, h)
    for step in iterate(sweep, solver, state, sumsq, stop):
        state = step.state  # and no other is kept: each has two of H
    return state.h if state.best is None else state.best


def _cut(sample: Block) -> list[Block]:
    """The sample in pieces for threads: as many as its size says, not the machine."""
    pieces = max(1, min(MOST_PIECES, observed.stored(sample) // PIECE, int(sample.shape[0])))
    return [sample[a:b] for a, b in pairwise(np.linspace(0, sample.shape[0], pieces + 1, dtype=int))]
