"""The work of tasks of a start, apart from the engines, which workers need not import."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.execution.graphs.grid_summary import GridDraw
from dask_nmf.fitting.starts.sampled import sample_start
from dask_nmf.kernels import row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.row_sums import NOTHING, Sums
from dask_nmf.options.settings import Settings
from dask_nmf.types import Array, Block


class Projection:
    """The solver of the first read of NNDSVD: the W of a panel is Y = v hᵀ."""

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        return scaling.matmul(v, h.T)

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        return row_sums.block_sums(v, w)

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        return np.nan


class SignedNorms(Projection):
    """The solver of the second read of NNDSVD: W is U = v hᵀ.

    The sums are squared norms of its parts, (2, k).
    """

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        parts = [np.square(np.maximum(part, 0), dtype=np.float64).sum(axis=0) for part in (w, -w)]
        return Sums(NOTHING, np.array(parts), np.nan)


def random_rows(
    settings: Settings, scale: float, stream: int, dtype: np.dtype[Any], first: int, last: int
) -> Array:
    """Return rows ``first`` to ``last`` of a random Hᵀ with entries of a mean size, (rows, k)."""
    return sample_start.random_factor(
        settings.random_state, np.arange(first, last), settings.n_components, scale, stream
    ).astype(dtype)


def spread_rows(h: Array, draw: GridDraw, first: int, last: int) -> Array:
    """Return rows ``first`` to ``last`` of Hᵀ, with the H (k, drawn columns) of a sample in its columns."""
    before = len(draw.of_columns((0, first)))
    drawn = draw.of_columns((first, last))
    piece = np.zeros((last - first, len(h)), h.dtype)
    piece[drawn] = h[:, before : before + len(drawn)].T
    return piece
