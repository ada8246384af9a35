"""Measure a pass that holds 3 % of the entries out over a plain one, for every kind of V, loss and solver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse
from lib import environment
from lib.timing import elapsed, interleaved, median_ratio

from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import MU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms, SquaredTerms
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.types import Block

SHARE, ROUNDS = 0.03, 5
RANKS = (5, 10, 30)
SOLVERS: dict[str, tuple[Any, float]] = {
    "hals": (HALS(), 2.0),
    "mu": (MU(SquaredTerms(1e-9), 1e-3), 2.0),
    "hals, Kullback–Leibler": (KLNewton(1e-9, NO_PENALTY), 1.0),
    "mu, Kullback–Leibler": (MU(DivergenceTerms(BetaDivergence(1.0, 1e-9), 1.0), 1e-3), 1.0),
}


def panels() -> Iterator[tuple[str, Block]]:
    """Yield a dense panel and a CSR panel, float32."""
    random = np.random.default_rng(0)
    low = random.random((2000, 12), np.float32) @ random.random((12, 4000), np.float32)
    yield "dense, 2000 × 4000", low + random.random(low.shape, np.float32)
    csr = scipy.sparse.random_array((6000, 15_525), density=0.005, format="csr", rng=0, dtype=np.float32)
    yield "CSR, 6000 × 15,525, .5 %", scipy.sparse.csr_array(csr)


def ratio(v: Block, rank: int, solver: Any, beta: float) -> float:
    """Return the processor time of a pass that holds entries out over that of a plain one."""
    random = np.random.default_rng(1)
    h = random.random((rank, v.shape[1]), np.float32)
    w = random.random((v.shape[0], rank), np.float32) if solver.carries_w else None
    rows, spec = np.arange(v.shape[0]), PassSpec(solver.solve_w, solver)
    blocks = {
        "plain": v if beta == 2 else MaskedBlock(v, None, rows, EntryMask(beta=beta)),
        "held out": MaskedBlock(v, None, rows, EntryMask(held_out=SHARE, beta=beta)),
    }
    works = {name: partial(process_block, block, h, spec, w) for name, block in blocks.items()}
    times = interleaved(
        {name: partial(elapsed, work, time.process_time) for name, work in works.items()}, ROUNDS
    )
    return median_ratio(times["held out"], times["plain"])


def main() -> None:
    """Print the ratios, by kind of V, solver and rank."""
    print(environment.describe())
    print("| V | solver |", " | ".join(f"k = {rank}" for rank in RANKS), "|")
    with one_blas_thread():
        for (kind, v), (name, (solver, beta)) in product(panels(), SOLVERS.items()):
            ratios = [ratio(v, rank, solver, beta) for rank in RANKS]
            print(f"| {kind} | {name} |", " | ".join(f"{each:.2f}" for each in ratios), "|", flush=True)


if __name__ == "__main__":
    main()
