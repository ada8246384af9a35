"""The summary of one block of V: whether NMF can take it, and how large it is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.errors import InvalidEntryError
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.summary.digests import (
    NO_INDICES,
    NO_KEYS,
    Hashes,
    add_column,
    bits_of,
    hash_row,
    row_edges,
)
from dask_nmf.types import Array, Block


class DivergenceTerms(NamedTuple):
    """Terms of the divergence of V from its mean, for V / 2^level. They add over cells.

    The level is that of the cells, so that V · 2^s has the same terms, and no power leaves float64.
    """

    beta: float = 1.0
    data_term: float = 0.0  # Σ ω f(v), the part that depends on V alone: v log v, log v or v^β
    weighted_sum: float = 0.0  # Σ ω v
    weight: float = 0.0  # Σ ω
    level: int = 0

    def __add__(self, other: DivergenceTerms) -> DivergenceTerms:  # type: ignore[override]
        if self.weight == 0 or other.weight == 0:
            return other if self.weight == 0 else self
        other = other.at_level(self.level)
        value, total, mass = (mine + theirs for mine, theirs in zip(self[1:4], other[1:4], strict=True))
        return DivergenceTerms(self.beta, value, total, mass, self.level)

    def at_level(self, level: int) -> DivergenceTerms:
        """Return the terms for V / 2^level."""
        shift = self.level - level
        by = scaling.power(2.0, shift)
        if self.beta == 1:
            value = by * (self.data_term + shift * math.log(2) * self.weighted_sum)
        elif self.beta == 0:
            value = self.data_term + shift * math.log(2) * self.weight
        else:
            value = scaling.power(2.0, shift * self.beta) * self.data_term
        return DivergenceTerms(self.beta, value, by * self.weighted_sum, self.weight, level)

    def divergence_from_mean(self) -> float:
        """Return 2 D(V | its mean) for V / 2^level."""
        value, total, mass, beta = self.data_term, self.weighted_sum, self.weight, self.beta
        if total <= 0:
            return 0.0
        mean = total / mass
        if beta == 1:
            apart = value - total * math.log(mean)
        elif beta == 0:
            apart = mass * math.log(mean) - value
        else:
            apart = (value - mass * mean**beta) / (beta * (beta - 1))
        return float(2 * max(apart, 1e-12 * mass * mean**beta))  # V may be constant


NO_TERMS = DivergenceTerms()


def divergence_terms(cells: Cells, beta: float) -> DivergenceTerms:
    """Return the terms of the divergence of cells that count from their mean."""
    values = cells.values.astype(np.float64)
    total, mass = _weighed(values, cells), float(cells.row_weight.sum())
    level = -round(math.log2(scaling.scale_of(total / mass if mass else 0.0, values.dtype)))
    values = scaling.multiply(values, scaling.power(2.0, -level))
    if beta == 1:
        parts = values * np.log(np.where(values > 0, values, 1.0))
    elif beta == 0:
        parts = np.log(np.where(values > 0, values, 1.0))
    else:
        parts = np.where(values > 0, values, 0.0 if beta > 0 else 1.0) ** beta
    return DivergenceTerms(beta, _weighed(parts, cells), _weighed(values, cells), mass, level)


def _weighed(numbers: Array, cells: Cells) -> float:
    return float(np.dot(numbers, cells.weights) if len(cells.weights) else numbers.sum())


class BlockSummary(NamedTuple):
    """Measures of one block, and its first invalid entry."""

    total: float  # Σ v
    row_norms: Array  # (r,), float64: ‖v_i‖², or Σ v_i where the loss is a divergence
    stored: int  # stored entries: all of a dense block, the explicit ones of a CSR block
    invalid: InvalidEntryError | None  # the first one
    column_weight: float | Array = 0.0  # rows that count; for each column, (n,), where they differ
    unobserved_rows: int = 0  # rows without an entry that counts
    divergence_terms: DivergenceTerms = NO_TERMS  # not empty if the loss is a divergence
    row_hashes: tuple[Hashes, ...] = ()  # those of V, if wanted, and those of its weights if any


def summarize_block(v: Block, keys: Hashes = NO_KEYS) -> BlockSummary:
    """Check and measure a block in one read.

    ``keys`` are those of its columns, if the hashes of its rows are wanted; see `digests`.
    """
    if scipy.sparse.issparse(v):
        edges = v.indptr.astype(np.int64)
        total, norms, at, hashes = _measure_rows(v.data, bits_of(v.data), v.indices, edges, keys)
        bad = (
            None if at < 0 else InvalidEntryError(row_at(v.indptr, at), int(v.indices[at]), float(v.data[at]))
        )
        return BlockSummary(
            total, norms, int(v.nnz), bad, float(v.shape[0]), row_hashes=_wanted(hashes, keys)
        )
    if v.flags.f_contiguous and not v.flags.c_contiguous:
        total, norms, sound, hashes = _measure_columns(v.T, bits_of(v.T), keys)
    else:
        flat = np.ascontiguousarray(v).reshape(-1)
        total, norms, at, hashes = _measure_rows(flat, bits_of(flat), NO_INDICES, row_edges(v), keys)
        sound = at < 0
    bad = None if sound else _first_bad(v)
    return BlockSummary(total, norms, int(v.size), bad, float(v.shape[0]), row_hashes=_wanted(hashes, keys))


def _wanted(hashes: Hashes, keys: Hashes) -> tuple[Hashes, ...]:
    return (hashes,) if len(keys) else ()


def row_at(indptr: Array, at: int) -> int:
    """Return the row of the entry at a position of a CSR block."""
    return int(np.searchsorted(indptr, at, side="right")) - 1


def _first_bad(v: Array) -> InvalidEntryError:
    rows, columns = np.nonzero(~((v >= 0) & (v < np.inf)))
    row, column = int(rows[0]), int(columns[0])
    return InvalidEntryError(row, column, float(v[row, column]))


@compiled(fastmath={"contract", "reassoc"})
def _measure_rows(
    data: Array, bits: Array, indices: Array, indptr: Array, keys: Array
) -> tuple[float, Array, int, Array]:
    """Return the sum, the squared norm of each row, the position of the first invalid entry, and row hashes.

    An entry is valid in [0, ∞); the position is -1 if all are.
    """
    rows = len(indptr) - 1
    norms, hashes = np.zeros(rows), np.zeros(rows, np.uint64)
    total, bad = 0.0, -1
    for i in range(rows):
        sound = True
        part, norm = 0.0, 0.0
        for p in range(indptr[i], indptr[i + 1]):
            value = np.float64(data[p])
            sound &= (value >= 0) & (value < np.inf)
            part += value
            norm += value * value
        if not sound and bad < 0:
            for p in range(indptr[i], indptr[i + 1]):
                if bad < 0 and not (data[p] >= 0 and data[p] < np.inf):
                    bad = p
        if len(keys) > 0:
            hashes[i] = hash_row(data, bits, indices, indptr[i], indptr[i + 1], keys, False)
        norms[i] = norm
        total += part
    return total, norms, bad, hashes


@compiled(fastmath={"contract", "reassoc"})
def _measure_columns(columns: Array, bits: Array, keys: Array) -> tuple[float, Array, bool, Array]:
    """Return the sum, the squared norm of each row, whether all entries are valid, and row hashes.

    The block is given by its columns, (n, r); an entry is valid in [0, ∞).
    """
    rows = columns.shape[1]
    norms, hashes = np.zeros(rows), np.zeros(rows, np.uint64)
    total, sound = 0.0, True
    for j in range(len(columns)):
        part = 0.0
        for i in range(rows):
            value = np.float64(columns[j, i])
            sound &= (value >= 0) & (value < np.inf)
            part += value
            norms[i] += value * value
        if len(keys) > 0:
            add_column(hashes, columns[j], bits[j], keys[j])
        total += part
    return total, norms, sound, hashes
