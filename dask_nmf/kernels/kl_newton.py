"""Newton's method for Kullback & Leibler's divergence, row by row."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.divergence import RowPenalty, dot, entry_divergence, sum_over_cells
from dask_nmf.kernels.linalg.nnls import solve_packed
from dask_nmf.types import Array

MOST_STEPS = 50  # steps of Newton's method for a row at most

MOST_SWEEPS = 100  # sweeps of coordinate descent in a step at most

LEAST = 0.1  # share of each x f that a step must leave, or it is halved: near 0 the model is worth nothing

EXACT = 1e-5  # a tolerance; with it or a smaller one, steps in which descent is slow are solved exactly

CREEPS = 0.4  # descent is slow if its last sweep moved a row by more than this share of the previous, squared

CLOSE = 0.1  # descent ends when a sweep moves a row by at most this share of its first sweep


def solve(
    cells: Cells, factor: Array, ridge: RowPenalty, floor: float, tol: float, start: Array | None = None
) -> Array:
    """Return ``argmin_{x ≥ 0} d_1(v | x fᵀ)`` with penalties, for each row, (rows, k), float64.

    In Newton's method, coordinate descent reduces the quadratic model of the loss, and a step that raises the
    loss or leaves the reach of the model is halved. Each row begins at a multiplicative update of equal
    entries, or at its row of ``start``, (rows, k), if the loss is lower there. A row is done when a step is
    expected to gain at most ``tol²`` of what the first one was, or of Σ v.
    """
    factor = np.ascontiguousarray(factor, np.float64)
    x = np.zeros((cells.shape[0], factor.shape[1]))
    begun = x[:0] if start is None else np.ascontiguousarray(start, np.float64)
    whole = cells.whole_sums(factor)
    _solve(*cells[:4], cells.implicit_zeros, factor, *whole, *ridge, begun, x, floor, tol)
    return x


def quadratic_models(cells: Cells, factor: Array, x: Array, floor: float) -> tuple[Array, Array, float]:
    """Return the quadratic model of d_1 about each row of x, as normal equations, and 2 D(v | x fᵀ).

    Returns
    -------
    (rows, k); packed matrices (see `masked`); float64.
    """
    factor = np.ascontiguousarray(factor, np.float64)
    x = np.ascontiguousarray(x, np.float64)
    whole, groups = cells.whole_sums(factor)
    num, gram, loss = _models(*cells[:4], cells.implicit_zeros, factor, whole, groups, x, floor)
    return num, gram, 2 * (loss + sum_over_cells(cells, x, factor))


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _model(
    values: Array, weights: Array, zeros: bool, rows: Array, curved: Array, floor: float, x: Array,
    slope: Array, square: Array, products: Array,
) -> float:  # fmt: skip
    """Add −∇d_1(x) to the slope, replace the square by the Hessian, and return d_1(x).

    ``rows`` has the factor's row for each cell, ``curved`` is scratch memory of that shape, and ``products``
    receives x f of each cell.
    """
    total, k = 0.0, len(x)
    for p in range(len(rows)):
        v = np.float64(values[p])
        weight = np.float64(weights[p]) if len(weights) > 0 else 1.0
        y = 0.0
        for t in range(k):
            y += x[t] * rows[p, t]
        y = products[p] = max(y, floor)
        total += weight * entry_divergence(v, y, 1.0, zeros)
        ratio = weight * v / y
        pull, curve = ratio - (0.0 if zeros else weight), ratio / y
        for t in range(k):
            slope[t] += pull * rows[p, t]
            curved[p, t] = curve * rows[p, t]
    np.dot(rows.T, curved, square)
    return total


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _longest(indptr: Array) -> int:
    most = 0
    for i in range(len(indptr) - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    return most


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _gather(indices: Array, factor: Array, rows: Array) -> None:
    for p in range(len(indices)):
        for t in range(factor.shape[1]):
            rows[p, t] = factor[indices[p], t]


@compiled(fastmath={"contract", "reassoc"})
def _models(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, factor: Array, whole: Array,
    groups: Array, x: Array, floor: float,
) -> tuple[Array, Array, float]:  # fmt: skip
    rows, k = x.shape
    num, gram, square = np.zeros((rows, k)), np.zeros((rows, k * (k + 1) // 2)), np.zeros((k, k))
    total = 0.0
    most = _longest(indptr)
    room, curved, products = np.empty((most, k)), np.empty((most, k)), np.empty(most)
    for i in range(rows):
        if zeros:
            num[i] -= whole[groups[i]]
        a, b = indptr[i], indptr[i + 1]
        _gather(indices[a:b], factor, room)
        total += _model(
            values[a:b],
            weights[a:b],
            zeros,
            room[: b - a],
            curved[: b - a],
            floor,
            x[i],
            num[i],
            square,
            products,
        )
        at = 0
        for t in range(k):
            for u in range(k):
                num[i, t] += square[t, u] * x[i, u]
            for u in range(t + 1):
                gram[i, at] = square[t, u]
                at += 1
    return num, gram, total


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _begin(values: Array, weights: Array, zeros: bool, rows: Array, whole: Array, x: Array) -> float:
    """Set x to one multiplicative update of equal entries; return Σ ω v."""
    total = 0.0
    pull, against = np.zeros(len(x)), np.zeros(len(x))
    if zeros:
        against[:] = whole
    for p in range(len(values)):
        f = rows[p]
        weight = np.float64(weights[p]) if len(weights) > 0 else 1.0
        v = weight * values[p]
        size = f.sum()
        total += v
        if size > 0:
            for t in range(len(x)):
                pull[t] += v / size * f[t]
        if not zeros:
            for t in range(len(x)):
                against[t] += weight * f[t]
    for t in range(len(x)):
        x[t] = pull[t] / against[t] if against[t] > 0 else 0.0
    return total


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _objective(
    values: Array, weights: Array, zeros: bool, rows: Array, whole: Array, x: Array, floor: float,
    lasso: float, ridge: float,
) -> float:  # fmt: skip
    """Return d_1 of a row at x, with its penalties."""
    total = 0.0
    for p in range(len(values)):
        weight = np.float64(weights[p]) if len(weights) > 0 else 1.0
        y = max(dot(x, rows[p]), floor)
        total += weight * entry_divergence(np.float64(values[p]), y, 1.0, zeros)
    for t in range(len(x)):
        total += lasso * x[t] + 0.5 * ridge * x[t] * x[t] + (whole[t] * x[t] if zeros else 0.0)
    return total


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _step(x: Array, slope: Array, square: Array, exact: bool) -> float:
    """Reduce the quadratic model over x ≥ 0 by coordinate descent; return the gain.

    With ``exact``, the model is solved exactly if descent is slow because components are much alike.
    """
    k = len(x)
    begun, first_slope = x.copy(), slope.copy()
    first = moved = before = 0.0
    for sweep in range(MOST_SWEEPS):
        before, moved = moved, 0.0
        for t in range(k):
            if square[t, t] <= 0:
                x[t] = 0.0 if slope[t] < 0 else x[t]  # the component explains no entry > 0, and costs
                continue
            change = max(x[t] + slope[t] / square[t, t], 0.0) - x[t]
            if change == 0:
                continue
            moved += change * change * square[t, t]
            x[t] += change
            for u in range(k):
                slope[u] -= change * square[t, u]
        if sweep == 0:
            first = moved
        if moved <= CLOSE * CLOSE * first:
            break
    if exact and moved > CREEPS * before:
        _to_bottom(x, begun, first_slope, square, slope)
    gain = 0.0
    for t in range(k):
        gain += 0.5 * (first_slope[t] + slope[t]) * (x[t] - begun[t])
    return gain


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _to_bottom(x: Array, begun: Array, first_slope: Array, square: Array, slope: Array) -> None:
    """Solve the quadratic model about ``begun`` exactly, from x, and set the slope there."""
    k = len(x)
    num, packed = first_slope.copy(), np.zeros((1, k * (k + 1) // 2))
    at = 0
    for t in range(k):
        for u in range(k):
            num[t] += square[t, u] * begun[u]
        for u in range(t + 1):
            packed[0, at] = square[t, u]
            at += 1
    solve_packed(x.reshape(1, k), num.reshape(1, k), packed, np.ones(1))
    for t in range(k):
        slope[t] = num[t]
        for u in range(k):
            slope[t] -= square[t, u] * x[u]


@compiled(fastmath={"contract", "reassoc"})
def _solve(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, factor: Array, whole: Array,
    groups: Array, lasso: Array, ridge: Array, start: Array, out: Array, floor: float, tol: float,
) -> None:  # fmt: skip
    k = factor.shape[1]
    square, slope, old = np.zeros((k, k)), np.zeros(k), np.zeros(k)
    most = _longest(indptr)
    room, curved = np.empty((most, k)), np.empty((most, k))
    products, trusted = np.empty(most), np.empty(most)
    for i in range(len(out)):
        x, a, b, every = out[i], indptr[i], indptr[i + 1], whole[groups[i]]
        of_row, weigh, rows = values[a:b], weights[a:b], room[: b - a]
        _gather(indices[a:b], factor, rows)
        total = _begin(of_row, weigh, zeros, rows, every, x)
        if total <= 0:
            x[:] = 0
            continue
        if len(start) > 0:
            penalties = lasso[i], ridge[i]
            if _objective(of_row, weigh, zeros, rows, every, start[i], floor, *penalties) < _objective(
                of_row, weigh, zeros, rows, every, x, floor, *penalties
            ):
                x[:] = start[i]
        before, first = np.inf, -1.0
        trusted[:] = 0
        for _ in range(MOST_STEPS):
            slope[:] = 0
            if zeros:
                slope[:] = -every
            loss = _model(of_row, weigh, zeros, rows, curved[: b - a], floor, x, slope, square, products)
            for t in range(k):
                loss += lasso[i] * x[t] + 0.5 * ridge[i] * x[t] * x[t] + (every[t] * x[t] if zeros else 0.0)
                slope[t] -= lasso[i] + ridge[i] * x[t]
                square[t, t] += ridge[i]
            far = loss > before + 1e-14 * abs(before)
            for p in range(b - a):
                far |= products[p] < LEAST * trusted[p] and of_row[p] > 0
            if far:
                for t in range(k):
                    x[t] = 0.5 * (x[t] + old[t])
                continue
            before = loss
            old[:] = x
            trusted[: b - a] = products[: b - a]
            gain = _step(x, slope, square, tol <= EXACT)
            if first < 0:
                first = gain
            if gain <= tol * tol * max(first, total):
                break
