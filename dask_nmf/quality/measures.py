"""Measures of one factorisation: how well it fits V, how sparse it is, how well it finds known classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from math import isnan, nan
from typing import Any, NamedTuple, Protocol, runtime_checkable

import dask
import dask.array as da
import numpy as np
import scipy.sparse

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.kernels import row_sums
from dask_nmf.quality import clusters
from dask_nmf.quality.unlabelled import h_matrix, v_matrix, w_matrix
from dask_nmf.types import Array


@runtime_checkable
class Fit(Protocol):
    """The result of a fit, as `nmf` returns it."""

    @property
    def relative_error(self) -> float: ...

    @property
    def reconstruction_err(self) -> float: ...

    @property
    def beta_loss(self) -> float: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, repr=False)
class Quality:
    """The quality of a factorisation V ≈ W H, by the measures and names of R's package NMF.

    Attributes
    ----------
    n_components : k
    evar : explained variance, 1 - rss / Σ v²; NaN if V is unknown
    rss : residual sum of squares, ‖V - W H‖²; NaN if V is unknown. Both are over the entries that count in
        the fit, with their weights, if they come from its result.
    sparseness_W : mean sparseness of the rows of W, from 0 (all components alike) to 1 (one component); it
        depends on how the scales of components are split between W and H, as it does in R
    sparseness_H : mean sparseness of the rows of H, from 0 (all columns alike) to 1 (one column)
    purity : share of rows whose class is the most frequent one of their cluster; NaN without labels
    entropy : how mixed classes are within clusters, from 0 (pure) to 1; NaN without labels

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.quality import quality
    >>> found = quality(nmf([[1.0, 2.0], [3.0, 6.0]], 1))
    >>> found.n_components, round(found.evar, 3)
    (1, 1.0)
    """

    n_components: int
    evar: float
    rss: float
    sparseness_W: float
    sparseness_H: float
    purity: float = nan
    entropy: float = nan

    def to_dict(self) -> dict[str, float | None]:
        """Return the measures by their names, as JSON takes them: None for what is unknown."""
        return {name: None if isnan(value) else value for name, value in asdict(self).items()}

    def __repr__(self) -> str:
        """Return one line with the measures that are known."""
        known = {name: value for name, value in self.to_dict().items() if value is not None}
        return f"Quality({', '.join(f'{name}={value:.6g}' for name, value in known.items())})"


def quality(factors: Fit | Iterable[Any], labels: Any = None, *, V: Any = None) -> Quality:
    """Return the quality of a factorisation; W is read once, block by block.

    Parameters
    ----------
    factors : the result of a fit, or W and H. W is a NumPy or Dask array (m, k), H an array (k, n).
    labels : the known class of each row of V, (m,), numbers or strings. Rows are then grouped by their
        largest component (see `cluster_indices`), and the groups are compared with the classes.
    V : (m, n), a NumPy array or sparse matrix, for `rss` and `evar`. They are in the result of a fit by the
        squared error, which needs no V. Without V they are NaN for another loss, and for W and H alone.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a label is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import quality
    >>> W, H = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), np.eye(2)
    >>> found = quality((W, H), labels=["a", "a", "b"], V=W @ H)
    >>> float(found.evar), found.purity
    (1.0, 1.0)
    """
    W, H = factors
    W, h = w_matrix(W), np.asarray(h_matrix(H))
    _check_shapes(W, h)
    sums = _scan(W, h, labels)
    explained, squares = _fit_of(factors) if V is None else (evar(V, W, h), rss(V, W, h))
    return Quality(
        len(h),
        explained,
        squares,
        sums.mean_sparseness,
        sparseness(h),
        nan if labels is None else clusters.purity_of(sums.counts),
        nan if labels is None else clusters.entropy_of(sums.counts),
    )


def rss(V: Any, W: Any, H: Any) -> float:
    """Return the residual sum of squares ‖V - W H‖² (``rss`` of R's package NMF).

    Parameters
    ----------
    V : (m, n), a NumPy array or sparse matrix. A sparse V is not made dense; its sum is right to 1e-14 Σ v².
    W, H : (m, k) and (k, n); of a `DataArray`, as `nmf` returns them

    Raises
    ------
    ValueError
        If the shapes do not fit, or V has entries that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import rss
    >>> float(rss(np.array([[1.0, 2.0]]), np.array([[1.0]]), np.array([[1.0, 1.0]])))
    1.0
    """
    w, h = np.asarray(w_matrix(W), np.float64), np.asarray(h_matrix(H), np.float64)
    v = _in_memory(v_matrix(V, h.shape[-1]))
    _check_shapes(w, h)
    if v.shape != (len(w), h.shape[1]):
        raise ValueError(f"V is {v.shape} and W H is {(len(w), h.shape[1])}; give the V that was fitted")
    return max(row_sums.residual(v, np.ascontiguousarray(w), np.ascontiguousarray(h)), 0.0)


def evar(V: Any, W: Any, H: Any) -> float:
    """Return the explained variance 1 - ‖V - W H‖² / ‖V‖² (``evar`` of R's package NMF).

    It is 1 for an exact factorisation, and NaN for a V of zeros. Parameters and errors are those of `rss`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf.quality import evar
    >>> float(evar(np.array([[1.0, 2.0]]), np.array([[1.0]]), np.array([[1.0, 1.0]])))
    0.8
    """
    total = _sum_of_squares(_in_memory(V))
    return 1 - rss(V, W, H) / total if total > 0 else nan


def sparseness(x: Any) -> float:
    """Return Hoyer's sparseness of a vector, or the mean sparseness of the rows of a matrix, in [0, 1].

    (√n - Σ|x| / √Σx²) / (√n - 1), which is 0 if all entries are alike and 1 if only one is not 0 (Hoyer,
    JMLR 5:1457, 2004). ``sparseness`` of R's package NMF takes columns, because its V is transposed. Rows of
    zeros have no sparseness, and are left out. The result is NaN if no row is left, or if n is 1.

    Examples
    --------
    >>> from dask_nmf.quality import sparseness
    >>> float(sparseness([0.0, 0.0, 0.0, 5.0])), float(sparseness([1.0, 1.0, 1.0, 1.0]))
    (1.0, 0.0)
    """
    return _sparseness_sums(np.atleast_2d(np.asarray(h_matrix(x)))).mean_sparseness


class RowSums(NamedTuple):
    """Sums over rows of W."""

    sparseness: float  # Σ sparseness
    rows: int  # rows that have a sparseness
    counts: Array  # rows of each cluster and class, (k + 1, classes)

    @property
    def mean_sparseness(self) -> float:
        return self.sparseness / self.rows if self.rows else nan


def _add(first: RowSums, second: RowSums) -> RowSums:
    return RowSums(
        first.sparseness + second.sparseness, first.rows + second.rows, first.counts + second.counts
    )


def _sparseness_sums(x: Array) -> RowSums:
    rows = np.abs(x.astype(np.float64))
    largest = rows.max(axis=1, initial=0.0)
    rows = rows[largest > 0] / largest[largest > 0, None]  # so that no square underflows
    root = np.sqrt(rows.shape[1])
    if root <= 1 or not len(rows):
        return RowSums(0.0, 0, np.zeros((1, 1), np.int64))
    each = (root - rows.sum(axis=1) / np.linalg.norm(rows, axis=1)) / (root - 1)
    return RowSums(float(np.clip(each, 0, 1).sum()), len(rows), np.zeros((1, 1), np.int64))


def _scan(W: Any, h: Array, labels: Any) -> RowSums:
    """Return the sums over all rows of W, from one look at each block of it."""
    numbers, classes = (None, 1) if labels is None else clusters.class_numbers(labels)
    if numbers is not None and len(numbers) != W.shape[0]:
        raise ValueError(f"there are {len(numbers)} labels and {W.shape[0]} rows of W; give one for each row")
    sizes = clusters.component_sizes(h)
    if not isinstance(W, da.Array):
        return _sums_of(np.asarray(W), sizes, numbers, classes)
    whole_rows = W.rechunk({1: -1})
    edges = np.cumsum((0, *whole_rows.chunks[0]))
    parts = [
        dask.delayed(_sums_of)(block, sizes, None if numbers is None else numbers[first:last], classes)
        for block, first, last in zip(whole_rows.to_delayed().ravel(), edges, edges[1:], strict=False)
    ]
    sums: list[RowSums] = compute_watched(parts)
    return reduce(_add, sums)


def _sums_of(w: Array, sizes: Array, numbers: Array | None, classes: int) -> RowSums:
    sums = _sparseness_sums(w)
    if numbers is None:
        return sums
    of_rows = clusters.largest_components(w, sizes)
    return sums._replace(counts=clusters.count_pairs(of_rows, numbers, len(sizes), classes))


def _fit_of(factors: Fit | Iterable[Any]) -> tuple[float, float]:
    """Return evar and rss of a result, or NaN for both if its loss, or its V, is another or unknown."""
    if not isinstance(factors, Fit) or factors.beta_loss != 2:
        return nan, nan
    return 1 - factors.relative_error**2, factors.reconstruction_err**2


def _in_memory(V: Any) -> Any:
    """Return V in memory, as a float64 array or CSR array; refuse other kinds and entries not finite."""
    if isinstance(V, da.Array):
        raise TypeError("V is a Dask array; give V in memory, or the result of a fit by the squared error")
    if scipy.sparse.issparse(V):
        v = scipy.sparse.csr_array(V, dtype=np.float64)
    else:
        v = np.ma.filled(np.ma.asarray(V, np.float64), np.nan)  # what is masked is no entry
    if not np.isfinite(v.data if scipy.sparse.issparse(v) else v).all():
        raise ValueError("V has entries that are not finite; give the result of its fit without V")
    return v


def _sum_of_squares(v: Any) -> float:
    return row_sums.sum_of_squares(v.data if scipy.sparse.issparse(v) else v)


def _check_shapes(W: Any, h: Array) -> None:
    if np.ndim(W) != 2 or h.ndim != 2 or W.shape[1] != len(h) or not len(h):
        raise ValueError(f"W is {np.shape(W)} and H {h.shape}; they must be (m, k) and (k, n)")
