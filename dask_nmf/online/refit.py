"""H refitted to the sample of a stream, and the sums of earlier rows that fit the new H."""

from __future__ import annotations

import numpy as np

from dask_nmf import rng
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.fitting.starts.sampled.sample_start import sampled_h
from dask_nmf.kernels import least_squares
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.online import sums as stream_sums
from dask_nmf.online.reservoir import nonzero_columns
from dask_nmf.online.stream_solvers import StreamSolver, lift_zero_columns
from dask_nmf.options.settings import Settings
from dask_nmf.types import Array, Block

IMPROVEMENT = 0.98  # a new H must have less than this share of the present loss, on the validation rows
VALIDATION_STRIDE = 4  # one row of the sample in so many is a validation row


def refit_to_sample(
    sample: Block, rows: float, h: Array, settings: Settings, solver: StreamSolver
) -> Array | None:
    """Return H of the sample from a fresh start, or None if that is no better than the present H.

    If the sample holds all rows, H is fitted to all of it and compared on all of it. Otherwise one row in
    four is a validation row and H is fitted to the others: on the rows that it is fitted to, any H is better
    than one of all rows. A row that weighs as much as many is used for both.

    Parameters
    ----------
    rows : the number of rows that the sample stands for.
    h : (k, n), the present H.
    """
    training = validation = sample
    if sample.shape[0] < rows:
        norms = masked_summary.summarize_block(sample).row_norms
        heavy = VALIDATION_STRIDE * len(h) * norms > norms.sum()
        chosen = np.arange(len(norms)) % VALIDATION_STRIDE == VALIDATION_STRIDE - 1
        training, validation = (sample[np.flatnonzero(heavy | some)] for some in (~chosen, chosen))
    if not masked_summary.summarize_block(training).total > 0:
        return None
    refitted = sampled_h(training, settings, solver.penalty, rng.Stream.H_FACTOR)
    new, present = (_loss(validation, factor, solver, settings.beta) for factor in (refitted, h))
    return refitted if new < IMPROVEMENT * present else None


def sums_after_refit(
    sums: Sums, past: Block, before: Array, h: Array, solver: StreamSolver
) -> tuple[Array, Sums]:
    """Return H and the sums of earlier rows for an H that was refitted, both (k, n).

    The sums are those of the sample of earlier rows. For columns in which the sample has no entry only the
    old sums are known. They are transformed with W: where the H before is about A h, the new W is W A.

    Parameters
    ----------
    sums : of earlier rows, with the W of ``before``.
    past : the sample of earlier rows.
    before, h : H before and after the refit.
    """
    new = process_block(past, h, PassSpec(solver.solve_w, solver))[1]
    known = nonzero_columns(past)
    lost = before.any(axis=0) & ~known
    if not lost.any() or not known.any():
        return h, new
    a = least_squares.exact_w(before[:, known], h[:, known]).astype(np.float64)
    h, num, gram = h.copy(), new.num.copy(), new.gram
    h[:, lost] = least_squares.exact_w(before[:, lost].T.astype(np.float64), a.T).T
    num[:, lost] = a.T @ sums.num[:, lost]
    if not gram_matrices.is_shared_gram(gram, len(h)):
        gram = gram.copy()
        gram[lost] = stream_sums.transformed_grams(stream_sums.with_own_grams(sums).gram[lost], a)
    return h, new._replace(num=num, gram=gram)


def loss_rate(rows: Block, h: Array, solver: StreamSolver, beta: float) -> float:
    """Return the loss of H on rows in memory, over the size of the rows."""
    size = float(masked_summary.summarize_block(rows).row_norms.sum())
    return _loss(rows, h, solver, beta) / size if size > 0 else 0.0


def _loss(rows: Block, h: Array, solver: StreamSolver, beta: float) -> float:
    """Return the loss of H with the best W for it on rows in memory, with penalties."""
    if beta != 2:
        h = lift_zero_columns(h, nonzero_columns(rows))
    spec = PassSpec(solver.solve_w, solver, residual=True)
    with InMemoryEngine(row_sample.split_sample(rows)) as engine:
        totals = engine.run_pass(np.ascontiguousarray(h), spec)
    return totals.residual + solver.penalty.of(totals, h)
