"""The digests of all rows of a run: those of its fit, and those of each batch of rows that was added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.errors import RunMismatch
from dask_nmf.fitting.verification import ranges_in_words
from dask_nmf.kernels.summary.digests import (
    Digest,
    Hashes,
    differing_rows,
    digest_of,
    keys_of,
    merge_digests,
    row_hashes,
    span_of,
    spans_in,
)
from dask_nmf.runs.record.contents import orientation_of
from dask_nmf.runs.run import Run
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Block
from dask_nmf.updates.fitted import Fitted
from dask_nmf.updates.rows.chosen_rows import Batch, batches


class KnownDigest(NamedTuple):
    """The digest of some neighbouring rows, which are numbered from 0 in it."""

    first: int
    last: int  # the last row plus 1
    sums: Hashes  # by spans of rows, or of columns
    by_columns: bool = False

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.last - self.first

    @property
    def of_each_row(self) -> bool:
        """True if each row has a sum of its own."""
        return not self.by_columns and span_of(self.rows) == 1


def known_digests(run: Run, fitted: Fitted) -> list[KnownDigest]:
    """Return digests of all rows of a run, in order; none if rows were taken out, or added without one."""
    lineage = fitted.result.record.get("lineage", [])
    rows, by_columns = run.record["matrix"]["shape"][0], orientation_of(run.record).by_columns
    parts, added, at = [KnownDigest(0, rows, run.digest("V"), by_columns)], fitted.result.added_digest, 0
    for entry in lineage:
        if entry["kind"] != "update":
            return []
        first, last = entry["rows"]
        spans = spans_in(last - first)
        parts.append(KnownDigest(first, last, added[at : at + spans]))
        at += spans
    return parts if at == len(added) else []


def check_all_rows(fitted: Fitted, matrix: Matrix, parts: Sequence[KnownDigest]) -> None:
    """Read a whole V once, in this process, and compare it with its digests.

    Raises
    ------
    RunMismatch
        If an entry differs; the message names the rows, or the columns.
    """
    for part in parts:
        digest, along = _digest(fitted, matrix, part)
        size, offset = (matrix.shape[1], 0) if part.by_columns else (part.rows, part.first)
        ranges = [(offset + first, offset + last) for first, last in differing_rows(digest, part.sums, size)]
        if ranges:
            raise RunMismatch(
                f"{matrix.source} is not the V of {fitted.result.location.name} as it is now: it differs in "
                f"{ranges_in_words(along, ranges)}; give the rows that the run has, in its order"
            )


def differing(batch: Batch, parts: Sequence[KnownDigest]) -> list[int]:
    """Return numbers of rows that are not those of the run, of which each row has a digest."""
    hashes = row_hashes(batch.block, keys_of(0, batch.block.shape[1]))
    found = []
    for at, number in enumerate(batch.numbers.tolist()):
        (part,) = (part for part in parts if part.first <= number < part.last)
        own = digest_of(hashes[at : at + 1], number - part.first, part.rows).sums[0]
        found += [number] if own != part.sums[number - part.first] else []
    return found


def _digest(fitted: Fitted, matrix: Matrix, part: KnownDigest) -> tuple[Digest, str]:
    """Return the digest of some rows of V, and what its spans are of."""
    columns, digests = matrix.shape[1], []
    by_column, marked = np.zeros(columns, np.uint64), fitted.settings.missing == "unstored"
    for batch in batches(fitted, matrix, np.arange(part.first, part.last)):
        first, block = int(batch.numbers[0]) - part.first, batch.block
        if part.by_columns:
            turned: Block = scipy.sparse.csr_array(block.T) if scipy.sparse.issparse(block) else block.T
            by_column += row_hashes(turned, keys_of(first, first + block.shape[0]), marked)
        else:
            digests.append(digest_of(row_hashes(block, keys_of(0, columns), marked), first, part.rows))
    if part.by_columns:
        return digest_of(by_column, 0, columns), "column"
    return merge_digests(digests), "row"
