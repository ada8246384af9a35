"""The first read of V: its measures, its first invalid entry, and a sample of its rows.

A row is in the sample with a probability that is half uniform and half proportional to its squared norm,
and is scaled by 1/√(that probability), so that the sample's VᵀV is unbiased. Whether a row is drawn
depends on a hash of (seed, row) and on V, not on how V is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.errors import InvalidEntryError
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.summary import masked_summary
from dask_nmf.kernels.summary.block_summary import NO_TERMS, DivergenceTerms
from dask_nmf.kernels.summary.digests import Digest, digest_of, keys_of, merge_digests
from dask_nmf.types import Block

STRATA = 64  # equal ranges of rows, of which each keeps its own candidates
MOST_PIECES = 4  # pieces of a sample at most: each has sums of H's size to be added
PIECE = 64 * 1024  # entries of a sample that are worth a thread
SHARE = 4  # candidates that a stratum may keep, in multiples of its fair share


@dataclass(frozen=True)
class SampleSpec:
    """The specification of a sample of rows: how many of how many, and the seed."""

    rows: int  # rows of V, in panel orientation
    size: int  # expected number of rows in the sample, about
    seed: int

    @property
    def uniform_share(self) -> float:
        """The probability that a row is drawn regardless of its norm."""
        return min(1.0, self.size / 2 / self.rows) if self.size < self.rows else 1.0

    @property
    def stratum_rows(self) -> int:
        return -(-self.rows // STRATA)

    @property
    def stratum_candidates(self) -> int:
        return -(-SHARE * self.size // (2 * STRATA)) if self.size < self.rows else 0


class Candidates(NamedTuple):
    """Rows that may end up in the sample, in order.

    The weighted half is a bottom-k sample by the keys Exp(1) / ‖row‖² (Efraimidis & Spirakis 2006). Each of
    64 equal ranges of rows keeps only its smallest keys, and one more as its threshold, so that a panel never
    passes on more than a few rows.
    """

    rows: NDArray[np.int64]  # global indices
    norms: NDArray[np.float64]  # ‖row‖²
    keys: NDArray[np.float64]
    block: Block


class Summary(NamedTuple):
    """The summary of the first read of V or of a part of it. `merge_summaries` adds parts."""

    total: float  # Σ V
    sumsq: float  # ‖V‖² (Σ V where the loss is a divergence)
    stored: int
    empty_rows: int  # in panel orientation
    unobserved_rows: int  # those of the empty rows of which no entry counts
    column_weight: float | NDArray[np.float64]  # rows that count; for each column where they differ
    invalid: InvalidEntryError | None  # the first one, by row
    candidates: Candidates
    divergence_terms: DivergenceTerms = NO_TERMS  # see `BlockSummary`
    digests: tuple[Digest, ...] = ()  # the digest of V, and that of its weights if it has some


def summarize_panel(block: Block, first_row: int, draw: SampleSpec) -> Summary:
    """Return the measures and the candidates of a panel that begins at ``first_row``."""
    found = masked_summary.summarize_block(block, keys_of(0, block.shape[1]))
    bad = found.invalid and found.invalid.at(first_row)
    return Summary(
        found.total,
        float(found.row_norms.sum()),
        found.stored,
        int((found.row_norms == 0).sum()),
        found.unobserved_rows,
        found.column_weight,
        bad,
        sample_candidates(block, found.row_norms, first_row, draw),
        found.divergence_terms,
        tuple(digest_of(hashes, first_row, draw.rows) for hashes in found.row_hashes),
    )


def merge_summaries(parts: list[Summary], draw: SampleSpec) -> Summary:
    """Return the summary of neighbouring panels, given in order."""
    bad = [part.invalid for part in parts if part.invalid is not None]
    return Summary(
        sum(part.total for part in parts),
        sum(part.sumsq for part in parts),
        sum(part.stored for part in parts),
        sum(part.empty_rows for part in parts),
        sum(part.unobserved_rows for part in parts),
        sum(part.column_weight for part in parts),
        bad[0] if bad else None,
        merge_candidates([part.candidates for part in parts], draw),
        reduce(add, (part.divergence_terms for part in parts)),
        tuple(map(merge_digests, zip(*(part.digests for part in parts), strict=True))),
    )


def sample_candidates(
    block: Block, norms: NDArray[np.float64], first_row: int, draw: SampleSpec
) -> Candidates:
    """Return the rows of a block that may end up in the sample; ``norms`` are squared, (r,)."""
    rows = first_row + np.arange(block.shape[0])
    with np.errstate(divide="ignore", over="ignore"):
        keys = -np.log(rng.uniform(draw.seed, rng.Stream.WEIGHTED_ROWS, rows)[:, 0]) / norms
    kept = _kept(rows, keys, draw)
    if kept.all():
        return Candidates(rows, norms, keys, block)
    return Candidates(rows[kept], norms[kept], keys[kept], block[np.flatnonzero(kept)])


def merge_candidates(parts: list[Candidates], draw: SampleSpec) -> Candidates:
    """Return the candidates of neighbouring blocks, given in order.

    Rows are dropped before blocks are copied into one, so that a worker holds only the parts and their union.
    """
    rows, norms, keys, blocks = zip(*parts, strict=True)
    kept = _kept(np.concatenate(rows), np.concatenate(keys), draw)
    ends = np.cumsum([0, *map(len, rows)])
    left = [
        block if kept[first:last].all() else block[np.flatnonzero(kept[first:last])]
        for block, (first, last) in zip(blocks, pairwise(ends), strict=True)
    ]
    return Candidates(
        np.concatenate(rows)[kept],
        np.concatenate(norms)[kept],
        np.concatenate(keys)[kept],
        masking.vstack(left),
    )


def draw_sample(candidates: Candidates, draw: SampleSpec) -> Block:
    """Return the sample: rows of V, scaled, in order of their index."""
    rows, norms, _, block = candidates
    drawn, threshold = _by_key(candidates, draw)
    by_norm = -np.expm1(-norms * np.where(norms > 0, threshold, 0))
    chosen = _uniform(rows, draw) | drawn
    probability = 1 - (1 - draw.uniform_share) * (1 - by_norm)
    return masking.scale_rows(block[np.flatnonzero(chosen)], 1 / probability[chosen])


def split_sample(sample: Block) -> list[Block]:
    """Return the sample in pieces for threads; their number depends on its size, not on the machine."""
    number = max(1, min(MOST_PIECES, masking.n_stored(sample) // PIECE, int(sample.shape[0])))
    return [sample[a:b] for a, b in pairwise(np.linspace(0, sample.shape[0], number + 1, dtype=int))]


def _by_key(candidates: Candidates, draw: SampleSpec) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which rows have one of the smallest keys, and the threshold of each row's key.

    A row is drawn if its key is below its threshold. The other rows decide the threshold, or the probability
    would be wrong: for a row that is not among the smallest, it is the largest key that is.
    """
    strata, ranks = _ranks(candidates.rows, candidates.keys, draw)
    keys, wanted = candidates.keys, draw.size // 2
    last, limit = np.full((2, STRATA), np.inf)
    for bound, rank in ((last, draw.stratum_candidates - 1), (limit, draw.stratum_candidates)):
        bound[strata[ranks == rank]] = keys[ranks == rank]
    eligible = np.append(np.sort(keys[keys < limit[strata]]), np.full(wanted + 1, np.inf))
    inner = eligible[wanted - 1] if wanted > 0 else 0.0
    outside = np.minimum(limit[strata], eligible[wanted])
    drawn = keys < outside
    return drawn, np.where(drawn, outside, np.minimum(last[strata], inner))


def _uniform(rows: NDArray[np.int64], draw: SampleSpec) -> NDArray[np.bool_]:
    chosen = rng.uniform(draw.seed, rng.Stream.UNIFORM_ROWS, rows)[:, 0] < draw.uniform_share
    return np.asarray(chosen)


def _ranks(
    rows: NDArray[np.int64], keys: NDArray[np.float64], draw: SampleSpec
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the stratum of each row and the rank of its key in that stratum."""
    strata = rows // draw.stratum_rows
    order = np.lexsort((keys, strata))
    ranks = np.empty(len(order), np.int64)
    ordered = strata[order]
    ranks[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return strata, ranks


def _kept(rows: NDArray[np.int64], keys: NDArray[np.float64], draw: SampleSpec) -> NDArray[np.bool_]:
    """Return which rows may still end up in the sample."""
    light = (_ranks(rows, keys, draw)[1] <= draw.stratum_candidates) & np.isfinite(keys)
    return _uniform(rows, draw) | light
