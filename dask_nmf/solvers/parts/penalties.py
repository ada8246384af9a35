"""The penalties on W and H, and the scale between the two factors.

``W[:, t] → c W[:, t]`` with ``H[t] → H[t] / c`` leaves W H as it is, but not the penalties: component t then
costs ``a₁ c + a₂ c² + b₁ / c + b₂ / c²``, convex in log c, where a₁ and a₂ are the L1 and L2 penalties of
W[:, t], and b₁ and b₂ those of H[t]. A fit takes the c that minimises this. Otherwise the more
expensive factor would lose components, because the passes move the scale towards the minimum only slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import RowPenalty
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.options.settings import Settings
from dask_nmf.types import Array, Orientation

FAINTEST = 1e-12  # times the penalty on the other factor: below it, factors would leave the range of float32
HEAVIEST = 1e18  # the largest penalty, for a V of mean 1
NEWTON_STEPS = 60  # the most steps; each at least halves the distance
EVEN = 1e-4  # a change of log c too small to matter


Norms = tuple[float | Array, float | Array]  # Σ x² and Σ x of each component of a factor, (k,), weighed


@dataclass(frozen=True)
class Penalty:
    """The penalties ``left Σ ‖w_i‖² + 2 left_l1 Σ |w_i| + right Σ ‖h_j‖² + 2 right_l1 Σ |h_j|``.

    The sums are over the entries of V that count. If all count, the first term is ``left · n ‖W‖²``, and so
    on: these are twice scikit-learn's terms, because our loss is twice its loss.
    """

    left: float = 0.0  # on the factor that the panels hold
    right: float = 0.0  # on the factor that they are given
    left_l1: float = 0.0
    right_l1: float = 0.0
    left_unit: float = 1.0  # the left factor of the user, divided by that of the fit
    right_unit: float = 1.0  # the right factor of the user, divided by that of the fit

    def of(self, totals: Sums, h: Array) -> float:
        """Return the value of the penalties, from the sums of W and from H (k, n)."""
        return float(np.sum(self._by_component(*norms_of(totals, h))))

    def equations(self, totals: Sums, k: int) -> tuple[Array, Array]:
        """Return the normal equations for Hᵀ: right sides (n, k), and a Gram (k, k) or one a row, packed."""
        num = totals.num.T
        if self.right_l1:
            num = num - self.right_l1 * np.reshape(totals.column_weight, (-1, 1))
        return num, gram_matrices.add_ridge(totals.gram, k, self.right * totals.column_weight)

    def balance(self, left: Norms, right: Norms) -> tuple[Array, float]:
        """Return the best scale of each component of W, (k,), and the penalties after W c and H / c.

        ``left`` and ``right`` are the `Norms` of W and H. The scale is 1 if it is the best already, or if
        the component is zero in one factor.
        """
        if self.left == self.right == self.left_l1 == self.right_l1 == 0:
            return np.ones(np.broadcast(left[0], right[0]).shape), 0.0
        parts = self._by_component(left, right)
        scales = best_scales(parts)
        powers = np.stack([scales, scales**2, 1 / scales, 1 / scales**2])
        return scales, float(np.sum(parts * powers))

    def without_dead(self, totals: Sums, h: Array) -> Array:
        """Return H (k, n), if it is penalised, with zeros in the components whose W has zero sums."""
        if self.right == self.right_l1 == 0:
            return h
        return np.where(np.reshape(totals.w_l1_norm, (-1, 1)) > 0, h, h.dtype.type(0))

    @property
    def bounded(self) -> Penalty:
        """The penalties, each at least `FAINTEST` times that on the other factor.

        With a penalty on one factor only, the loss has no minimum, because the other one grows at no cost.
        """
        (left, right), (left_l1, right_l1) = (
            (max(a, FAINTEST * b), max(b, FAINTEST * a))
            for a, b in ((self.left, self.right), (self.left_l1, self.right_l1))
        )
        return Penalty(left, right, left_l1, right_l1, self.left_unit, self.right_unit)

    def in_balanced_units(self, size: float) -> Penalty:
        """Return the penalties, `bounded`, on W / c and H c, with the c that balances the two.

        The factors of the fit then have entries of one size, ``size``, whatever the penalties. c is a power
        of two, so that the change of units causes no rounding.
        """
        own = self.bounded
        left, right, left_l1, right_l1 = own.left, own.right, own.left_l1, own.right_l1
        parts = np.array([[2 * left_l1 * size], [left * size**2], [2 * right_l1 * size], [right * size**2]])
        unit = 2.0 ** round(float(np.log2(best_scales(parts)[0])))
        return own.in_units(unit, 1 / unit)

    def in_units(self, left: float, right: float, exponent: float = 0.0) -> Penalty:
        """Return the penalties on W / ``left`` and H / ``right``, for a loss 2^``exponent`` times as large.

        The units are powers of √2, and the exponent is any number. A penalty is at most `HEAVIEST`, which
        makes a factor zero just as any larger one does.
        """
        a, b = (round(2 * math.log2(unit)) / 2 for unit in (left, right))  # exact powers of √2
        powers = (self.left, 2 * a), (self.right, 2 * b), (self.left_l1, a), (self.right_l1, b)
        parts = (
            size and min(size * scaling.power(2.0, exponent + power), HEAVIEST) for size, power in powers
        )
        on_left, on_right, left_l1, right_l1 = parts
        units = self.left_unit * left, self.right_unit * right
        return Penalty(on_left, on_right, left_l1, right_l1, *units)

    @property
    def without_lasso(self) -> Penalty:
        """The L2 penalties alone."""
        return replace(self, left_l1=0.0, right_l1=0.0)

    def scales_of_right(self, right: Array, product: float) -> Array:
        """Return the best scale of each component, (k,), from a right factor (k, n) with an unknown left one.

        ``product`` is the mean entry of W H for one component.
        """
        mean = right.mean(axis=1, dtype=np.float64)
        other = np.divide(product, mean, out=np.zeros_like(mean), where=mean > 0)
        squares = least_squares.row_norms(right)[0] / right.shape[1]
        on_left = 2 * self.left_l1 * other, self.left * other**2
        return best_scales(np.stack([*on_left, 2 * self.right_l1 * mean, self.right * squares]))

    @property
    def turned(self) -> Penalty:
        """The penalties with the two factors swapped."""
        return Penalty(self.right, self.left, self.right_l1, self.left_l1, self.right_unit, self.left_unit)

    def _by_component(self, left: Norms, right: Norms) -> Array:
        """Return the L1 and L2 penalties of each component, those of W and then those of H, (4, k)."""
        parts = (
            2 * self.left_l1 * left[1],
            self.left * left[0],
            2 * self.right_l1 * right[1],
            self.right * right[0],
        )
        return np.stack(np.broadcast_arrays(*parts))


NO_PENALTY = Penalty()


def penalty_of(settings: Settings, orientation: Orientation) -> Penalty:
    """Return the penalties of the settings in panel orientation, in the units of the user."""
    shares = 1 - settings.l1_ratio, settings.l1_ratio
    alphas = orientation.turn(settings.alphas)
    return Penalty(*(share * alpha for share in shares for alpha in alphas))


def norms_of(totals: Sums, h: Array) -> tuple[Norms, Norms]:
    """Return the norms of the components of W, from its sums, and of H (k, n)."""
    return (totals.w_sq_norm, totals.w_l1_norm), row_sums.component_norms(h.T, totals.column_weight)


def best_scales(parts: Array) -> Array:
    """Return ``argmin_{c > 0} a₁ c + a₂ c² + b₁ / c + b₂ / c²``, (k,), for the columns of ``parts``, (4, k).

    With u = log c, the minimum is where ``log(a₁ eᵘ + 2 a₂ e²ᵘ) = log(b₁ e⁻ᵘ + 2 b₂ e⁻²ᵘ)``. The difference
    of the two rises with u by 2 to 4, so Newton's method always converges. If all terms are L1, or all are
    L2, one step is exact: c = √(b₁ / a₁), c = ⁴√(b₂ / a₂). If a or b is zero, c is 1.
    """
    scales = np.ones(parts.shape[1])
    there = (parts[:2].any(axis=0)) & (parts[2:].any(axis=0))
    if not there.any():
        return scales
    with np.errstate(divide="ignore"):
        a1, a2, b1, b2 = np.log(parts[:, there] * [[1.0], [2.0], [1.0], [2.0]])
    u = np.zeros(len(a1))
    for _ in range(NEWTON_STEPS):
        up, down = np.logaddexp(a1 + u, a2 + 2 * u), np.logaddexp(b1 - u, b2 - 2 * u)
        step = (down - up) / (2 + np.exp(a2 + 2 * u - up) + np.exp(b2 - 2 * u - down))
        u += step
        if np.all(np.abs(step) < EVEN**2):
            break
    scales[there] = np.where(np.abs(u) < EVEN, 1.0, np.exp(u))
    return scales


def divide_components(factor: Array, scales: Array) -> Array:
    """Return a right factor (k, n) divided by the scale of each component."""
    if (scales == 1).all():
        return factor
    return np.asarray(factor / scales.astype(factor.dtype)[:, None])


def w_penalty(penalty: Penalty, v: Cells) -> RowPenalty:
    """Return the penalties of the rows of a block's W."""
    mass = v.row_weight
    return RowPenalty(penalty.left_l1 * mass, penalty.left * mass)
