"""The state of a stream that goes on from a fit whose rows of V are gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from dask.delayed import delayed

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec
from dask_nmf.online.reservoir import sample_size
from dask_nmf.online.state import StreamState
from dask_nmf.online.stream_solvers import sample_solver, stream_penalty
from dask_nmf.options.settings import Settings
from dask_nmf.types import Array, Block


def state_from_factors(W: Any, h: Array, settings: Settings) -> StreamState:
    """Return the state after a fit: rows of W H, drawn as rows of V are, stand for its rows.

    For the squared error the sums are those of all rows. WᵀW follows from W. WᵀV is not known, but at the H
    of the fit it balances WᵀW H and the penalty on H. For a divergence the sums are those of the sample.

    Parameters
    ----------
    W : (m, k) Dask array; read once.
    h : (k, n), of a fit in which every entry of V counts.
    """
    rows, dtype, unit = int(W.shape[0]), h.dtype, scaling.unit_of(h)
    draw = SampleSpec(rows, sample_size(rows * h.shape[1], rows, len(h)), settings.random_state)
    wide = h.astype(np.float64)
    grams, sizes, candidates = _scan(W, wide, draw, settings.beta)
    size = (sum(sizes) / (rows * h.shape[1])) ** (1 / settings.beta)  # of an entry of W H
    scale = scaling.scale_of(size, dtype) if size > 0 else 0.0
    drawn = row_sample.draw_sample(row_sample.merge_candidates(candidates, draw), draw)
    penalty, inner = stream_penalty(settings, scale, unit), scaling.multiply(wide, 1 / unit)
    if isinstance(drawn, MaskedBlock):
        sample: Block = replace(drawn, v=_product(drawn.v, wide, scale, dtype))
        solver = sample_solver(sample, settings, penalty, rows)
        sums = process_block(sample, inner.astype(dtype), PassSpec(solver.solve_w, solver))[1]
    else:
        sample, gram = _product(drawn, wide, scale, dtype), sum(grams) * ((scale or 1.0) * unit) ** 2
        num = gram @ inner + rows * (penalty.right * inner + penalty.right_l1)
        sums = Sums(num, gram, float("nan"), float(rows))
    return StreamState(sums, sample, scale, unit, float(rows), float(rows), 0.0)


def _scan(W: Any, h: Array, draw: SampleSpec, beta: float) -> tuple[Any, tuple[float, ...], list[Candidates]]:
    """Return what `_scan_block` does of each block of W, in one read."""
    whole = W.rechunk({1: -1})
    firsts = np.cumsum((0, *whole.chunks[0][:-1]))
    blocks = zip(whole.to_delayed().ravel(), firsts, strict=True)
    scan = delayed(_scan_block)
    parts = compute_watched([scan(block, h, int(first), draw, beta) for block, first in blocks])
    grams, sizes, candidates = zip(*parts, strict=True)
    return grams, sizes, list(candidates)


def _scan_block(
    w: Array, h: Array, first: int, draw: SampleSpec, beta: float
) -> tuple[Array, float, Candidates]:
    """Return wᵀw, (k, k), the size of w h, and rows of w, (r, k), as candidates by their sizes.

    The size is the squared norm, or the sum where the loss is a divergence; h is float64.
    """
    tall = w.astype(np.float64)
    block: Block = w
    if beta == 2:
        sizes = np.maximum(np.einsum("ij,ij->i", tall @ (h @ h.T), tall), 0)
    else:
        sizes = tall @ h.sum(axis=1)
        block = MaskedBlock(w, None, first + np.arange(len(w)), EntryMask(beta=beta))
    return tall.T @ tall, float(sizes.sum()), row_sample.sample_candidates(block, sizes, first, draw)


def _product(w: Array, h: Array, scale: float, dtype: np.dtype[Any]) -> Array:
    """Return w h at a scale, (r, n)."""
    return scaling.multiply(w.astype(np.float64) @ h, scale or 1.0).astype(dtype)
