"""The digests of all rows of a run: those of its fit, and those of each batch of rows that was added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

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
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.types import Block


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

    @property
    def along(self) -> str:
        """The dimension whose spans have sums, "row" or "column"."""
        return "column" if self.by_columns else "row"

    def differing(self, digest: Digest, columns: int) -> list[tuple[int, int]]:
        """Return the ranges of rows of V, or of its columns, in which another digest differs from this."""
        size, offset = (columns, 0) if self.by_columns else (self.rows, self.first)
        return [(offset + first, offset + last) for first, last in differing_rows(digest, self.sums, size)]


def has_digests(result: StoredResult) -> bool:
    """Return whether the digests of all rows are known: none was taken out, or added without one."""
    lineage = result.record.get("lineage", [])
    if any(entry["kind"] != "update" for entry in lineage):
        return False
    spans = sum(spans_in(entry["rows"][1] - entry["rows"][0]) for entry in lineage)
    return bool(spans == result.record.get("added_spans", 0))


def known_digests(run: Run, result: StoredResult) -> list[KnownDigest]:
    """Return digests of all rows of a run, in order; none if they are not known of all rows."""
    if not has_digests(result):
        return []
    rows, by_columns = run.record["matrix"]["shape"][0], orientation_of(run.record).by_columns
    parts, added, at = [KnownDigest(0, rows, run.digest("V"), by_columns)], result.added_digest, 0
    for entry in result.record.get("lineage", []):
        first, last = entry["rows"]
        spans = spans_in(last - first)
        parts.append(KnownDigest(first, last, added[at : at + spans]))
        at += spans
    return parts


class DigestScan:
    """Digests of parts of V, which is read once in blocks of whole rows, or of whole columns.

    Parameters
    ----------
    parts : the rows whose digests are wanted, and whether these are by columns.
    columns : how many columns V has.
    marked : whether stored zeros differ from entries that are not stored.
    """

    def __init__(self, parts: Sequence[KnownDigest], columns: int, marked: bool) -> None:
        self._parts, self._columns, self._marked = parts, columns, marked
        self._digests: list[list[Digest]] = [[] for _ in parts]
        self._across = {number: np.zeros(part.rows, np.uint64) for number, part in enumerate(parts)}
        self._by_column = np.zeros(columns, np.uint64)

    def add_rows(self, first: int, block: Block) -> None:
        """Add whole rows of V, (r, n), from row ``first`` on."""
        for number, part in enumerate(self._parts):
            begin, end = max(part.first - first, 0), min(part.last - first, block.shape[0])
            if begin >= end:
                continue
            at, some = first + begin - part.first, block[begin:end]
            if part.by_columns:
                self._by_column += self._hashes(_turned(some), at)
            else:
                self._digests[number].append(digest_of(self._hashes(some, 0), at, part.rows))

    def add_columns(self, first: int, block: Block) -> None:
        """Add whole columns of V as rows of a block, (c, m), from column ``first`` on."""
        for number, part in enumerate(self._parts):
            whole = part.rows == block.shape[1]
            some = block if whole else block[:, part.first : part.last]
            if part.by_columns:
                self._digests[number].append(digest_of(self._hashes(some, 0), first, self._columns))
            else:
                self._across[number] += self._hashes(_turned(some), first)

    def finish(self) -> list[Digest]:
        """Return the digest of each part, once all of V was added."""
        return [self._finished(number, part) for number, part in enumerate(self._parts)]

    def _finished(self, number: int, part: KnownDigest) -> Digest:
        if self._digests[number]:
            return merge_digests(self._digests[number])
        if part.by_columns:
            return digest_of(self._by_column, 0, self._columns)
        return digest_of(self._across[number], 0, part.rows)

    def _hashes(self, block: Block, first: int) -> Hashes:
        """Return the hash of each row of a block, whose columns are numbered from ``first`` on."""
        return row_hashes(block, keys_of(first, first + block.shape[1]), self._marked)


def _turned(block: Block) -> Block:
    return scipy.sparse.csr_array(block.T) if scipy.sparse.issparse(block) else np.ascontiguousarray(block.T)
