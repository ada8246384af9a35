"""Rows that are chosen by their numbers or names, and read from V in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.summary.block_summary import DivergenceTerms
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labels.names import pieces
from dask_nmf.sources.matrix import Matrix, as_block
from dask_nmf.types import Array, Block
from dask_nmf.updates.fitted import Fitted
from dask_nmf.updates.row_passes import RowSummary
from dask_nmf.updates.rows.known_rows import products_at
from dask_nmf.wording import counted

BATCH = 2**25  # bytes of rows, as dense float64, that are read at once


class Batch(NamedTuple):
    """Some of the chosen rows: their numbers, and these rows of V and of the W of the fit."""

    numbers: Array  # (r,)
    block: Block  # (r, n), dense or CSR, in the units of the user
    v: Block  # the same in float64 and in the units of the fit
    w: Array  # (r, k), float64, in the units of the fit


def row_numbers(result: StoredResult, chosen: Sequence[int | str]) -> Array:
    """Return the numbers of rows that are given by number or by name; a name stands for all of its rows.

    Raises
    ------
    ValueError
        If there is no such row, or one is given twice.
    """
    rows = result.record["matrix"]["shape"][0]
    named = {one for one in chosen if isinstance(one, str)}
    places = _places(result, named) if named else {}
    numbers: list[int] = []
    for one in chosen:
        found = places.get(one, []) if isinstance(one, str) else [one] if 0 <= one < rows else []
        if not found:
            what = f"no row is named {one!r}" if isinstance(one, str) else f"there is no row {one}"
            raise ValueError(
                f"{what} in {result.location.name}, which has {counted(rows, 'row')}; it may be "
                "gone already; "
                "give rows that are there"
            )
        numbers += found
    if len(set(numbers)) < len(numbers):
        raise ValueError("a row is given twice; give each row once")
    if not 0 < len(numbers) < rows:
        raise ValueError(
            f"{len(numbers)} of {counted(rows, 'row')} are given; give at least one, and leave at least one"
        )
    return np.array(numbers, np.int64)


def _places(result: StoredResult, named: set[str]) -> dict[str, list[int]]:
    """Return the numbers of the rows of some names, which are read in pieces."""
    names = result.labels.rows
    if names is None:
        raise ValueError(f"the rows of {result.location.name} have no names; give their numbers")
    places: dict[str, list[int]] = {}
    first = 0
    for piece in pieces(names):
        for number, name in enumerate(piece.tolist(), first):
            if name in named:
                places.setdefault(name, []).append(number)
        first += len(piece)
    return places


def batches(fitted: Fitted, matrix: Matrix, numbers: Array) -> Iterator[Batch]:
    """Yield the chosen rows: in the order of a V that has only them, else in ascending order."""
    alone = matrix.shape[0] == len(numbers)
    numbers = numbers if alone else np.sort(numbers)
    W, scale = fitted.result.array("W"), fitted.measures.scale
    step = _batch_rows(matrix)
    for first in range(0, len(numbers), step):
        chosen = numbers[first : first + step]
        places = np.arange(first, first + len(chosen)) if alone else chosen
        block = _read(matrix, places)
        w = np.asarray(W.oindex[chosen], np.float64)
        yield Batch(chosen, block, scaled(block, scale), scaling.multiply(w, 1 / fitted.units[0]))


def scaled(block: Block, by: float) -> Block:
    """Return a block of V, dense or CSR, times a number, in float64."""
    if not scipy.sparse.issparse(block):
        return scaling.multiply(block.astype(np.float64), by)
    values = scaling.multiply(block.data.astype(np.float64), by)
    return scipy.sparse.csr_array((values, block.indices, block.indptr), block.shape)


def _batch_rows(matrix: Matrix) -> int:
    """Return how many rows of a matrix a batch has."""
    row_bytes = matrix.bytes // matrix.shape[0] if matrix.sparse else 8 * matrix.shape[1]
    return max(1, BATCH // max(row_bytes, 1))


def _read(matrix: Matrix, places: Array) -> Block:
    """Return some rows of a matrix, in ascending order, (r, n), as one block.

    Rows that share a chunk of the storage are picked from one read of it. Neighbours are read together.
    """
    chunk = max(1, matrix.layout.chunk_rows)
    span = chunk * max(1, _batch_rows(matrix) // chunk)
    jumps = (np.diff(places) != 1) & (np.diff(places // chunk) != 0)
    parts = np.split(places, np.flatnonzero(jumps | (np.diff(places // span) != 0)) + 1)
    rows = [_picked(matrix, part) for part in parts]
    return scipy.sparse.vstack(rows, format="csr") if matrix.sparse else np.concatenate(rows)


def _picked(matrix: Matrix, places: Array) -> Block:
    """Return some rows of a matrix, in ascending order, from one read of all between the first and last."""
    first, last = int(places[0]), int(places[-1]) + 1
    box = slice(first, last), slice(0, matrix.shape[1])
    block = as_block(matrix.reader.read_all([box])[0], matrix.dtype)
    return block if last - first == len(places) else block[places - first]


def summary_of(batch: Batch, beta: float, scale: float) -> RowSummary:
    """Return the measures of a batch of rows."""
    v = scaling.multiply(_values(batch.v), 1 / scale)
    there = v[v > 0]
    data = float(there @ np.log(there)) if beta == 1 else 0.0
    terms = DivergenceTerms(beta, data, float(v.sum()), float(np.prod(batch.v.shape)))
    return RowSummary(terms, float(np.vdot(v, v)), v.size, 0, "", 0.0)


def _values(v: Block) -> Array:
    """Return the stored entries of a block, (stored,)."""
    return np.asarray(v.data if scipy.sparse.issparse(v) else v).ravel()


def loss_of(v: Block, w: Array, h: Array, beta: float) -> float:
    """Return ‖v − w h‖², or twice the Kullback-Leibler divergence, of rows of V."""
    values, product = _values(v), products_at(v, w, h)
    if beta == 2:
        rest = np.vdot(w.T @ w, h @ h.T) - np.vdot(product, product)  # w h where a CSR block stores nothing
        return float(np.square(values - product).sum() + max(rest, 0.0))
    there = values > 0
    with np.errstate(divide="ignore"):
        logs = float(values[there] @ np.log(values[there] / product[there]))
    return 2 * (logs - float(values.sum()) + float(w.sum(axis=0) @ h.sum(axis=1)))
