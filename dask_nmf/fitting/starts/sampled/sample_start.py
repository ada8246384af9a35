"""The initial H of a fit from a sample of rows of V, which is factorised in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.fitting.starts.problem import penalty_of_sample
from dask_nmf.fitting.starts.sampled.merging import merge, merge_costs, merge_down
from dask_nmf.fitting.starts.sampled.sample_fit import (
    COARSE_STOP,
    FINE_STOP,
    LOOSE,
    TIE_TOLERANCE,
    baseline_of,
    descend,
    mean_of,
    sample_solver,
    with_squared_error,
)
from dask_nmf.iteration.loop import Stop
from dask_nmf.kernels.blocks import masking, row_batches, scaling
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.summary import masked_summary
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.solver import factor_scale
from dask_nmf.types import Array, Block

EXCHANGE_STOP = Stop(max_iter=20, tol=2e-3, finest=0)  # after an exchange of components
SCREENING_STOP = Stop(max_iter=6, tol=1e-3, finest=0)  # of the starts for a divergence
STARTS, EXCHANGES = 3, 12  # numbers of random starts, and of exchanges of components in the best one
NEAREST = 10  # an exchange merges one of this many cheapest pairs
WIDER = 1.3  # times the rank: the components of the start that is merged down to the rank
SMALL_SAMPLE = 160 * 1024  # entries, with those of W and H, on which starts are compared
SMALLEST_SAMPLE = 24 * 1024  # entries on which starts for a divergence are compared
LOSS_TOLERANCE = 1.001  # times the least loss: rounding must not choose among starts with one solution
SUBSAMPLE_STEP = 4  # every SUBSAMPLE_STEP-th row of a sample of LARGE_SAMPLE entries serves for a rough fit
LARGE_SAMPLE = 1024 * 1024
UNSEEN_COLUMN_SCALE = 1e-2  # times a component's mean entry: of a column without entries in the sample
PHASE = 0.618  # the offset of systematic sampling, away from integers, so that rounding decides nothing
TINY = float(np.finfo(np.float64).tiny)


class Search(NamedTuple):
    """The parameters of the search for a start."""

    begin: Callable[[int, int], Array]  # returns a random H, (rank, n), for (attempt, rank)
    rank: int
    seed: int
    stream: int  # of the random numbers for H
    several: bool  # whether more than one start is tried by the squared error


def random_factor(seed: int, rows: NDArray[np.intp], rank: int, scale: float, stream: int) -> Array:
    """Return rows of a random factor, (len(rows), rank), float64: scale · |N(0, 1)|, but never 0.

    The distribution is that of scikit-learn.
    """
    numbers = rng.half_normal(seed, stream, rows, rank)
    return scale * np.maximum(numbers, np.finfo(np.float64).eps)


def sampled_h(sample: Block, settings: Settings, penalty: Penalty, stream: int) -> Array:
    """Return the H of the sampled rows, (k, n), in the units of ``penalty``.

    Nothing is known of columns in which the sample has no entry, so they are left out of its fit. They are 0
    for the squared error, and small for a divergence, which could not move a 0.
    """
    mean = mean_of(sample)
    squared = settings.beta == 2
    anywhere = squared and isinstance(sample, MaskedBlock)
    seen = np.ones(sample.shape[1], bool) if anywhere else _seen(sample)
    part, columns = sample, np.arange(len(seen))
    if seen.any() and not seen.all():
        part = _of_columns(sample, np.flatnonzero(seen))
    if part is not sample:
        columns = columns[seen]

    def begin(attempt: int, rank: int) -> Array:
        apart = attempt << 32  # so that no two starts share random numbers
        random = random_factor(settings.random_state, apart + columns, rank, factor_scale(mean, rank), stream)
        return np.ascontiguousarray(random.T, sample.dtype)

    balanced = penalty.in_balanced_units(factor_scale(mean, settings.n_components))
    solver = sample_solver(settings, balanced, mean, sample.dtype)
    h = np.zeros((settings.n_components, len(seen)), sample.dtype)
    # several starts were measured for hals only: mu ended worse on 5 x 6; an L1 penalty has more poor minima
    several = settings.algorithm.tries_starts or penalty.left_l1 > 0
    with one_blas_thread():  # the last digits of products depend on the number of threads
        h[:, columns] = _factorise(
            part, Search(begin, settings.n_components, settings.random_state, stream, several), solver
        )
    found_h = h if squared else lift_columns(h, settings.random_state, stream)
    return scaling.multiply(found_h, balanced.right_unit / penalty.right_unit)


def lift_columns(h: Array, seed: int, stream: int, which: NDArray[np.bool_] | bool = True) -> Array:
    """Return H (k, n) with small random numbers in its zero columns, which a divergence could not leave.

    A column gets its true size in the first pass, and 0 if V has no entry there. Equal numbers would be a
    saddle point: rows whose only entry is in this column could not choose between the components. Columns
    that are not in ``which`` do not change.
    """
    there = h.any(axis=0)
    empty = np.flatnonzero(which & ~there)
    if not len(empty) or not there.any():
        return h
    sizes = UNSEEN_COLUMN_SCALE * h[:, there].mean(axis=1, keepdims=True)
    lifted = h.copy()
    lifted[:, empty] = sizes * rng.half_normal(seed, stream, empty, len(h)).T
    return lifted


def _of_columns(sample: Block, columns: NDArray[np.intp]) -> Block:
    """Return the sample with these columns only, or whole if entries count that it does not store."""
    if not isinstance(sample, MaskedBlock):
        return sample[:, columns]
    return replace(sample, v=sample.v[:, columns]) if sample.mask.is_uniform else sample


def _factorise(sample: Block, search: Search, solver: HALS | KLNewton) -> Array:
    """Return H of rows in memory, (k, n): the best of some starts, brought near its minimum.

    An L1 penalty comes last, because random components are much alike and it would leave only the largest.
    A component that the sample does not need is returned as it began.
    """
    squared, first = with_squared_error(sample), solver if solver.one_pass else HALS()
    smooth = replace(first, penalty=first.penalty.without_lasso)
    random = search.begin(0, search.rank)
    if search.several and not isinstance(squared, MaskedBlock):
        starts = _search(squared, search, smooth, EXCHANGES if first is solver else 0)
    else:
        starts = [random if smooth == first else descend(squared, random, smooth, COARSE_STOP).best[0]]
    if not solver.one_pass:
        h = _screened(sample, [*starts, random], search, solver)
        h = descend(sample, h, solver, FINE_STOP).best[0]
    else:
        if smooth != first and len(starts) > 1:
            starts = [_least_penalised(squared, starts, search.rank, first)]
        if not search.several and masking.n_stored(sample) >= LARGE_SAMPLE:
            few, loose = squared[::SUBSAMPLE_STEP], replace(first, tol=LOOSE)
            starts = [descend(few, starts[0], loose, COARSE_STOP).best[0]]
        h = descend(squared, starts[0], first, FINE_STOP).best[0]
    return np.where(h.any(axis=1, keepdims=True), h, random)


def _search(sample: Block, search: Search, solver: HALS, exchanges: int) -> list[Array]:
    """Return starts, (k, n) each, compared by the squared error of few rows, the best one first.

    They are random starts, and one with more components that is merged down to the rank. The best of these
    gets components exchanged, one at a time. The first one wins among starts that are alike.
    """
    few = _thinned(sample, search.rank, SMALL_SAMPLE)
    tie = TIE_TOLERANCE * float(masked_summary.summarize_block(few).row_norms.sum())
    begun = [search.begin(attempt, search.rank) for attempt in range(STARTS)]
    if (wider := math.ceil(WIDER * search.rank)) <= min(few.shape):
        wide = descend(few, search.begin(STARTS, wider), solver, COARSE_STOP).h
        begun.append(_sized_as(wide, merge_down(wide, _gram(few, wide, solver), search.rank)))
    tried = [descend(few, h, solver, COARSE_STOP) for h in begun]
    best = tried.pop(_first_of_the_best([state.loss for state in tried], tie))
    for number in range(exchanges if search.rank > 1 and best.loss > tie else 0):
        state = descend(few, _exchanged(few, best.h, search.seed, number, solver), solver, EXCHANGE_STOP)
        if state.loss < best.loss - tie:
            best = state
    return [best.h, *(state.h for state in tried)]


def _least_penalised(sample: Block, starts: list[Array], rank: int, solver: HALS) -> Array:
    """Return the H (k, n) to which the best start leads, by the loss of few rows with all penalties."""
    few = _thinned(sample, rank, SMALL_SAMPLE)
    solver = replace(solver, penalty=penalty_of_sample(solver.penalty, few, sample.shape[0]))
    tried = [descend(few, h, solver, COARSE_STOP) for h in starts]
    return tried[_first_of_the_best([state.loss for state in tried], 0.0)].best[0]


def _exchanged(sample: Block, h: Array, seed: int, number: int, solver: HALS) -> Array:
    """Return H (k, n) with two components merged, and a new one from the residual of a row.

    The pair is one of the cheapest; the row is drawn with a probability proportional to its squared error.
    """
    which, where = rng.uniform(seed, rng.Stream.EXCHANGES, np.array([number]), 2)[0]
    w = solver.solve_w(sample, h, None).astype(np.float64)
    costs = merge_costs(h, w.T @ w)
    pairs = np.argsort(costs, axis=None, kind="stable")[: min(NEAREST, len(h) * (len(h) - 1) // 2)]
    i, j = np.unravel_index(pairs[int(which * len(pairs))], costs.shape)
    merged, _ = merge(h, w.T @ w, int(i), int(j))
    explained = np.einsum("ij,ij->i", w, 2 * np.asarray(sample @ h.T) - w @ (h @ h.T))
    errors = np.cumsum(np.maximum(masked_summary.summarize_block(sample).row_norms - explained, 0))
    row = min(int(np.searchsorted(errors, where * errors[-1])), len(w) - 1)
    v = sample[[row]].toarray()[0] if scipy.sparse.issparse(sample) else sample[row]
    rest = np.maximum(v - w[row] @ h, 0)
    lacking = rest if rest.any() else v
    return _sized_as(h, np.vstack([merged, lacking]))


def _sized_as(h: Array, components: Array) -> Array:
    """Return components scaled to equal norms, the mean norm of the components of H."""
    sizes = np.linalg.norm(components, axis=1, keepdims=True)
    mean = np.linalg.norm(h.astype(np.float64), axis=1).mean()
    scaled = components * np.divide(mean, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return np.ascontiguousarray(scaled, h.dtype)


def _gram(sample: Block, h: Array, solver: HALS) -> Array:
    w = solver.solve_w(sample, h, None).astype(np.float64)
    return np.asarray(w.T @ w)


def _screened(sample: Block, starts: list[Array], search: Search, solver: KLNewton) -> Array:
    """Return the start, (k, n), from which a few passes over few rows lead to the least divergence.

    The start itself is returned, since after a fit of few rows it would be further from the fit of all rows.
    """
    few = _thinned(sample, search.rank, SMALLEST_SAMPLE)
    begun = [lift_columns(h, search.seed, search.stream) for h in starts]
    losses = [descend(few, h, solver, SCREENING_STOP).loss for h in begun]
    return begun[_first_of_the_best(losses, TIE_TOLERANCE * baseline_of(few, solver))]


def _first_of_the_best(losses: list[float], tie: float) -> int:
    """Return the index of the first loss that equals the least one up to a negligible difference."""
    least = min(losses)
    return next((at for at, loss in enumerate(losses) if loss <= max(LOSS_TOLERANCE * least, least + tie)), 0)


def _thinned(sample: Block, rank: int, work: int) -> Block:
    """Return rows that stand for a sample: with W and H they have about ``work`` entries, or fewer.

    A row is taken, see `row_sample`, with a probability that is half uniform and half proportional to its
    squared norm, and is scaled by 1/√(that probability).
    """
    rows, columns = sample.shape
    each = masking.n_stored(sample) / max(rows, 1) + rank
    size = max(work - columns * rank, work / 4) / each
    if size >= rows:
        return sample
    norms = masked_summary.summarize_block(sample).row_norms
    probability = np.minimum(size * (0.5 / rows + 0.5 * norms / max(float(norms.sum()), TINY)), 1)
    steps = np.floor(np.cumsum(probability) + PHASE)
    chosen = np.flatnonzero(np.diff(steps, prepend=0.0) > 0)
    return masking.scale_rows(sample[chosen], 1 / probability[chosen])


def _seen(sample: Block) -> NDArray[np.bool_]:
    """Return a mask (n,) of the columns in which the sample has an entry > 0."""
    seen = np.zeros(sample.shape[1], bool)
    if isinstance(sample, np.ndarray):
        return np.asarray(sample.any(axis=0))
    if not isinstance(sample, MaskedBlock):
        seen[sample.indices[sample.data > 0]] = True
        return seen
    for _, cells, _ in row_batches.iter_row_batches(sample):
        seen[cells.indices[cells.values > 0]] = True
    return seen
