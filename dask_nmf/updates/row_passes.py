"""Passes over rows of V for the H of a finished fit, in the units of that fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from dask_nmf.cluster.client import shares_memory
from dask_nmf.execution import partition
from dask_nmf.execution.partition import CutOptions
from dask_nmf.execution.tasks.block_pass import PassSpec, keep_w
from dask_nmf.execution.tasks.factor_store import FactorStore, InMemoryFactor, InUnits
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.block_summary import DivergenceTerms
from dask_nmf.kernels.summary.digests import NO_KEYS, Hashes
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.planning import row_panels
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.sources.decoding.row_weights import read_row_weights, weights_of_rows
from dask_nmf.sources.factors_and_weights import open_entry_weights
from dask_nmf.sources.formats.stored.conversions import check_same_recipe
from dask_nmf.sources.labelled.registry import form_of
from dask_nmf.sources.labels.names import Names, check_same_columns, fitting, pieces
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import is_location
from dask_nmf.types import Array, Block, Orientation
from dask_nmf.updates.fitted import Fitted, combined
from dask_nmf.wording import counted


class RowSummary(NamedTuple):
    """The measures of some rows of V.

    Attributes
    ----------
    terms : Σ v, the number of entries, and Σ v log v if the loss is a divergence
    sumsq : Σ v²
    stored : the number of stored entries
    unobserved : the number of rows of which no entry counts
    digest : of the content, the weights and the names of the rows, in 32 hexadecimal digits
    digest_sums : the sums of the digest of their content
    baseline : ‖V‖² of these rows, or twice their divergence from their mean, in the units of the fit
    """

    terms: DivergenceTerms
    sumsq: float
    stored: int
    unobserved: int
    digest: str
    baseline: float
    digest_sums: Hashes = NO_KEYS


def open_rows(fitted: Fitted, V: object) -> Matrix:
    """Open rows of V; refuse them if their columns are not those of the fit.

    Raises
    ------
    ValueError
        If there are more or fewer columns, or their names or the steps of their conversion differ.
    """
    source, form = form_of(V)
    matrix = open_matrix(source, fitted.result.record["matrix"]["dtype"], Orientation.ROWS)
    if form is not None:
        matrix = replace(matrix, labels=fitting(form.labels, matrix.shape))
    check_same_recipe(matrix.recipe, matrix.name, fitted.result.record["matrix"])
    columns = fitted.shape[1]
    if matrix.shape[1] != columns:
        raise ValueError(
            f"{matrix.name} has {counted(matrix.shape[1], 'column')} and "
            f"{fitted.result.location.name} has {columns}; "
            "give rows with the columns of the run"
        )
    check_same_columns(matrix.labels.columns, fitted.result.labels.columns)
    return matrix


def open_weights(fitted: Fitted, matrix: Matrix, weights: Any) -> Matrix | None:
    """Open the weights of new rows: those of their entries, (r, n), or one for each row, (r,).

    Raises
    ------
    ValueError, DataError
        If the fit had weights and there are none, or the other way; if their shape is another, or one of
        each row is negative or not finite.
    """
    name = fitted.result.location.name
    if fitted.weighted and weights is None:
        raise ValueError(
            f"{name} was fitted with weights; give those of the new rows (--weights), 1 for what counts once"
        )
    if weights is None:
        return None
    if not fitted.weighted:
        raise ValueError(f"{name} was fitted without weights; leave those of the new rows out, or fit anew")
    if is_location(weights) or np.ndim(weights) != 1:
        return open_entry_weights(matrix, weights)
    return weights_of_rows(matrix, read_row_weights(weights, matrix.shape[0], ("weights", matrix.name)))


def content_digest(sums: Hashes, shape: tuple[int, ...], dtype: Any, names: Names | None) -> str:
    """Return the digest of rows by those of entries and weights, and by their names if they have any."""
    digest = hashlib.sha256(sums.tobytes() + f"{shape[0]} {shape[1]} {dtype}".encode())
    for piece in () if names is None else pieces(names):
        digest.update(json.dumps(piece.tolist()).encode())
    return digest.hexdigest()[:32]


def rows_in_memory(fitted: Fitted, block: Block) -> Matrix:
    """Open a block of rows that was read from a matrix which `open_rows` has opened, (rows, n)."""
    return open_matrix(block, fitted.result.record["matrix"]["dtype"], Orientation.ROWS)


class RowPasses:
    """Passes over rows of V; the rows are cached between passes as far as memory allows."""

    def __init__(self, fitted: Fitted, matrix: Matrix, weights: Matrix | None = None) -> None:
        self.fitted, self.matrix = fitted, matrix
        beta, rank = fitted.settings.beta, fitted.settings.n_components
        mask = EntryMask(fitted.settings.missing, weighted=weights is not None, beta=beta)
        options = CutOptions(own_grams=beta == 1 or mask.needs_means, cache=None)
        self.engine, _ = partition.cut_into_panels(matrix, rank, weights, mask, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()

    @property
    def chunk_rows(self) -> int:
        """The number of rows that one task writes."""
        return row_panels.aligned_rows(self.engine.edges)

    def temporary_w(self, changed: ChangedResult) -> FactorStore:
        """Return a store for W of the rows until the result has it; in memory for a panel of this process."""
        rows = self.matrix.shape[0]
        if len(self.engine.edges) == 2 and shares_memory():
            return InMemoryFactor(rows, self.fitted.settings.n_components, self.matrix.dtype)
        return changed.temporary_w(rows, self.chunk_rows)

    def summarize(self) -> RowSummary:
        """Check, measure and digest the rows, in one read.

        Raises
        ------
        InvalidEntryError
            For the first entry that is negative or not finite.
        """
        rows, columns = self.matrix.shape
        self.engine.scale = 1.0
        found = self.engine.summarize(SampleSpec(rows, 0, 0))
        self.matrix.check_entries(found.invalid)
        self.engine.scale = scale = self.fitted.measures.scale
        beta = self.fitted.settings.beta
        entries = float(np.broadcast_to(found.column_weight, columns).sum())
        terms = found.divergence_terms if beta == 1 else DivergenceTerms(2.0, 0.0, found.total, entries)
        terms = terms.at_level(0) if beta == 1 else terms
        level = -round(np.log2(scale))
        baseline = found.sumsq * scale**2 if beta == 2 else terms.at_level(level).divergence_from_mean()
        sums = [digest.sums for digest in found.digests]  # of the rows, and of weights if they have some
        names = self.matrix.labels.rows
        digest = content_digest(np.concatenate(sums), self.matrix.shape, self.matrix.dtype, names)
        return RowSummary(terms, found.sumsq, found.stored, found.unobserved_rows, digest, baseline, sums[0])

    def sums(self, h: Array) -> Sums:
        """Return the sums of the rows and of their W for an H (k, n), with the loss, in one pass."""
        self.engine.scale = self.fitted.measures.scale
        spec = PassSpec(self.fitted.solver.solve_w, self.fitted.terms, residual=True)
        return self.engine.run_pass(self._cast(h), spec)

    def loss(self) -> float:
        """Return the loss of W and H of the fit, whose rows these are, in one pass."""
        self.engine.scale = self.fitted.measures.scale
        w = InUnits(ZarrFactor(self.fitted.result.array("W")), 1 / self.fitted.units[0])
        spec = PassSpec(keep_w, self.fitted.solver, w_in=w, residual=True, residual_only=True)
        return self.engine.run_pass(self._cast(self.fitted.h), spec).residual

    def write(
        self, h: Array, store: FactorStore, with_sums: bool = False, means: FactorStore | None = None
    ) -> Sums:
        """Write W of the rows for an H (k, n) to a store, in one pass; return the sums or the loss alone.

        With a store for ``means`` of the rows, these are written too, and the sums have `column_totals`.
        """
        self.engine.scale = self.fitted.measures.scale
        solver = self.fitted.solver
        spec = PassSpec(solver.solve_w_final, solver, w_out=store, unit=self.fitted.units[0], residual=True)
        spec = spec._replace(averages=means is not None, means=means, residual_only=not with_sums)
        return self.engine.run_pass(self._cast(h), spec)

    def _cast(self, h: Array) -> Array:
        return np.ascontiguousarray(h, self.matrix.dtype)


def measures_with(fitted: Fitted, rows: RowSummary, sign: int = 1) -> dict[str, float]:
    """Return the measures of V with some rows added, or taken out if the sign is −1, as a record has them."""
    beta, terms = fitted.settings.beta, rows.terms
    part = DivergenceTerms(
        terms.beta, sign * terms.data_term, sign * terms.weighted_sum, sign * terms.weight, terms.level
    )
    measures = combined(fitted.measures, part, sign * rows.sumsq, beta, fitted.entries)
    stored = max(measures.stored + sign * rows.stored, 0)
    unobserved = measures.unobserved_rows + sign * rows.unobserved
    return measures._replace(stored=stored, unobserved_rows=unobserved)._asdict()
