"""Micro-benchmarks of the kernels, on one core: ``pytest benchmarks/micro/bench_kernels.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lib.datasets import noisy, topics
from threadpoolctl import threadpool_limits

from dask_nmf.kernels import kl_newton, least_squares, row_sums
from dask_nmf.kernels.blocks import masked
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence, RowPenalty
from dask_nmf.kernels.linalg import packed_grams

RANK = 20
FLOOR, TOL = 1e-9, 1e-2
LOSS = BetaDivergence(1.0, FLOOR)
dense, sparse = (
    pytest.mark.benchmark(group="dense panel"),
    pytest.mark.benchmark(group="cells, each looked at"),
)


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def v() -> Any:
    """Return a dense panel of 20 MB."""
    return noisy(2500, 2000, RANK)


@pytest.fixture(scope="module")
def counts() -> Any:
    """Return some 270 thousand counts above 0, CSR."""
    return topics(5000)


@pytest.fixture(scope="module")
def positive_counts(counts: Any) -> Cells:
    return Cells(
        counts.data, counts.data[:0], counts.indices, counts.indptr, counts.shape[1], implicit_zeros=True
    )


@pytest.fixture(scope="module")
def known(positive_counts: Cells) -> Cells:
    """Return the counts where an entry that is not stored is missing."""
    return positive_counts._replace(implicit_zeros=False)


def factors(shape: tuple[int, ...]) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return 0.1 + random.random((shape[0], RANK), np.float32), 0.1 + random.random(
        (RANK, shape[1]), np.float32
    )


@dense
def test_products(benchmark: Any, v: Any) -> None:
    _, h = factors(v.shape)
    benchmark(lambda: (v @ h.T).T @ v)


@dense
def test_solve_w(benchmark: Any, v: Any) -> None:
    benchmark(least_squares.solve_w, v, factors(v.shape)[1], TOL)


@dense
def test_refit(benchmark: Any, v: Any) -> None:
    w, h = factors(v.shape)
    benchmark(least_squares.refit, w, *least_squares.normal_equations(v, h), TOL)


@dense
def test_sums(benchmark: Any, v: Any) -> None:
    benchmark(row_sums.block_sums, v, factors(v.shape)[0])


@dense
def test_residual(benchmark: Any, v: Any) -> None:
    benchmark(row_sums.residual, v, *factors(v.shape))


@sparse
def test_normal_equations_of_cells(benchmark: Any, known: Cells) -> None:
    benchmark(masked.normal_equations, known, factors(known.shape)[1].T)


@sparse
def test_descend_of_cells(benchmark: Any, known: Cells) -> None:
    w, h = factors(known.shape)
    benchmark(packed_grams.descend, w, *masked.normal_equations(known, h.T), TOL, least_squares.SWEEPS)


@sparse
def test_transpose(benchmark: Any, known: Cells) -> None:
    benchmark(known.transpose)


@sparse
def test_newton_solve(benchmark: Any, positive_counts: Cells) -> None:
    none = RowPenalty(*np.zeros((2, positive_counts.shape[0])))
    benchmark(kl_newton.solve, positive_counts, factors(positive_counts.shape)[1].T, none, FLOOR, TOL)


@sparse
def test_newton_models(benchmark: Any, positive_counts: Cells) -> None:
    w, h = factors(positive_counts.shape)
    benchmark(kl_newton.quadratic_models, positive_counts.transpose(), w, h.T, FLOOR)


@sparse
def test_mu_update(benchmark: Any, positive_counts: Cells) -> None:
    w, h = factors(positive_counts.shape)
    none = RowPenalty(*np.zeros((2, positive_counts.shape[0])))
    benchmark(LOSS.mu_update, positive_counts, h.T, w, none, 1)


@sparse
def test_mu_terms(benchmark: Any, positive_counts: Cells) -> None:
    benchmark(LOSS.mu_terms, positive_counts, *factors(positive_counts.shape))


@sparse
def test_divergence(benchmark: Any, positive_counts: Cells) -> None:
    benchmark(LOSS.of, positive_counts, *factors(positive_counts.shape))
