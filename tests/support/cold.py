"""Ratings with cold rows and a cold column (no known entries), and their means by NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from support.matrices import Array

from dask_nmf import Result

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
COLD_ROWS, COLD_COLUMN = [5, 9], 7
OPTIONS: dict[str, Any] = {"n_components": 3, "missing": "nan", "alpha_W": 0.05, "max_iter": 4}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class Ratings(NamedTuple):
    """Ratings from 0.5 to 5, of which some are known, but none in some rows and in one column."""

    values: Array
    known: Array

    @property
    def v(self) -> Array:
        return np.where(self.known, self.values, np.nan)

    def means(self, known: Array) -> tuple[Array, Array, float]:
        """Return the means of rows, of columns and of all known ratings, by NumPy."""
        seen = np.ma.masked_array(self.values.astype(np.float64), ~known)
        sides = (seen.mean(axis=axis).filled(np.nan) for axis in (1, 0))
        return *sides, float(seen.mean())  # type: ignore[return-value]

    def predicted(self, wh: Array, known: Array) -> Array:
        """Return the prediction expected for every cell: W H, or means where a row or column is cold."""
        rows, columns, everything = self.means(known)
        filled = wh.astype(np.float64)
        cold = np.isnan(columns)
        filled[:, cold] = rows[:, None]
        filled[np.isnan(rows)] = np.where(cold, everything, columns)
        return filled


def ratings(shape: tuple[int, int]) -> Ratings:
    random = np.random.default_rng(0)
    values = random.gamma(2, size=(shape[0], 3)) @ random.gamma(2, size=(3, shape[1])) / 4
    known = random.random(shape) < 0.4
    known[COLD_ROWS], known[:, COLD_COLUMN] = False, False
    return Ratings(np.clip(values, 0.5, 5).astype(np.float32), known)


def product(result: Result) -> Array:
    return np.asarray(result.W) @ np.asarray(result.H)


def best_of(given_v: Ratings, wh: Array, count: int) -> tuple[Array, Array]:
    """Return the best columns of each row and their values, by a sort of all predictions.

    Cold columns and entries that V has are left out.
    """
    values = given_v.predicted(wh, given_v.known)
    values[given_v.known] = -1
    values[:, COLD_COLUMN] = -1
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(values, order, axis=1)
    return np.where(best < 0, -1, order), np.where(best < 0, np.nan, best)
