"""Checks that rows of V which are to be taken out of a run are those that the run was fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_nmf.errors import RunMismatch
from dask_nmf.fitting.verification import check_content, is_unwritten, ranges_in_words
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary.digests import digest_of, keys_of, row_hashes
from dask_nmf.runs.record.contents import orientation_of
from dask_nmf.runs.rows.known_digests import DigestScan, KnownDigest, known_digests
from dask_nmf.runs.run import Run
from dask_nmf.sources.labels.names import gather
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array
from dask_nmf.updates.fitted import Fitted
from dask_nmf.updates.row_passes import RowPasses
from dask_nmf.updates.rows.chosen_rows import Batch, batches
from dask_nmf.wording import counted

SAME_SUMS = 1e-5  # relative difference of sums over V that rounding explains
SAME_ERROR, NEAR_ERROR = 1e-2, 1e-1  # share of an exact and of an estimated error that V may exceed
LEAST = 1e-4  # the same as a share of ‖V‖


def check_v(run: Run, fitted: Fitted, matrix: Matrix, numbers: Array, V: Any) -> None:
    """Refuse a V that is not that of the run, or of which that cannot be told.

    Raises
    ------
    ValueError, RunMismatch
        If it has another number of rows, other names or other entries.
    """
    rows, record, name = fitted.shape[0], fitted.result.record, run.location.name
    if matrix.shape[0] not in (rows, len(numbers)):
        raise ValueError(
            f"{matrix.name} has {counted(matrix.shape[0], 'row')}, and {name} has {rows}, of which "
            f"{len(numbers)} are to be taken out; give all rows, with those that were added since the fit "
            "below the others (dask-nmf convert OLD NEW ALL), or these alone in their order"
        )
    _check_names(fitted, matrix, numbers if matrix.shape[0] != rows else np.arange(rows))
    if matrix.shape[0] != rows:
        _check_alone(run, fitted, matrix, numbers)
    elif "lineage" not in record:
        _check_fitted(run, fitted, V)
    elif parts := known_digests(run, fitted.result):
        _check_digests(fitted, matrix, parts)
    else:
        _check_sums(fitted, matrix)


def _check_fitted(run: Run, fitted: Fitted, V: Any) -> None:
    """Compare a V with that of a fit whose rows are as they were; nothing is read if no file was written."""
    record = fitted.result.record
    same = open_matrix(V, record["matrix"]["dtype"], orientation_of(record))
    if not is_unwritten(same, None, run):
        settings = fitted.settings
        mask = EntryMask(settings.missing, orientation=same.orientation, beta=settings.beta)
        check_content(same, None, mask, run)


def _check_names(fitted: Fitted, matrix: Matrix, numbers: Array) -> None:
    """Refuse rows whose names are not those of the rows with these numbers, where both have names."""
    theirs, mine = fitted.result.labels.rows, matrix.labels.rows
    if theirs is None or mine is None:
        return
    wanted, given = gather(theirs, numbers), mine.read(0, len(mine))
    if not np.array_equal(wanted, given):
        place = int(np.argmax(wanted != given))
        raise ValueError(
            f"row {place} of {matrix.name} is {str(given[place])!r}, and {str(wanted[place])!r} is needed; "
            "give the rows in the order of the run, or these alone in the order in which they are listed"
        )


def _check_alone(run: Run, fitted: Fitted, matrix: Matrix, numbers: Array) -> None:
    """Refuse rows alone that are not those of the fit, or for which the run has no digest of each row."""
    rows, name, parts = fitted.shape[0], run.location.name, known_digests(run, fitted.result)
    if not fitted.is_uniform:
        why = "entries are missing"
    elif not parts:
        why = "rows were taken out since its fit, or added by an earlier version"
    elif not all(part.of_each_row for part in parts):
        why = "it has no digest of each row"
    else:
        for batch in batches(fitted, matrix, numbers):
            if other := _differing(batch, parts):
                raise ValueError(f"row {other[0]} is not that of the V of {name}; give its rows")
        return
    raise ValueError(
        f"{matrix.name} has only the rows to be taken out, which cannot be compared with {name}, because "
        f"{why}; give all {counted(rows, 'row')} that it has now"
    )


def _check_digests(fitted: Fitted, matrix: Matrix, parts: Sequence[KnownDigest]) -> None:
    """Read a whole V once, in this process, and compare it with the digests of its parts.

    Raises
    ------
    RunMismatch
        If an entry differs; the message names the rows, or the columns.
    """
    rows, columns = matrix.shape
    scan = DigestScan(parts, columns, fitted.settings.missing == "unstored")
    for batch in batches(fitted, matrix, np.arange(rows)):
        scan.add_rows(int(batch.numbers[0]), batch.block)
    for part, digest in zip(parts, scan.finish(), strict=True):
        if ranges := part.differing(digest, columns):
            raise RunMismatch(
                f"{matrix.name} is not the V of {fitted.result.location.name} as it is now: it differs in "
                f"{ranges_in_words(part.along, ranges)}; give the rows that the run has, in its order"
            )


def _differing(batch: Batch, parts: Sequence[KnownDigest]) -> list[int]:
    """Return numbers of rows that are not those of the run, of which each row has a digest."""
    hashes = row_hashes(batch.block, keys_of(0, batch.block.shape[1]))
    found = []
    for at, number in enumerate(batch.numbers.tolist()):
        (part,) = (part for part in parts if part.first <= number < part.last)
        own = digest_of(hashes[at : at + 1], number - part.first, part.rows).sums[0]
        found += [number] if own != part.sums[number - part.first] else []
    return found


def _check_sums(fitted: Fitted, matrix: Matrix) -> None:
    """Refuse a whole V whose sums are not those of the run, or to which its W and H do not belong.

    Once rows were taken out there are no digests of all rows. V is read twice, unless it is cached.
    """
    with RowPasses(fitted, matrix) as passes:
        summary, loss = passes.summarize(), passes.loss()
    measures, scale = fitted.measures, fitted.measures.scale
    mean = summary.terms.weighted_sum / max(summary.terms.weight, 1.0)
    pairs = [("mean", mean, measures.mean)]
    if fitted.settings.beta == 2:
        pairs.append(("norm", math.sqrt(summary.sumsq) * scale, math.sqrt(measures.baseline)))
    pairs_differ = [(what, v, run) for what, v, run in pairs if not math.isclose(v, run, rel_tol=SAME_SUMS)]
    error, stored = (relative_error(value, measures.baseline) for value in (loss, fitted.loss))
    share = NEAR_ERROR if fitted.result.record.get("estimated") else SAME_ERROR
    if not error <= stored * (1 + share) + LEAST:
        pairs_differ.append(("relative error", error, stored))
    for what, mine, theirs in pairs_differ[:1]:
        raise RunMismatch(
            f"{matrix.name} is not the V of {fitted.result.location.name} as it is now: its {what} is "
            f"{mine:.6g} and not {theirs:.6g}; give the rows that the run has, in its order"
        )
