"""Matrices to factorise: real data sets, and random ones with planted factors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import zarr
from dask.system import CPU_COUNT
from sklearn.feature_extraction.text import TfidfTransformer

from dask_nmf import predict
from dask_nmf.types import Array

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"  # data sets that the project does not carry
GLOSSES = ROOT / "examples" / "data" / "wordnet_gloss.npz"
COLUMNS, RANK = 5000, 32  # of the array that `write_zarr` writes
CHUNK_ROWS = 400  # x 5000 float32: 8 MB


def load(name: str) -> Any:
    """Return a data set as it is stored: dense, or CSR."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        if "X" in file.files:
            return file["X"]
        parts = (file["data"], file["indices"], file["indptr"])
        return scipy.sparse.csr_array(parts, shape=tuple(file["shape"]))


def glosses(documents: int | None = None) -> Any:
    """Return the tf-idf of the glosses of WordNet, CSR, float32."""
    counts = scipy.sparse.csr_array(scipy.sparse.load_npz(GLOSSES), dtype=np.float32)[:documents]
    return scipy.sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))


def noisy(rows: int, columns: int, rank: int) -> Array:
    """Return a matrix of low rank with noise of 10 % of its norm, clipped at 0, float32."""
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=shape).astype(np.float32) for shape in ((rows, rank), (rank, columns)))
    v = w @ h
    size = np.float32(0.1 * np.sqrt(np.mean(np.square(v))))
    return np.maximum(v + size * rng.standard_normal(v.shape, dtype=np.float32), 0)


def topics(documents: int = 20_000, words: int = 4000, rank: int = 20, length: int = 55) -> Any:
    """Return Poisson counts of words in documents, each of few topics: a million entries above 0, CSR."""
    rng = np.random.default_rng(0)
    h = rng.gamma(0.1, size=(rank, words))
    h /= h.sum(axis=1, keepdims=True)
    w = rng.dirichlet(np.full(rank, 0.1), documents) * rng.gamma(5, length / 5, (documents, 1))
    blocks = [rng.poisson(part @ h) for part in np.array_split(w, 10)]
    return scipy.sparse.vstack([scipy.sparse.csr_array(block.astype(np.float32)) for block in blocks], "csr")


def counts(rows: int = 5000, columns: int = 500, rank: int = 20) -> Array:
    """Return Poisson counts of low rank, few of them 0."""
    rng = np.random.default_rng(0)
    w, h = rng.gamma(0.5, size=(rows, rank)), rng.gamma(0.5, size=(rank, columns))
    return rng.poisson(w @ h).astype(np.float32)


def write_zarr(path: str, gigabytes: float, rank: int = RANK) -> None:
    """Write rows of low rank with noise as a Zarr v3 array with the default codec, in other processes."""
    firsts = range(0, CHUNK_ROWS * max(1, round(gigabytes * 1e9 / (CHUNK_ROWS * COLUMNS * 4))), CHUNK_ROWS)
    shape, chunks = (firsts[-1] + CHUNK_ROWS, COLUMNS), (CHUNK_ROWS, COLUMNS)
    zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32", overwrite=True)
    with ProcessPoolExecutor(CPU_COUNT, get_context("spawn")) as pool:
        list(pool.map(_write_chunk, repeat(path), firsts, repeat(rank)))


def _write_chunk(path: str, first: int, rank: int) -> None:
    """Write one chunk of V: low rank with 10 % noise, float32."""
    rng = np.random.default_rng([1, first])
    h = np.random.default_rng(0).gamma(0.5, size=(rank, COLUMNS)).astype(np.float32)
    v = rng.gamma(0.5, size=(CHUNK_ROWS, rank)).astype(np.float32) @ h
    noise = rng.standard_normal(v.shape, dtype=np.float32)
    zarr.open_array(path, mode="r+")[first : first + CHUNK_ROWS] = v + 0.1 * v.std() * np.abs(noise)


class Ratings(NamedTuple):
    """The observed cells of a matrix of users x items."""

    rows: Array
    columns: Array
    values: Array  # ≥ 0

    def select(self, which: Array) -> Ratings:
        return Ratings(*(side[which] for side in self))

    def error(self, w: Array, h: Array) -> float:
        """Return the root mean squared error of W H at these cells."""
        return float(np.sqrt(np.mean((self.values - predict(w, h, self.rows, self.columns)) ** 2)))

    def matrix(self, shape: tuple[int, int]) -> Any:
        return scipy.sparse.csr_array((self.values, (self.rows, self.columns)), shape=shape)


def planted_ratings(users: int, items: int, rated: int) -> Iterator[tuple[Array, Array, Array]]:
    """Yield ratings of rank 8 with noise as (indptr, columns, values), 10 000 users at a time."""
    h = np.random.default_rng(0).gamma(0.5, size=(8, items)).astype(np.float32)
    for first in range(0, users, 10_000):
        rng = np.random.default_rng([1, first])
        height = min(10_000, users - first)
        w = rng.gamma(0.5, size=(height, 8)).astype(np.float32)
        each = rated // users
        columns = np.sort(rng.integers(0, items, (height, each)), axis=1)
        values = np.einsum("ik,ijk->ij", w, h.T[columns]) + rng.normal(0, 0.5, columns.shape)
        kept = np.diff(columns, axis=1, prepend=-1) > 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        yield indptr, columns[kept].astype(np.int32), np.maximum(values[kept], 0).astype(np.float32)


def split_ratings(users: int, items: int, rated: int) -> tuple[Ratings, Ratings]:
    """Return planted ratings in two parts: nine tenths for training, and a tenth for the test."""
    blocks = list(planted_ratings(users, items, rated))
    rows = [np.repeat(np.arange(len(b[0]) - 1), np.diff(b[0])) + i * 10_000 for i, b in enumerate(blocks)]
    every = Ratings(*map(np.concatenate, (rows, *([block[at] for block in blocks] for at in (1, 2)))))
    test = np.random.default_rng(0).random(len(every.rows)) < 0.1
    return every.select(~test), every.select(test)
