"""Digests of the content of a matrix, which tell whether an entry of V has changed.

The digest of some rows is Σ_i K_i Σ_j k_j bits(v_ij) mod 2⁶⁴, with a random odd K_i of each row and a random
k_j < 2³² for each 32 bits of an entry of a column (multilinear hashing: Carter & Wegman, Universal classes of
hash functions, 1979). A zero adds nothing and digests of parts add up, so that a digest does not depend on
how V is stored or cut. A change of one entry always shows; several cancel with a chance of about 2⁻³².
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

Hashes = NDArray[np.uint64]

MOST_SPANS = 2**16  # spans of rows at most: beyond, several rows share a sum
STORED = np.uint64(0x80000000)  # combined (xor) with the bits of a marked entry
NAN = np.uint64(0x7FC00000)  # the bits of every NaN
LOWER, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
COLUMNS, ROWS = range(2)  # seeds of the keys: part of what a digest is
NO_KEYS: Hashes = np.empty(0, np.uint64)
NO_INDICES = np.empty(0, np.int32)


class Digest(NamedTuple):
    """The digest of contiguous rows: sums of their hashes, by spans of rows."""

    span: int  # rows of each span
    first: int  # index of the first span
    sums: Hashes


def span_of(rows: int) -> int:
    """Return how many rows of V share a sum: the least power of 2 with at most `MOST_SPANS` sums."""
    return 1 << (-(-rows // MOST_SPANS) - 1).bit_length()


def spans_in(rows: int) -> int:
    """Return how many sums the digest of a V of ``rows`` rows has."""
    return -(-rows // span_of(rows))


def digest_of(hashes: Hashes, first_row: int, rows: int) -> Digest:
    """Return the digest of the rows from ``first_row`` on, of a V of ``rows`` rows, from their hashes."""
    span = span_of(rows)
    last_row = first_row + len(hashes)
    spans = np.arange(first_row // span, -(-last_row // span))
    starts = np.maximum(spans * span - first_row, 0)
    weighted = hashes * (_random(ROWS, first_row, last_row) | np.uint64(1))
    return Digest(span, first_row // span, np.add.reduceat(weighted, starts))


def merge_digests(parts: Sequence[Digest]) -> Digest:
    """Return the digest of the rows of all parts; neighbours may share a span."""
    first = min(part.first for part in parts)
    sums = np.zeros(max(part.first + len(part.sums) for part in parts) - first, np.uint64)
    for part in parts:
        begin = part.first - first
        sums[begin : begin + len(part.sums)] += part.sums
    return Digest(parts[0].span, first, sums)


def differing_rows(digest: Digest, sums: Hashes, rows: int) -> list[tuple[int, int]]:
    """Return the ranges of rows in which a whole V differs from the sums of an earlier digest.

    Each range is a first row and a last row plus 1. A span that differs is included with all its rows.
    """
    differs = np.concatenate([[False], digest.sums != sums, [False]])
    edges = np.flatnonzero(differs[1:] != differs[:-1]).tolist()
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(first * digest.span, min(last * digest.span, rows)) for first, last in pairs]


@lru_cache(maxsize=1)
def keys_of(first: int, last: int) -> Hashes:
    """Return the keys of some columns, (last - first,): two words of 32 bits each, none of them 0."""
    return _random(COLUMNS, first, last) | np.uint64(0x100000001)


def row_hashes(v: Any, keys: Hashes, marked: bool = False) -> Hashes:
    """Return the hash of each row of a dense or CSR block, (r,).

    With ``marked``, the stored entries of a CSR block count even if they are 0.
    """
    if scipy.sparse.issparse(v):
        edges = v.indptr.astype(np.int64)
        hashes: Hashes = _hash_rows(v.data, bits_of(v.data), v.indices, edges, keys, marked)
    elif v.flags.f_contiguous and not v.flags.c_contiguous:
        hashes = _hash_columns(v.T, bits_of(v.T), keys)
    else:
        flat = np.ascontiguousarray(v).reshape(-1)
        hashes = _hash_rows(flat, bits_of(flat), NO_INDICES, row_edges(v), keys, marked)
    return hashes


def bits_of(values: Array) -> Array:
    """Return a view of floats as the integers of their bits, without a copy."""
    return values.view(f"u{values.itemsize}")


def row_edges(v: Array) -> NDArray[np.int64]:
    """Return the positions in a flat array at which rows of a dense block begin and end, (r + 1,)."""
    return np.arange(0, v.size + 1, v.shape[1], dtype=np.int64)


def _random(seed: int, first: int, last: int) -> Hashes:
    """Return random integers, (last - first,), each of which belongs to its index from ``first`` on."""
    drawn: Hashes = np.random.PCG64(seed).advance(first).random_raw(last - first)
    return drawn


@compiled(inlined=True)
def term(value: Any, bits: Any, key: np.uint64, marked: bool) -> Any:
    """Return the contribution of an entry to the hash of its row."""
    word = np.uint64(bits)
    if value == 0:  # true for −0.0 too
        word = np.uint64(0)
    if value != value:
        word = NAN
    if marked:
        word ^= STORED
    return (word & LOWER) * (key & LOWER) + (word >> HALF) * (key >> HALF)


@compiled(inlined=True)
def hash_row(
    data: Array, bits: Array, indices: Array, first: int, last: int, keys: Hashes, marked: bool
) -> Any:
    """Return the hash of a row, from entry ``first`` to ``last - 1``; dense if there are no indices."""
    total, begin = np.uint64(0), np.uint64(first)  # unsigned, or each index would be checked for its sign
    if len(indices) > 0:
        for p in range(begin, np.uint64(last)):
            total += term(data[p], bits[p], keys[np.uint64(indices[p])], marked)
    else:
        for j in range(np.uint64(last - first)):
            total += term(data[begin + j], bits[begin + j], keys[j], False)
    return total


@compiled(inlined=True)
def add_column(hashes: Hashes, values: Array, bits: Array, key: np.uint64) -> None:
    """Add the contributions of a column of a dense block to the hashes of its rows."""
    for i in range(len(hashes)):
        hashes[i] += term(values[i], bits[i], key, False)


@compiled()
def _hash_rows(data: Array, bits: Array, indices: Array, indptr: Array, keys: Hashes, marked: bool) -> Hashes:
    hashes = np.empty(len(indptr) - 1, np.uint64)
    for i in range(len(hashes)):
        hashes[i] = hash_row(data, bits, indices, indptr[i], indptr[i + 1], keys, marked)
    return hashes


@compiled()
def _hash_columns(columns: Array, bits: Array, keys: Hashes) -> Hashes:
    hashes = np.zeros(columns.shape[1], np.uint64)
    for j in range(len(columns)):
        add_column(hashes, columns[j], bits[j], keys[j])
    return hashes
