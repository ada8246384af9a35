"""The relative error of a result and the digest of V, recomputed in one pass over V.

The arithmetic is that of the definition, entry by entry and in float64. It does not use the sums from which a
fit expands its loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.fitting.verification import ranges_in_words
from dask_nmf.kernels.summary.digests import Digest, differing_rows
from dask_nmf.options.settings import Settings
from dask_nmf.runs.rows.known_digests import DigestScan, KnownDigest
from dask_nmf.runs.run import Run
from dask_nmf.sources.matrix import Matrix, as_block
from dask_nmf.types import Array, Block

BUDGET = 2**26  # bytes of V, or of W H, that are in memory at a time


class Terms(NamedTuple):
    """Sums over the entries of V that count, from which a relative error follows. They add over rows."""

    entries: float = 0.0
    total: float = 0.0  # Σ v
    powers: float = 0.0  # Σ v², v log v, log v or v^β, by the loss
    loss: float = 0.0  # ‖V − W H‖² or twice the divergence

    def plus(self, other: Terms) -> Terms:
        """Return the terms of all entries of both."""
        return Terms(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def relative_error(self, beta: float) -> float:
        """Return ‖V − W H‖ / ‖V‖, or √(D(V | W H) / D(V | mean of V)); 0 if V is 0."""
        mean = self.total / max(self.entries, 1)
        if beta == 2:
            baseline = self.powers
        elif beta == 1:
            baseline = 2 * (self.powers - self.total * math.log(mean)) if mean > 0 else 0.0
        elif beta == 0:
            baseline = 2 * (self.entries * math.log(mean) - self.powers)
        else:
            baseline = 2 * (self.powers - self.entries * mean**beta) / (beta * (beta - 1))
        loss = max(self.loss, 0.0)  # of an exact fit, rounding may leave a sum of expanded squares below 0
        return math.sqrt(loss / baseline) if baseline > 0 else 0.0


class Recomputed(NamedTuple):
    """The findings of a pass over V."""

    terms: Terms
    digests: list[Digest]  # of the parts of V whose digests are known


def read_once(
    matrix: Matrix, factors: tuple[Any, Array], settings: Settings, parts: Sequence[KnownDigest]
) -> Recomputed:
    """Return the terms of the relative error and the digests of parts of V.

    Parameters
    ----------
    factors : that of the rows of panels, of which slices (rows, k) are read, and the other, (k, columns).
    settings : of the fit.
    parts : the rows of V whose digests are wanted.
    """
    (left, right), columns = factors, matrix.layout.columns
    beta, missing = settings.beta, settings.missing
    scan, terms = DigestScan(parts, matrix.shape[1], missing == "unstored"), Terms()
    add = scan.add_columns if matrix.orientation.by_columns else scan.add_rows
    for first, block in row_blocks(matrix):
        add(first, block)
        w = np.asarray(left[first : first + block.shape[0]], np.float64)
        for some in row_slices(block.shape[0], columns * 8):
            terms = terms.plus(_terms(block[some], w[some] @ right, beta, missing))
    return Recomputed(terms, scan.finish())


def check_digest(digest: Digest, run: Run, matrix: Matrix) -> None:
    """Raise `ValueError` if a whole V differs from that of the last fit of a run."""
    if ranges := differing_rows(digest, run.digest("V"), matrix.layout.rows):
        unit = matrix.orientation.turn(("row", "column"))[0]
        raise ValueError(f"V is not the same in {ranges_in_words(unit, ranges)}; give the V that was fitted")


def row_blocks(matrix: Matrix) -> Iterator[tuple[int, Block]]:
    """Yield blocks of whole rows of the panels, each with its first row."""
    layout = matrix.layout
    step = max(1, BUDGET * layout.rows // max(matrix.bytes, 1))
    step = max(step - step % layout.chunk_rows, min(step, layout.chunk_rows))
    for first in range(0, layout.rows, step):
        box = slice(first, min(first + step, layout.rows)), slice(0, layout.columns)
        yield first, as_block(matrix.reader.read_all([box])[0], matrix.dtype)


def row_slices(rows: int, row_bytes: int) -> Sequence[slice]:
    """Return slices of rows whose dense form fits the budget."""
    step = max(1, BUDGET // max(row_bytes, 1))
    return [slice(first, first + step) for first in range(0, rows, step)]


def _terms(v: Block, product: Array, beta: float, missing: str | None) -> Terms:
    """Return the terms of some rows of V, (r, n), whose W H is the product."""
    sparse = scipy.sparse.issparse(v)
    values = (v.toarray() if sparse else v).astype(np.float64)
    if missing is not None:
        kept = _stored(v) if missing == "unstored" and sparse else ~np.isnan(values)
        values, product = values[kept], product[kept]
    return Terms(
        values.size,
        values.sum(),
        powers(values, beta).sum(),
        float(entry_losses(values, product, beta).sum()),
    )


def _stored(v: Block) -> Array:
    """Return whether each entry of a CSR block is stored, (r, n)."""
    stored = scipy.sparse.csr_array((np.ones(v.nnz, bool), v.indices, v.indptr), v.shape)
    return np.asarray(stored.toarray())


def powers(values: Array, beta: float) -> Array:
    """Return the part of a loss that depends on V alone, of each entry."""
    there = np.where(values > 0, values, 1.0)
    if beta == 1:
        return np.asarray(values * np.log(there))
    if beta == 0:
        return np.asarray(np.log(there))
    return np.asarray(np.where(values > 0, there**beta, 0.0))


def entry_losses(v: Array, y: Array, beta: float) -> Array:
    """Return (v − y)², or twice the β-divergence in its definition (Févotte & Idier 2011), of each entry."""
    if beta == 2:
        return np.asarray(np.square(v - y))
    with np.errstate(divide="ignore", invalid="ignore"):
        if beta == 1:
            entries = np.where(v > 0, v * np.log(v / y), 0.0) - v + y
        elif beta == 0:
            entries = v / y - np.log(v / y) - 1
        else:
            cross = np.where(v > 0, v * y ** (beta - 1), 0.0)
            whole = powers(v, beta) + (beta - 1) * y**beta - beta * cross
            entries = whole / (beta * (beta - 1))
    return np.asarray(2 * entries)
