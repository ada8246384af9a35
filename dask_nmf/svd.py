"""Starts from singular vectors (NNDSVD: Boutsidis & Gallopoulos 2008): the algebra between reads of V.

A read takes Y = V Qᵀ for some directions Q in each panel and adds up YᵀV and YᵀY: these are the sums of a
pass whose W is Y. From them `sharpen` has the right singular vectors of V projected on the range of Y
(Halko, Martinsson & Tropp 2011); nothing has the rows of V. One read more, by `halves`, for what NNDSVD
asks of the left ones: the norms of their positive and of their negative parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from dask_nmf import draws
from dask_nmf.kernels import Array, Block, Sums

SPARE = 10  # directions beside two a component: what decays slowly needs them
STEPS = 6  # of the power method, on the sample
ROUNDING = (
    10.0  # in machine epsilons of the panels: directions shorter than this share of the longest are noise
)
LEAST = 1e-7  # the same for a gram matrix in float64
TIED = 1e-3  # relative difference that does not decide
TRIFLE = 1e-6  # of a factor's mean scale: less is a zero


class Slot(Protocol):
    """Where a W is kept, by rows."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


@dataclass(frozen=True)
class Whole:
    """A place of u, (rows, k), that is written as its parts max(u, 0) and max(−u, 0), (rows, 2k)."""

    slot: Slot

    def read(self, first: int, last: int) -> Array:
        u = self.slot.read(first, last)
        return _parts(u)

    def write(self, first: int, w: Array) -> None:
        k = w.shape[1] // 2
        self.slot.write(first, w[:, :k] - w[:, k:])


class Side(NamedTuple):
    """How a factor is made of its singular vectors, one a component."""

    scales: Array  # (k,); 0 where there is no such component
    signs: Array  # (k,), of the part that is taken; 0: the vector is of one sign, and both are

    def factor(self, vectors: Array, floor: float) -> Array:
        """The factor, (rows, k), from vectors; what is below ``floor`` is 0."""
        parts = np.where(self.signs == 0, np.abs(vectors), np.maximum(self.signs * vectors, 0))
        found = self.scales * parts
        return np.asarray(np.where(found < floor, 0.0, found))


@dataclass(frozen=True)
class Fill:
    """What stands for the zeros: nothing, the mean of V, or random numbers of a hundredth of it."""

    init: str
    mean: float
    seed: int

    def __call__(self, factor: Array, first: int, stream: int) -> Array:
        """Rows of a factor from the global index ``first``, (rows, k), with its zeros filled."""
        if self.init == "nndsvd":
            return factor
        rows, k = factor.shape
        filler: float | Array = self.mean
        if self.init == "nndsvdar":
            filler = self.mean / 100 * draws.half_normal(self.seed, stream, np.arange(first, first + rows), k)
        return np.where(factor == 0, filler, factor)


def width(rank: int) -> int:
    """Most columns of a Y for ``rank`` components."""
    return 2 * rank + SPARE


def along(v: Block, h: Array, w: Array | None) -> Array:
    """The `Weigher` that takes Y = v hᵀ for its W."""
    return np.asarray(v @ h.T)


def halves(v: Block, h: Array, w: Array | None) -> Array:
    """The `Weigher` that takes the positive and the negative parts of v hᵀ, (r, 2k), for its W."""
    return _parts(along(v, h, w))


def _parts(u: Array) -> Array:
    return np.asarray(np.maximum(np.hstack([u, -u]), 0))


def random_directions(rank: int, shape: tuple[int, int], seed: int) -> Array:
    """Gaussian directions for a V of ``shape``, (width, n) or as many as there can be."""
    return draws.normal(seed, draws.DIRECTIONS, np.arange(shape[1]), min(width(rank), *shape)).T


def of_sample(sweep: Callable[[Array], Sums], begun: Array, dtype: np.dtype[Any]) -> Array:
    """Directions that matter to a sample of V's rows, in float64, of the number and the shape of those given.

    ``sweep`` takes the sums over the sample for some directions. Where the sample has fewer than are wanted,
    the rest is as it began.
    """
    found = begun
    for _ in range(STEPS):
        found = sharpen(sweep(found), dtype)
        if len(found) < len(begun):
            together = np.vstack([found, begun[len(found) :]])
            found = np.ascontiguousarray(np.linalg.qr(together.T)[0].T)
    return found


def sharpen(totals: Sums, dtype: np.dtype[Any]) -> Array:
    """Right singular vectors of V projected on the range of Y, the longest first, (≤ width, n), float64.

    ``dtype`` is that of the panels: it tells what is noise.
    """
    seen = _axes(totals.gram, totals.num, dtype)  # V from an orthonormal basis of that range
    return _axes(seen @ seen.T, seen, dtype)


def _axes(gram: Array, rows: Array, dtype: np.dtype[Any]) -> Array:
    """``rows`` turned along the axes of ``gram`` and divided by their lengths, the longest first.

    With gram = X Xᵀ = Z S² Zᵀ that is S⁻¹ Zᵀ ``rows``: for X itself its right singular vectors. Gram matrices
    and not decompositions, as these take ten times as long.
    """
    squares, z = np.linalg.eigh(gram)
    lengths = np.sqrt(np.maximum(squares, 0))
    kept = lengths > max(ROUNDING * float(np.finfo(dtype).eps), LEAST) * lengths.max(initial=0)
    return np.asarray((z[:, kept] / lengths[kept]).T[::-1] @ rows)


def oriented(vectors: Array) -> Array:
    """The same vectors, of each pair ±x the one whose first large entry is positive."""
    if not vectors.size:
        return vectors
    sizes = np.abs(vectors)
    first = np.argmax(sizes >= (1 - TIED) * sizes.max(axis=1, keepdims=True), axis=1)
    signs = np.where(vectors[np.arange(len(vectors)), first] < 0, -1.0, 1.0)
    return signs[:, None] * vectors


def sides(squares: Array, right: Array) -> tuple[Side, Side]:
    """How W's and H's columns and rows are made: W of V rightᵀ, H of ``right`` (k, n).

    Of a singular triple σ u xᵀ that part is taken, positive or negative, that has the greater ‖u±‖ ‖x±‖.

    Parameters
    ----------
    squares : ‖max(V x, 0)‖² of each right vector x, then ‖max(−V x, 0)‖², (2k,).
    """
    k = len(right)
    lefts = np.sqrt(squares.reshape(2, k))
    rights = np.sqrt([np.square(np.maximum(sign * right, 0)).sum(axis=1) for sign in (1, -1)])
    products = lefts * rights  # σ ‖u±‖ ‖x±‖
    signs = np.where(products[1] > (1 + TIED) * products[0], -1.0, 1.0)
    taken = (signs < 0).astype(int), np.arange(k)
    ends, sizes = [lefts[taken], rights[taken]], np.sqrt(products[taken])
    signs[0] = 0  # Perron & Frobenius: the first pair is of one sign
    both = np.hypot(*lefts[:, 0])
    ends[0][0], ends[1][0], sizes[0] = both, np.linalg.norm(right[0]), np.sqrt(both)
    left, other = (np.divide(sizes, end, out=np.zeros(k), where=end > 0) for end in ends)
    return Side(left, signs), Side(other, signs)
