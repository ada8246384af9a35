"""Ratings that are mostly missing: how would each user rate the items that they have not rated?

By default ratings of a planted model: users and items have tastes and qualities, noise is added, and a
quarter of all cells is rated. Or a file of ratings, an `.npz` with `row`, `col`, `value_x100`, `shape` and
`is_test`, such as Jester's 5000 users x 100 jokes. A rating of 0 is a rating; what is not there is missing.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf import Result, nmf, predict, recommend

RANKS = (2, 5, 10)
ALPHAS = (0.03, 0.1, 0.3)  # L2 penalties on W and H
HELD_OUT = 0.1  # of the ratings for training, to choose by
SHOWN, TOP = 3, 5  # users, and items for each


class Ratings(NamedTuple):
    """Some cells of a matrix of users x items, with their ratings."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray  # ≥ 0
    shape: tuple[int, int]

    def some(self, which: np.ndarray) -> Ratings:
        return Ratings(self.rows[which], self.columns[which], self.values[which], self.shape)

    @property
    def matrix(self) -> scipy.sparse.csr_array:
        """Return V as a sparse matrix that stores these cells."""
        return scipy.sparse.csr_array((self.values, (self.rows, self.columns)), shape=self.shape)

    def error(self, guesses: np.ndarray | float) -> float:
        """Return the root mean squared error of predictions."""
        return float(np.sqrt(np.mean((self.values - guesses) ** 2)))


def planted(users: int = 2000, items: int = 150, tastes: int = 4) -> tuple[Ratings, Ratings]:
    """Return ratings of a planted model, from 0 to 10, for training and for the test."""
    random = np.random.default_rng(0)
    liked = random.gamma(0.4, size=(users, tastes)) @ random.gamma(0.4, size=(tastes, items))
    likes = 2 * liked / liked.mean() + random.gamma(2, size=items) + random.normal(0, 1, (users, items))
    rows, columns = np.nonzero(random.random(likes.shape) < 0.25)
    everything = Ratings(rows, columns, np.clip(likes[rows, columns], 0, 10).astype(np.float32), likes.shape)
    test = random.random(len(rows)) < 0.2
    return everything.some(~test), everything.some(test)


def read(file: Path) -> tuple[Ratings, Ratings]:
    """Return real ratings, from -9.95 on, shifted so that they begin at 0, for training and for the test."""
    with np.load(file) as held:
        values = ((held["value_x100"].astype(np.int32) + 995) / 100).astype(np.float32)
        users, items = held["shape"].tolist()
        everything = Ratings(held["row"], held["col"], values, (users, items))
        test = held["is_test"].astype(bool)
    return everything.some(~test), everything.some(test)


def biases(known: Ratings, asked: Ratings) -> np.ndarray:
    """Return predictions from the overall mean and the deviations of item and user from it."""
    mean = known.values.mean()
    guesses, rest = np.full(len(asked.values), mean), known.values - mean
    for at, where in ((known.columns, asked.columns), (known.rows, asked.rows)):
        size = max(known.shape)
        off = np.bincount(at, rest, size) / np.maximum(np.bincount(at, minlength=size), 1)
        guesses, rest = guesses + off[where], rest - off[at]
    return guesses


def choose(known: Ratings) -> Result:
    """Return the fit with the lowest error of held-out entries, over a grid of ranks and penalties."""
    print("rank  alpha  error of the ratings held out")
    best, asked = None, {}
    for rank, alpha in product(RANKS, ALPHAS):
        options: dict[str, Any] = {"n_components": rank, "alpha_W": alpha, "missing": "unstored"}
        result = nmf(known.matrix, validation_fraction=HELD_OUT, **options)
        print(f"{rank:4}  {alpha:5}  {result.validation_error:.4f}")
        if best is None or result.validation_error < best.validation_error:
            best, asked = result, options
    assert best is not None
    print(f"-> rank {asked['n_components']}, alpha {asked['alpha_W']}: once more, with all ratings")
    return nmf(known.matrix, max_iter=best.n_iter, **asked)  # as many passes as were good there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="ratings, .npz (default: planted ones)")
    file = parser.parse_args().file
    known, unseen = planted() if file is None else read(file)
    print(f"{known.shape[0]} users x {known.shape[1]} items, {len(known.values)} ratings, mean", end=" ")
    print(f"{known.values.mean():.2f}; {len(unseen.values)} more for the test")
    result = choose(known)
    W, H = result.W.compute(), result.H.compute()
    guesses = predict(W, H, unseen.rows, unseen.columns, means=result.means)
    print("root mean squared error of the test ratings")
    print(f"{unseen.error(known.values.mean()):8.4f}  the mean of all")
    print(f"{unseen.error(biases(known, unseen)):8.4f}  and how far the item and the user are from it")
    print(f"{unseen.error(guesses):8.4f}  W H")
    users = range(SHOWN)
    best = recommend(known.matrix, W, H, TOP, missing="unstored", means=result.means, rows=users)
    for user in users:
        offers = zip(best.columns[user], best.values[user], strict=True)
        print(f"user {user}:", ", ".join(f"item {item} ({value:.1f})" for item, value in offers))


if __name__ == "__main__":
    main()
