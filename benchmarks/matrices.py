"""Matrices to factorise: real ones, and ones with planted factors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer

from dask_nmf import predict
from dask_nmf.types import Array

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"  # data sets that the project does not carry
GLOSSES = HERE / "examples" / "data" / "wordnet_gloss.npz"


def load(name: str) -> Any:
    """A data set as it is kept: dense, or CSR."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as held:
        if "X" in held.files:
            return held["X"]
        parts = (held["data"], held["indices"], held["indptr"])
        return scipy.sparse.csr_array(parts, shape=tuple(held["shape"]))


def glosses(documents: int | None = None) -> Any:
    """Tf-idf of the glosses of WordNet, CSR, float32."""
    counts = scipy.sparse.csr_array(scipy.sparse.load_npz(GLOSSES), dtype=np.float32)[:documents]
    return scipy.sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))


def noisy(rows: int, columns: int, rank: int) -> Array:
    """Low rank + noise of 10 % of its norm, cut at 0, float32."""
    random = np.random.default_rng(0)
    w, h = (random.gamma(0.5, size=shape).astype(np.float32) for shape in ((rows, rank), (rank, columns)))
    v = w @ h
    size = np.float32(0.1 * np.sqrt(np.mean(np.square(v))))
    return np.maximum(v + size * random.standard_normal(v.shape, dtype=np.float32), 0)


def topics(documents: int = 20_000, words: int = 4000, rank: int = 20, length: int = 55) -> Any:
    """Counts of the words of documents, each of few topics: Poisson, a million entries above 0."""
    random = np.random.default_rng(0)
    h = random.gamma(0.1, size=(rank, words))
    h /= h.sum(axis=1, keepdims=True)
    w = random.dirichlet(np.full(rank, 0.1), documents) * random.gamma(5, length / 5, (documents, 1))
    blocks = [random.poisson(part @ h) for part in np.array_split(w, 10)]
    return scipy.sparse.vstack([scipy.sparse.csr_array(block.astype(np.float32)) for block in blocks], "csr")


def counts(rows: int = 5000, columns: int = 500, rank: int = 20) -> Array:
    """Poisson counts of a low rank, few of them 0."""
    random = np.random.default_rng(0)
    w, h = random.gamma(0.5, size=(rows, rank)), random.gamma(0.5, size=(rank, columns))
    return random.poisson(w @ h).astype(np.float32)


class Ratings(NamedTuple):
    """Some cells of a matrix of users x items."""

    rows: Array
    columns: Array
    values: Array  # ≥ 0

    def some(self, which: Array) -> Ratings:
        return Ratings(*(side[which] for side in self))

    def error(self, w: Array, h: Array) -> float:
        """Root mean squared error of W H."""
        return float(np.sqrt(np.mean((self.values - predict(w, h, self.rows, self.columns)) ** 2)))

    def matrix(self, shape: tuple[int, int]) -> Any:
        return scipy.sparse.csr_array((self.values, (self.rows, self.columns)), shape=shape)


def planted(users: int, items: int, rated: int) -> Iterator[tuple[Array, Array, Array]]:
    """Ratings of rank 8 with noise, 10 000 users at a time: indptr, columns, values."""
    h = np.random.default_rng(0).gamma(0.5, size=(8, items)).astype(np.float32)
    for first in range(0, users, 10_000):
        random = np.random.default_rng([1, first])
        height = min(10_000, users - first)
        w = random.gamma(0.5, size=(height, 8)).astype(np.float32)
        each = rated // users
        columns = np.sort(random.integers(0, items, (height, each)), axis=1)
        values = np.einsum("ik,ijk->ij", w, h.T[columns]) + random.normal(0, 0.5, columns.shape)
        kept = np.diff(columns, axis=1, prepend=-1) > 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        yield indptr, columns[kept].astype(np.int32), np.maximum(values[kept], 0).astype(np.float32)


def split(users: int, items: int, rated: int) -> tuple[Ratings, Ratings]:
    """Planted ratings in memory, and a tenth of them apart."""
    blocks = list(planted(users, items, rated))
    rows = [np.repeat(np.arange(len(b[0]) - 1), np.diff(b[0])) + i * 10_000 for i, b in enumerate(blocks)]
    every = Ratings(*map(np.concatenate, (rows, *([block[at] for block in blocks] for at in (1, 2)))))
    test = np.random.default_rng(0).random(len(every.rows)) < 0.1
    return every.some(~test), every.some(test)
