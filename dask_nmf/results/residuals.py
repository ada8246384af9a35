"""`residuals`: where W H fails, by blocks of rows and columns of V, in one pass over V in bounded memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.summary.digests import Digest, digest_of, keys_of, merge_digests, row_hashes
from dask_nmf.kernels.summary.residual_sums import Residuals, Side, block_edges, largest
from dask_nmf.results.recomputed import (
    Terms,
    check_digest,
    entry_losses,
    powers,
    row_blocks,
    row_slices,
)
from dask_nmf.runs.record.contents import orientation_of
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array

CLOSE = (0.01, 1e-3)  # share of a relative error, and of 1, by which that of the fitted V may differ
GATHERED = 1 << 20  # numbers of W, and of H, that are gathered at once for stored entries


def residuals(result: StoredResult, V: Any) -> Residuals:
    """Return where the W H of a result differs from V, which is read once.

    Missing entries do not count; held-out entries do.

    Parameters
    ----------
    V : the matrix that was fitted, whatever `open_matrix` takes.

    Raises
    ------
    ValueError
        If V is another matrix than the fitted one, or the fit had weights.
    """
    record, settings = result.record, result.settings
    if record["settings"].get("weights") is not None:
        raise ValueError(
            "the fit had weights of entries, by which residuals would have to be weighed; leave V out"
        )
    matrix = open_matrix(V, record["matrix"]["dtype"], orientation_of(record))
    if list(matrix.shape) != record["matrix"]["shape"]:
        wanted, given = (" x ".join(map(str, shape)) for shape in (record["matrix"]["shape"], matrix.shape))
        raise ValueError(f"V is {given} and the run is of a V of {wanted}; give the V that was fitted")
    factors: Any = result.factors
    W, H = factors
    by_columns = matrix.orientation.by_columns
    right = (result.read("W").T if by_columns else result.read("H")).astype(np.float64)
    scan = _Scan(matrix, right, settings.beta, settings.missing)
    for first, block in row_blocks(matrix):
        last = first + block.shape[0]
        left = H[:, first:last].T if by_columns else W[first:last]
        scan.add(first, block, np.asarray(left, np.float64))
    found = scan.finish()
    _check_error(scan.terms.plus(Terms(loss=found.total)).relative_error(settings.beta), record)
    run = Run.load(result.location)
    if run.record["finished"] and "lineage" not in record:  # else its digest is not that of this result
        check_digest(merge_digests(scan.digests), run, matrix)
    if not by_columns:
        return found
    return found.transposed


def _check_error(again: float, record: dict[str, Any]) -> None:
    """Refuse a V whose relative error is not that of the run."""
    baseline = record["measures"]["baseline"]
    if record["loss"] is None or not baseline or record["settings"].get("validation_fraction"):
        return
    stored = relative_error(record["loss"], baseline)
    if abs(again - stored) > CLOSE[0] * stored + CLOSE[1]:
        raise ValueError(
            f"the relative error of this V is {again:.6g}, and that of the run is {stored:.6g}; "
            "give the V that was fitted"
        )


class _Scan:
    """Sums over the rows of V in panel orientation."""

    def __init__(self, matrix: Matrix, right: Array, beta: float, missing: str | None) -> None:
        rows, columns = matrix.layout.rows, matrix.layout.columns
        self.rows, self.right, self.beta, self.missing = rows, right, beta, missing
        self.row_edges, self.column_edges = block_edges(rows), block_edges(columns)
        shape = len(self.row_edges) - 1, len(self.column_edges) - 1
        self.losses, self.sizes = np.zeros(shape), np.zeros(shape)
        self.of_columns = np.zeros((2, columns))
        self.worst_rows = np.zeros((3, 0))  # numbers, losses, sizes
        self.grams = np.zeros((shape[0], len(right), len(right)))  # WᵀW of each block of rows
        self.w_sums = np.zeros((shape[0], len(right)))
        self.gram = right @ right.T
        self.keys = keys_of(0, columns)
        self.digests: list[Digest] = []
        self.terms = Terms()  # but for the loss

    def add(self, first: int, block: Any, w: Array) -> None:
        """Add rows of V, which begin at row ``first``, and their rows of W."""
        hashes = row_hashes(block, self.keys, self.missing == "unstored")
        self.digests.append(digest_of(hashes, first, self.rows))
        expanded = scipy.sparse.issparse(block) and (
            self.missing == "unstored" or (self.missing is None and self.beta in (1, 2))
        )
        if expanded:
            self._add_stored(first, block, w)
            return
        for some in row_slices(block.shape[0], 3 * block.shape[1] * 8):
            self._add_dense(first + some.start, block[some], w[some])

    def _add_dense(self, first: int, block: Any, w: Array) -> None:
        v = (block.toarray() if scipy.sparse.issparse(block) else block).astype(np.float64)
        counted = np.ones(v.shape, bool)
        if self.missing is not None:
            counted = ~np.isnan(v)
            v = np.where(counted, v, 0.0)
        self._add_terms(v[counted], int(counted.sum()))
        losses = np.where(counted, entry_losses(v, w @ self.right, self.beta), 0.0)
        sizes = v * v if self.beta == 2 else counted.astype(np.float64)
        groups = self._groups(first, len(v))
        for total, part in ((self.losses, losses), (self.sizes, sizes)):
            np.add.at(total, groups, np.add.reduceat(part, self.column_edges[:-1], axis=1))
        self.of_columns += losses.sum(axis=0), sizes.sum(axis=0)
        self._keep_worst(first, losses.sum(axis=1), sizes.sum(axis=1))

    def _add_stored(self, first: int, block: Any, w: Array) -> None:
        """Add the stored entries of a CSR block; those that are not stored are in sums over W and H."""
        v, columns = block.data.astype(np.float64), block.indices
        rows = np.repeat(np.arange(len(w)), np.diff(block.indptr))
        whole = self.missing is None
        self._add_terms(v, len(w) * self.of_columns.shape[1] if whole else len(v))
        step = max(1, GATHERED // len(self.right))
        y = np.concatenate(
            [
                np.einsum("ij,ji->i", w[rows[some]], self.right[:, columns[some]])
                for some in (slice(at, at + step) for at in range(0, len(v), step))
            ]
            or [np.zeros(0)]
        )
        losses = entry_losses(v, y, self.beta)
        if whole:  # without the loss of a zero at the same W H, which is added for all entries
            losses = losses - (y * y if self.beta == 2 else 2 * y)
        sizes = v * v if self.beta == 2 else np.ones(len(v))
        groups = self._groups(first, len(w))
        places = np.searchsorted(self.column_edges, columns, side="right") - 1
        cells = groups[rows] * self.losses.shape[1] + places
        for total, part in ((self.losses, losses), (self.sizes, sizes)):
            total += np.bincount(cells, part, total.size).reshape(total.shape)
        n = self.of_columns.shape[1]
        self.of_columns += np.bincount(columns, losses, n), np.bincount(columns, sizes, n)
        of_rows = [np.bincount(rows, part, len(w)) for part in (losses, sizes)]
        if whole:
            self._add_model(groups, w)
            zero = (
                np.einsum("ij,ij->i", w @ self.gram, w)
                if self.beta == 2
                else 2 * (w @ self.right.sum(axis=1))
            )
            of_rows[0] = of_rows[0] + zero
            if self.beta != 2:
                of_rows[1] = np.full(len(w), float(n))
        self._keep_worst(first, *of_rows)

    def _add_terms(self, v: Array, entries: int) -> None:
        """Add values of V that count, all but zeros, to the sums from which its relative error follows."""
        self.terms = self.terms.plus(Terms(entries, v.sum(), powers(v, self.beta).sum()))

    def _add_model(self, groups: Array, w: Array) -> None:
        """Add rows of W to the sums from which the loss of zeros follows."""
        for group in np.unique(groups):
            some = w[groups == group]
            self.grams[group] += some.T @ some
            self.w_sums[group] += some.sum(axis=0)

    def _groups(self, first: int, rows: int) -> Array:
        """Return the block of each of some rows."""
        return np.searchsorted(self.row_edges, np.arange(first, first + rows), side="right") - 1

    def _keep_worst(self, first: int, losses: Array, sizes: Array) -> None:
        numbers = np.arange(first, first + len(losses), dtype=np.float64)
        self.worst_rows = largest(np.hstack([self.worst_rows, np.stack([numbers, losses, sizes])]))

    def finish(self) -> Residuals:
        """Return the residuals of all rows."""
        self._add_zeros()
        losses, sizes = self.of_columns
        numbers = np.arange(len(losses), dtype=np.float64)
        rows, columns = (
            Side(edges, worst[0].astype(np.int64), *worst[1:])
            for edges, worst in (
                (self.row_edges, self.worst_rows),
                (self.column_edges, largest(np.stack([numbers, losses, sizes]))),
            )
        )
        return Residuals(self.losses, self.sizes, rows, columns)

    def _add_zeros(self) -> None:
        """Add what the loss of all entries would be if V were 0, for rows whose stored entries were added."""
        if not self.w_sums.any():
            return
        right, edges = self.right, self.column_edges
        if self.beta == 2:
            spans = pairwise(edges.tolist())
            grams = np.array([right[:, first:last] @ right[:, first:last].T for first, last in spans])
            self.losses += np.einsum("rkl,ckl->rc", self.grams, grams)
            self.of_columns[0] += np.einsum("kn,kn->n", self.grams.sum(axis=0) @ right, right)
            return
        sums = np.add.reduceat(right, edges[:-1], axis=1)
        self.losses += 2 * self.w_sums @ sums
        self.of_columns[0] += 2 * self.w_sums.sum(axis=0) @ right
        self.sizes = np.outer(np.diff(self.row_edges), np.diff(edges)).astype(np.float64)
        self.of_columns[1] = float(self.row_edges[-1])
