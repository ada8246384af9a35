"""Starts from singular vectors (NNDSVD: Boutsidis & Gallopoulos 2008), in two reads of V.

1. A read takes Y = V Qᵀ for some directions Q in each panel, and adds up YᵀV and YᵀY. From these sums,
   `right_singular_vectors` finds those of V projected on the range of Y (Halko, Martinsson & Tropp 2011).
   Y itself stays in the panels. Q comes from the same method on the sample of the first read.
2. A read takes U = V Xᵀ for these vectors X, and adds up the norms of the positive and of the negative parts
   of the columns of U, which NNDSVD needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dask_nmf import rng
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.fitting.starts.worker_tasks import Projection, SignedNorms
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec
from dask_nmf.types import Array
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

SPARE = 10  # directions beyond two a component, for slowly decaying singular values
STEPS = 6  # steps of the power method on the sample
ROUNDING = 10.0  # times the machine epsilon of the panels: relatively shorter directions are noise
LEAST = 1e-7  # the least such share, because a Gram matrix squares it in float64
TIED = 1e-3  # relative difference of norms that decides nothing
TRIFLE = 1e-6  # times a factor's mean size: smaller entries become 0


class Side(NamedTuple):
    """The scales and signs by which singular vectors, one a component, become a factor."""

    scales: Array  # (k,); 0 if there is no such component
    signs: Array  # (k,), of the part that is taken; 0: the whole vector, which has one sign

    def factor(self, vectors: Array, floor: float) -> Array:
        """Return the factor, (rows, k), from vectors (rows, k); entries below ``floor`` become 0."""
        parts = np.where(self.signs == 0, np.abs(vectors), np.maximum(self.signs * vectors, 0))
        factor = self.scales * parts
        return np.asarray(np.where(factor < floor, 0.0, factor))


@dataclass(frozen=True)
class Fill:
    """The replacement of zeros: none, the mean of V, or random numbers of a hundredth of its size."""

    init: str
    means: tuple[float, float]  # the mean of V in the units of the left factor, and in those of the right one
    seed: int
    streams: tuple[int, int]  # random streams of the left factor and of the right one
    level: float  # the mean of the scaled V

    def __call__(self, factor: Array, first: int, stream: int) -> Array:
        """Return rows of a factor, (rows, k), from the global index ``first``, with zeros replaced."""
        if self.init == "nndsvd":
            return factor
        rows, k = factor.shape
        mean = self.means[self.streams.index(stream)]
        filler: float | Array = mean
        if self.init == "nndsvdar":
            filler = mean / 100 * rng.half_normal(self.seed, stream, np.arange(first, first + rows), k)
        return np.where(factor == 0, filler, factor)


def width(rank: int) -> int:
    """Return the most directions, columns of Y, for ``rank`` components."""
    return 2 * rank + SPARE


def sampled_directions(candidates: Candidates, draw: SampleSpec, rank: int, scale: float) -> Array:
    """Return the main directions of a sample of rows of V, orthonormal, (≤ width, n), float64.

    If the sample has fewer directions, the rest is random. V is multiplied by ``scale``.
    """
    sample = row_sample.draw_sample(candidates._replace(block=masking.unwrap(candidates.block)), draw)
    sample = scaling.scaled_copy(sample, scale)
    logger.info("singular vectors of a sample of %s, for the start", counted(sample.shape[0], "panel row"))
    columns, dtype = sample.shape[1], sample.dtype
    number = min(width(rank), draw.rows, columns)
    directions = random = rng.normal(draw.seed, rng.Stream.DIRECTIONS, np.arange(columns), number).T
    rows, spec = row_sample.split_sample(sample), PassSpec(Projection().solve_w, Projection())
    with InMemoryEngine(rows) as engine:
        for _ in range(STEPS):
            directions = right_singular_vectors(engine.run_pass(directions.astype(dtype), spec), dtype)
            if len(directions) < number:
                together = np.vstack([directions, random[len(directions) :]])
                directions = np.ascontiguousarray(np.linalg.qr(together.T)[0].T)
    return directions


def nndsvd_factors(
    panels: PanelEngine, rank: int, directions: Array, fill: Fill, new_store: Callable[[], FactorStore] | None
) -> Array:
    """Return the right factor of NNDSVD, (k, n), after two reads of V; the left one goes to a new store."""
    # all entries count alike in a squared error
    scale, panels = panels.scale, PanelEngine(panels.matrix, panels.edges)
    panels.scale = scale
    dtype, projection, norms = panels.matrix.dtype, Projection(), SignedNorms()
    totals = panels.run_pass(directions.astype(dtype), PassSpec(projection.solve_w, projection))
    vectors = fix_signs(right_singular_vectors(totals, dtype)[:rank])
    right = np.zeros((rank, panels.matrix.layout.columns))
    right[: len(vectors)] = vectors
    projections = None if new_store is None else new_store()
    totals = panels.run_pass(right.astype(dtype), PassSpec(norms.solve_w, norms, w_out=projections))
    left, other = sides(np.sqrt(totals.gram), right)
    floor = TRIFLE * float(np.sqrt(fill.level / rank))
    if new_store is not None and projections is not None:
        store = new_store()
        for first, last in pairwise(panels.edges):
            w = left.factor(projections.read(first, last), floor)
            store.write(first, fill(w, first, fill.streams[0]).astype(dtype))
    return fill(other.factor(right.T, floor), 0, fill.streams[1]).T


def right_singular_vectors(totals: Sums, dtype: np.dtype[Any]) -> Array:
    """Return right singular vectors of V projected on the range of Y, (≤ width, n), float64.

    They are in the order of falling singular values. ``dtype`` is that of the panels, whose rounding is the
    limit of noise.
    """
    projected = _axes(totals.gram, totals.num, dtype)  # V in an orthonormal basis of that range
    return _axes(projected @ projected.T, projected, dtype)


def _axes(gram: Array, rows: Array, dtype: np.dtype[Any]) -> Array:
    """Return ``rows`` along the principal axes of ``gram``, divided by their lengths, the longest first.

    With gram = X Xᵀ = Z S² Zᵀ the result is S⁻¹ Zᵀ ``rows``; for X itself these are its right singular
    vectors. Decompositions of X instead of Gram matrices would take ten times as long.
    """
    squares, z = np.linalg.eigh(gram)
    lengths = np.sqrt(np.maximum(squares, 0))
    large = lengths > max(ROUNDING * float(np.finfo(dtype).eps), LEAST) * lengths.max(initial=0)
    return np.asarray((z[:, large] / lengths[large]).T[::-1] @ rows)


def fix_signs(vectors: Array) -> Array:
    """Return the vectors with their signs chosen so that the first large entry of each is positive."""
    if not vectors.size:
        return vectors
    sizes = np.abs(vectors)
    first = np.argmax(sizes >= (1 - TIED) * sizes.max(axis=1, keepdims=True), axis=1)
    signs = np.where(vectors[np.arange(len(vectors)), first] < 0, -1.0, 1.0)
    return signs[:, None] * vectors


def sides(lefts: Array, right: Array) -> tuple[Side, Side]:
    """Return the sides of both factors: the left one is made of V rightᵀ, the right one of ``right`` (k, n).

    A component takes the part of its singular triple σ u xᵀ, positive or negative, with the larger
    ‖u±‖ ‖x±‖.

    Parameters
    ----------
    lefts : ‖max(V x, 0)‖ and ‖max(−V x, 0)‖ for each right vector x, (2, k).
    """
    k = len(right)
    rights = np.sqrt([np.square(np.maximum(sign * right, 0)).sum(axis=1) for sign in (1, -1)])
    products = lefts * rights  # σ ‖u±‖ ‖x±‖
    signs = np.where(products[1] > (1 + TIED) * products[0], -1.0, 1.0)
    taken = (signs < 0).astype(int), np.arange(k)
    ends, sizes = [lefts[taken], rights[taken]], np.sqrt(products[taken])
    signs[0] = 0  # by Perron and Frobenius, the first pair has one sign
    both = np.hypot(*lefts[:, 0])
    ends[0][0], ends[1][0], sizes[0] = both, np.linalg.norm(right[0]), np.sqrt(both)
    left, other = (np.divide(sizes, end, out=np.zeros(k), where=end > 0) for end in ends)
    return Side(left, signs), Side(other, signs)
