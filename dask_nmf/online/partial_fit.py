"""NMF of rows that come in batches: what was learned of the earlier ones is kept, and a sample of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.cluster.watch import compute_watched
from dask_nmf.errors import NothingObserved
from dask_nmf.execution import memory_engine, partition
from dask_nmf.execution.graphs.passes import PassSpec, process_block
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.fitting.fit import Job
from dask_nmf.fitting.starts.sample_start import LOOSE, lift_columns, penalty_of_sample, sampled_h
from dask_nmf.inference.transform import LEAST
from dask_nmf.kernels import least_squares
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.blocks.masking import Observed, Rule
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Candidates, Draw
from dask_nmf.online.reservoir import alike, occurring, size_of, thinned
from dask_nmf.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import smallest_divisor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block

TURNS, OF_MODELS = 3, 6  # at a batch: its sums are replaced as H moves; models hold near their H only
OTHER = 1.05  # times the loss that the sample had for its size: rows of another kind came
BETTER = 0.98  # times the loss of the present H, on rows of the sample that judge
JUDGES = 4  # one row in so many
STRIP = 1024  # gram matrices that are unpacked together


class Learned(NamedTuple):
    """What a stream goes on with, beside H."""

    sums: Sums  # of all rows so far, each with the W that it had when it came
    sample: Block  # of all rows so far, scaled so that it stands for them: see `sampling`
    scale: float  # of V in both, see `scales`; 0: all of it so far is 0
    unit: float  # by which H is divided in both
    rows: float  # how many they are
    fitted: float  # how many they were when H was last fitted to the sample
    rate: float  # the loss of the sample then, for its size

    def times(self, share: float) -> Learned:
        """The same, where all rows so far count for less."""
        if share == 1:
            return self
        sample = masking.scaled(self.sample, np.full(self.sample.shape[0], share))
        return self._replace(
            sums=self.sums.scaled(share), sample=sample, rows=self.rows * share, fitted=self.fitted * share
        )

    def at(self, scale: float, beta: float) -> Learned:
        """Return the same for V at another scale."""
        if scale == self.scale or self.scale == 0:
            return self._replace(scale=scale)
        by = scale / self.scale
        cost, squared = scaling.power(by, beta), by * by
        sums = self.sums._replace(
            num=self.sums.num * cost,
            gram=self.sums.gram * cost,
            residual=self.sums.residual * cost,
            w_sq_norm=self.sums.w_sq_norm * squared,
            w_l1_norm=self.sums.w_l1_norm * by,
            w_sum=self.sums.w_sum * by,
        )
        return self._replace(sums=sums, sample=masking.multiplied(self.sample, by), scale=scale)


def learn(matrix: Matrix, job: Job, h: Array, known: Learned | None, keep: float) -> tuple[Array, Learned]:
    """H after a batch, and what to go on with.

    The sums of all batches add up to normal equations for H: WᵀV and WᵀW, or where the loss is Kullback &
    Leibler's the quadratic models about the H of their time. So a batch counts as much as it has rows, in
    whatever order they come (Mairal et al. 2010, for the squared error). They hold for a W that is never
    solved again. So H is fitted anew, to a sample of all rows so far, when they are twice as many as the last
    time, and when that sample is explained worse than it was then.

    Parameters
    ----------
    h : (k, n), before.
    known : what earlier batches left, which count ``keep`` times (1: nothing is forgotten).

    Raises
    ------
    InvalidEntryError, DataError, ValueError, MemoryError
        As for `nmf`.
    """
    settings = job.settings
    if settings.solver != "hals" or settings.beta not in (1, 2):
        raise ValueError(
            f"solver is {settings.solver!r} and beta_loss {settings.beta_loss!r}; solver 'hals' learns from "
            "batches, with frobenius or kullback-leibler"
        )
    panels, planned = partition.cut(matrix, len(h), job.weights, job.rule(matrix))
    came = float(panels.edges[-1])
    if known is not None:
        known = known.times(keep)
        settings = replace(
            settings, random_state=settings.random_state + int(known.rows + came)
        )  # other numbers for each batch
    batch, own = _drawn(panels, settings, planned.sample_rows)
    scale, unit = own if known is None else _coarser(own, known.scale), _unit_of(h, known)
    penalty = _penalty(settings, scale, unit)
    solver = _solver(settings, matrix.dtype, penalty)
    panels.scale, batch = scale or 1.0, masking.multiplied(batch, scale or 1.0)
    h = np.ascontiguousarray(scaling.times(np.asarray(h, np.float64), 1 / unit), matrix.dtype)
    if known is None:
        h, sums = _gone_over(panels, solver, h, None)
        rate = _rate(batch, h, _judge(batch, settings, penalty, came))
        return scaling.times(h, unit), Learned(sums, batch, scale, unit, came, came, rate)
    known, rows = known.at(scale, settings.beta), known.rows + came
    past, batch = alike(known.sample, batch)
    sample, fitted = masking.stack([past, batch]), known.fitted
    judge = _judge(sample, settings, penalty, rows)
    before, (h, sums) = h, _gone_over(panels, solver, h, known.sums)
    worse = _rate(sample, h, judge) > OTHER * known.rate
    if worse or rows >= 2 * fitted:
        fitted, anew = rows, fitted_anew(sample, rows, h, settings, judge)
        if anew is not None:
            h, of_past = carried(known.sums, past, before, anew, solver)
            h, sums = _gone_over(panels, solver, h, of_past)
    rate = _rate(sample, h, judge) if fitted == rows else known.rate
    sample = thinned(sample, len(h), settings.random_state)
    return scaling.times(h, unit), Learned(sums, sample, scale, unit, rows, fitted, rate)


def _coarser(scale: float, other: float) -> float:
    """Return the scale of the larger V, of two that may be 0."""
    return min(scale, other) or max(scale, other)


def _unit_of(h: Array, known: Learned | None) -> float:
    return scaling.unit_of(h) if known is None else known.unit


def _penalty(settings: Settings, scale: float, unit: float) -> Penalty:
    """Return the penalties on factors of V at a scale, of which 0 is as good as any."""
    scale = scale or 1.0
    exponent = settings.beta * math.log2(scale)
    return penalty_of(settings, False).in_units(1 / (scale * unit), unit, exponent)


def _solver(settings: Settings, dtype: np.dtype[Any], penalty: Penalty) -> HALS | KLNewton:
    return HALS(penalty) if settings.beta == 2 else KLNewton(max(float(np.finfo(dtype).tiny), LEAST), penalty)


def remembered(W: Any, h: Array, settings: Settings) -> Learned:
    """Return what a fit leaves whose rows are gone: rows of W H stand for them, drawn as those of V are.

    For the squared error the sums are those of all rows. WᵀW follows from W. WᵀV is not known, but at the H
    of the fit it balances WᵀW H and the penalty on H. For a divergence they are those of the sample.

    Parameters
    ----------
    W : (m, k) Dask array; read once.
    h : (k, n), of a fit in which every entry of V counts.
    """
    rows, dtype, unit = int(W.shape[0]), h.dtype, scaling.unit_of(h)
    draw = Draw(rows, size_of(rows * h.shape[1], rows, len(h)), settings.random_state)
    whole, wide = W.rechunk({1: -1}), h.astype(np.float64)
    firsts = np.cumsum((0, *whole.chunks[0][:-1]))
    look_at = delayed(_looked_at)
    blocks = zip(whole.to_delayed().ravel(), firsts, strict=True)
    parts = compute_watched(
        [look_at(block, wide, int(first), draw, settings.beta) for block, first in blocks]
    )
    grams, sizes, found = zip(*parts, strict=True)
    size = (sum(sizes) / (rows * h.shape[1])) ** (1 / settings.beta)  # of an entry of W H
    scale = scaling.scale_of(size, dtype) if size > 0 else 0.0
    drawn = row_sample.draw_sample(row_sample.merge_candidates(list(found), draw), draw)
    penalty, inner = _penalty(settings, scale, unit), scaling.times(wide, 1 / unit)
    if isinstance(drawn, Observed):
        sample: Block = replace(drawn, v=_product(drawn.v, wide, scale, dtype))
        judge = _judge(sample, settings, penalty, rows)
        sums = process_block(sample, inner.astype(dtype), PassSpec(judge.solve_w, judge))[1]
    else:
        sample, gram = _product(drawn, wide, scale, dtype), sum(grams) * ((scale or 1.0) * unit) ** 2
        num = gram @ inner + rows * (penalty.right * inner + penalty.right_l1)
        sums = Sums(num, gram, float("nan"), float(rows))
    return Learned(sums, sample, scale, unit, float(rows), float(rows), 0.0)


def _product(w: Array, h: Array, scale: float, dtype: np.dtype[Any]) -> Array:
    """Return w h at a scale, (r, n)."""
    return scaling.times(w.astype(np.float64) @ h, scale or 1.0).astype(dtype)


def _looked_at(w: Array, h: Array, first: int, draw: Draw, beta: float) -> tuple[Array, float, Candidates]:
    """Return wᵀw, (k, k), the size of w h, and the rows of w, (r, k), that may be drawn by theirs.

    That is the squared norm, or the sum where the loss is a divergence; h is float64.
    """
    tall = w.astype(np.float64)
    block: Block = w
    if beta == 2:
        sizes = np.maximum(np.einsum("ij,ij->i", tall @ (h @ h.T), tall), 0)
    else:
        sizes = tall @ h.sum(axis=1)
        block = Observed(w, None, first + np.arange(len(w)), Rule(beta=beta))
    return tall.T @ tall, float(sizes.sum()), row_sample.candidates(block, sizes, first, draw)


def _gone_over(
    panels: PanelEngine, solver: HALS | KLNewton, h: Array, known: Sums | None
) -> tuple[Array, Sums]:
    """Return H after some turns at a batch, and the sums of all rows."""
    weighing = PassSpec(solver.solve_w, solver)
    for _ in range(TURNS if isinstance(solver, HALS) else OF_MODELS):
        found = panels.run_pass(h, weighing)
        if isinstance(solver, KLNewton) and (awake := woken(h, np.asarray(found.gram.any(axis=1)))) is not h:
            h, found = awake, panels.run_pass(awake, weighing)
        sums = found if known is None else _added(found, known)
        h = solver.update_h(h, sums)
    return h, sums


def _added(some: Sums, others: Sums) -> Sums:
    """Return the sum of both; where one has a gram matrix for each column, so has the sum."""
    if some.gram.shape != others.gram.shape:
        some, others = _of_each_column(some), _of_each_column(others)
    return some + others


def _of_each_column(sums: Sums) -> Sums:
    """Return sums with a gram matrix for each column, packed, where all share one."""
    k, n = sums.num.shape
    if not least_squares.shared(sums.gram, k):
        return sums
    return sums._replace(gram=np.tile(sums.gram[np.tril_indices(k)], (n, 1)))


def woken(h: Array, occurs: NDArray[np.bool_]) -> Array:
    """Return H where columns that occur and are zero begin small: no step for a divergence leaves 0."""
    return lift_columns(h, 0, rng.H_FACTOR, occurs)


def fitted_anew(
    sample: Block, rows: float, h: Array, settings: Settings, judge: HALS | KLNewton
) -> Array | None:
    """Return H of a sample from a fresh start, or None if that is no better than the present H.

    Where the sample has all the rows, it judges. Else one row in four judges, and H is fitted to the others:
    on the rows that it is fitted to any H is better than one of all rows. A row that weighs as much as many
    does both.
    """
    learned = judges = sample
    if sample.shape[0] < rows:
        norms = masking.measure(sample).row_norms
        heavy = JUDGES * len(h) * norms > norms.sum()
        judging = np.arange(len(norms)) % JUDGES == JUDGES - 1
        learned, judges = (sample[np.flatnonzero(heavy | some)] for some in (~judging, judging))
    if not masking.measure(learned).total > 0:
        return None
    anew = sampled_h(learned, settings, judge.penalty, rng.H_FACTOR)
    return anew if _loss(judges, anew, judge) < BETTER * _loss(judges, h, judge) else None


def carried(sums: Sums, past: Block, before: Array, h: Array, solver: HALS | KLNewton) -> tuple[Array, Sums]:
    """Return H and the sums of earlier rows after H was fitted anew: those of the sample of these rows.

    Of columns in which the sample has no entry the old sums are all that is known. They turn with W: where
    the H before is about A h, the new W is W A.
    """
    found = process_block(past, h, PassSpec(solver.solve_w, solver))[1]
    there = occurring(past)
    lost = before.any(axis=0) & ~there
    if not lost.any() or not there.any():
        return h, found
    a = least_squares.exact_weights(before[:, there], h[:, there]).astype(np.float64)
    h, num, gram = h.copy(), found.num.copy(), found.gram
    h[:, lost] = least_squares.exact_weights(before[:, lost].T.astype(np.float64), a.T).T
    num[:, lost] = a.T @ sums.num[:, lost]
    if not least_squares.shared(gram, len(h)):
        gram = gram.copy()
        gram[lost] = _turned_grams(_of_each_column(sums).gram[lost], a)
    return h, found._replace(num=num, gram=gram)


def _turned_grams(gram: Array, a: Array) -> Array:
    """Return ``Aᵀ G A`` of each packed matrix G, (rows, k (k + 1) / 2), packed; A is (k, k)."""
    k = len(a)
    lower, turned = np.tril_indices(k), np.empty_like(gram)
    for first in range(0, len(gram), STRIP):
        part = gram[first : first + STRIP]
        square = np.empty((len(part), k, k))
        square[:, lower[0], lower[1]] = square[:, lower[1], lower[0]] = part
        turned[first : first + STRIP] = (a.T @ square @ a)[:, lower[0], lower[1]]
    return turned


def _judge(sample: Block, settings: Settings, penalty: Penalty, rows: float) -> HALS | KLNewton:
    """Return the solver for a sample that stands for so many rows."""
    penalty = penalty_of_sample(penalty, sample, rows)
    if settings.beta == 2:
        return HALS(penalty)
    found = masking.measure(sample)
    mass = float(np.broadcast_to(found.column_weight, sample.shape[1]).sum())
    return KLNewton(smallest_divisor(found.total / max(mass, 1.0), sample.dtype), penalty, LOOSE)


def _rate(rows: Block, h: Array, judge: HALS | KLNewton) -> float:
    """Return the loss of H on rows in memory, for their size."""
    size = float(masking.measure(rows).row_norms.sum())
    return _loss(rows, h, judge) / size if size > 0 else 0.0


def _loss(rows: Block, h: Array, judge: HALS | KLNewton) -> float:
    """Return the loss of H and of the best W for it on rows in memory, with penalties."""
    weighing = PassSpec(judge.solve_w, judge, residual=True)
    if isinstance(judge, KLNewton):
        h = woken(h, occurring(rows))
    with memory_engine.in_threads(row_sample.pieces(rows)) as over:
        totals = over(np.ascontiguousarray(h), weighing)
    return totals.residual + judge.penalty.of(totals, h)


def _drawn(panels: PanelEngine, settings: Settings, most: int) -> tuple[Block, float]:
    """Return a sample of a batch, of at most so many rows, and the scale of the batch, 0 where that is 0.

    Raises
    ------
    InvalidEntryError, DataError
        If the batch cannot be learned from; `NothingObserved` if none of its entries counts.
    """
    layout = panels.matrix.layout
    size = min(size_of(layout.stored, layout.rows, settings.n_components), most)
    draw = Draw(layout.rows, size, settings.random_state)
    summary = panels.summarize(draw)
    if summary.invalid is not None:
        raise summary.invalid.at(0, panels.matrix.transposed)
    if not np.any(summary.column_weight):
        raise NothingObserved("the batch has no entry that counts: all are missing or of weight 0")
    mass = float(np.sum(np.broadcast_to(summary.column_weight, layout.columns)))
    scale = scaling.scale_of(summary.total / mass, panels.matrix.dtype) if summary.total > 0 else 0.0
    return row_sample.draw_sample(summary.candidates, draw), scale
