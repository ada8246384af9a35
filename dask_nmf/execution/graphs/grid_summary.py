"""The graph of the first read of V that is cut both ways."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from dask import delayed
from dask.delayed import Delayed

from dask_nmf import rng
from dask_nmf.cluster import client
from dask_nmf.errors import InvalidEntryError
from dask_nmf.execution.graphs.grid_blocks import Blocks, GridBlock, Span
from dask_nmf.kernels.summary import block_summary
from dask_nmf.kernels.summary.block_summary import BlockSummary
from dask_nmf.kernels.summary.digests import Digest, digest_of, keys_of
from dask_nmf.sources.matrix import as_block
from dask_nmf.types import Array, Block


class GridDraw(NamedTuple):
    """A random sample of rows and columns, drawn by hashes of (seed, row) and of (seed, column)."""

    seed: int
    rows: float  # the expected share of rows
    columns: float

    def of_rows(self, rows: Span) -> Array:
        """Return the rows of a span that are drawn, as offsets from its first."""
        return self._of(rng.Stream.UNIFORM_ROWS, rows, self.rows)

    def of_columns(self, columns: Span) -> Array:
        """Return the columns of a span that are drawn, as offsets from its first."""
        return self._of(rng.Stream.UNIFORM_COLUMNS, columns, self.columns)

    def _of(self, stream: int, span: Span, share: float) -> Array:
        return np.flatnonzero(rng.uniform(self.seed, stream, np.arange(*span))[:, 0] < share)


class Look(NamedTuple):
    """The summary of a row of blocks at the first read of V."""

    total: float  # Σ V
    sumsq: float  # ‖V‖²
    stored: int
    empty_rows: int
    bad: InvalidEntryError | None  # the first invalid entry, by row
    sample: Block
    digest: Digest


def summarize_rows(blocks: Blocks, draw: GridDraw) -> list[Delayed]:
    """Return a delayed `Look` for each row of blocks: the first read of V."""
    return [
        delayed(_summarize_row, pure=False)(
            [
                delayed(_summarize_block, pure=False)(blocks.lazy_block(i, j), draw)
                for j in range(len(blocks.columns))
            ],
            rows[0],
            blocks.tiling.rows[-1],
        )
        for i, rows in enumerate(blocks.rows)
    ]


def _summarize_block(block: GridBlock, draw: GridDraw) -> tuple[BlockSummary, Block]:
    v, invalid = block.load(), None
    summary = block_summary.summarize_block(v, keys_of(*block.columns))
    if summary.invalid is not None:
        row, column, value = summary.invalid.row, summary.invalid.column, summary.invalid.value
        invalid = InvalidEntryError(row, column + block.columns[0], value)
    client.announce_panel()
    drawn = v[draw.of_rows(block.rows)][:, draw.of_columns(block.columns)]
    return summary._replace(invalid=invalid), drawn


def _summarize_row(parts: list[tuple[BlockSummary, Block]], first_row: int, rows: int) -> Look:
    summaries, samples = zip(*parts, strict=True)
    norms = np.sum([part.row_norms for part in summaries], axis=0)
    bad = min(
        (part.invalid for part in summaries if part.invalid),
        key=lambda bad: (bad.row, bad.column),
        default=None,
    )
    beside = scipy.sparse.hstack if scipy.sparse.issparse(samples[0]) else np.hstack
    return Look(
        sum(part.total for part in summaries),
        float(norms.sum()),
        sum(part.stored for part in summaries),
        int((norms == 0).sum()),
        bad and bad.at(first_row),
        as_block(beside(samples), samples[0].dtype),
        digest_of(np.sum([part.row_hashes[0] for part in summaries], axis=0), first_row, rows),
    )
