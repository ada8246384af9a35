"""`residuals`: where W H fails, by blocks of rows and columns of V, in one pass over V in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.blocks.row_batches import iter_row_batches
from dask_nmf.kernels.summary.digests import Digest, digest_of, keys_of, merge_digests, row_hashes
from dask_nmf.kernels.summary.residual_sums import Places, Residuals, ResidualSums, residual_sums
from dask_nmf.results.recomputed import Terms, check_digest, powers, row_blocks, row_slices
from dask_nmf.runs.record.contents import orientation_of
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Block

CLOSE = (0.01, 1e-3)  # share of a relative error, and of 1, by which that of the fitted V may differ


def residuals(result: StoredResult, V: Any) -> Residuals:
    """Return where the W H of a result differs from V, which is read once.

    The sums are those of the last read of a fit, in float64. Missing entries do not count, nor do those that
    were held out; once rows were added or taken out, nothing tells which these were, and all count.

    Parameters
    ----------
    V : the matrix that was fitted, whatever `open_matrix` takes.

    Raises
    ------
    ValueError
        If V is another matrix than the fitted one, the fit had weights, or losses are beyond float64.
    """
    record = result.record
    if Measures(**record["measures"]).loss_unit(result.settings.beta) is None:
        raise ValueError(
            "V is so large or so small that losses of its entries are beyond float64; leave V out"
        )
    if record["settings"].get("weights") is not None:
        raise ValueError(
            "the fit had weights of entries, by which residuals would have to be weighed; leave V out"
        )
    matrix = open_matrix(V, record["matrix"]["dtype"], orientation_of(record))
    if list(matrix.shape) != record["matrix"]["shape"]:
        wanted, given = (" x ".join(map(str, shape)) for shape in (record["matrix"]["shape"], matrix.shape))
        raise ValueError(f"V is {given} and the run is of a V of {wanted}; give the V that was fitted")
    found, terms, digest = _scan(result, matrix, _rule(result, matrix))
    _check_error(terms.relative_error(result.settings.beta), record)
    run = Run.load(result.location)
    if run.record["finished"] and "lineage" not in record:  # else its digest is not that of this result
        check_digest(digest, run, matrix)
    return found.transposed if matrix.orientation.by_columns else found


def _rule(result: StoredResult, matrix: Matrix) -> EntryMask:
    """Return the rule by which entries count. If some are held out, all others are listed one by one."""
    settings = result.settings
    held_out = 0.0 if "lineage" in result.record else settings.validation_fraction
    missing = settings.missing or ("nan" if held_out else None)
    return EntryMask(missing, held_out, settings.random_state, matrix.orientation, beta=settings.beta)


def _scan(result: StoredResult, matrix: Matrix, rule: EntryMask) -> tuple[Residuals, Terms, Digest]:
    """Return residuals in panel orientation, the terms of the relative error, and the digest of V."""
    rows, columns = matrix.layout.rows, matrix.layout.columns
    left, right = matrix.orientation.turn(("W", "H"))
    h = matrix.orientation.turn_array(result.read(right)).astype(np.float64)
    factor: Any = result.array(left)
    places, keys, terms = Places.of((rows, columns), rule.beta), keys_of(0, columns), Terms()
    sums: ResidualSums | None = None
    digests = []
    for first, block in row_blocks(matrix):
        last = first + block.shape[0]
        digests.append(digest_of(row_hashes(block, keys, rule.missing == "unstored"), first, rows))
        some_w = factor[:, first:last].T if left == "H" else factor[first:last]
        w = np.asarray(some_w, np.float64)
        for some, part in _parts(block, first, rule):
            numbers = np.arange(first + some.start, first + some.stop)
            found = residual_sums(part, w[some], h, places, numbers)
            terms = terms.plus(_terms(part, rule.beta))
            sums = found if sums is None else sums + found
    assert sums is not None
    terms = terms.plus(Terms(loss=sums.loss))
    return sums.finish(places, h), terms, merge_digests(digests)


def _parts(block: Block, first: int, rule: EntryMask) -> Iterator[tuple[slice, Block]]:
    """Yield rows of a block, which begins at row ``first`` of V, as `residual_sums` takes them."""
    counted = masking.with_mask(block, first, rule)
    if isinstance(counted, MaskedBlock):
        for rows, cells, _ in iter_row_batches(counted):
            yield rows, cells
    elif scipy.sparse.issparse(counted):
        yield slice(0, counted.shape[0]), counted
    else:
        for some in row_slices(counted.shape[0], counted.shape[1] * 8):
            rows = slice(some.start, min(some.stop, counted.shape[0]))
            yield rows, np.ascontiguousarray(counted[rows], np.float64)


def _terms(part: Block, beta: float) -> Terms:
    """Return the terms of the relative error of entries that count, but for their loss."""
    if isinstance(part, Cells):
        values, whole = part.values, part.implicit_zeros
    else:
        values, whole = part.data if scipy.sparse.issparse(part) else part, True
    v = np.asarray(values, np.float64)
    entries = part.shape[0] * part.shape[1] if whole else v.size
    return Terms(entries, v.sum(), powers(v, beta).sum())


def _check_error(again: float, record: dict[str, Any]) -> None:
    """Refuse a V whose relative error is not that of the run."""
    baseline, unknown = record["measures"]["baseline"], "lineage" in record
    if record["loss"] is None or not baseline or (unknown and record["settings"].get("validation_fraction")):
        return
    stored = relative_error(record["loss"], baseline)
    if abs(again - stored) > CLOSE[0] * stored + CLOSE[1]:
        raise ValueError(
            f"the relative error of this V is {again:.6g}, and that of the run is {stored:.6g}; "
            "give the V that was fitted"
        )
