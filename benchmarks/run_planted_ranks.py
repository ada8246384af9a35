"""Count how often `select_rank` finds the rank of matrices that were made with a known one.

Dense matrices are W H with noise of a tenth of the spread of W H, cut off at zero, for the squared error.
Sparse matrices are counts, Poisson numbers with the means W H, for the Kullback-Leibler divergence. All
options of `select_rank` are the default ones, but for the random state.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from lib import environment

from dask_nmf import select_rank

RANKS = {5: "2:8", 12: "9:15", 25: "22:28"}  # those to choose from, for each planted one
DENSE, SPARSE = (
    (1000, 400),
    (3000, 1000),
)  # with half of the sparse rows and columns, counts do not show rank 25
NOISE = 0.1  # of the standard deviation of W H
COUNT = 0.5  # mean of the counts


class Planted(NamedTuple):
    """A matrix of known rank, and how its rank is chosen."""

    kind: str
    rank: int
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        return {} if self.kind == "dense" else {"beta_loss": "kullback-leibler"}


def matrix(planted: Planted) -> Any:
    """Return W H with noise, or counts with these means in CSR; half of the entries of W and H are small."""
    random = np.random.default_rng(planted.seed)
    rows, columns = DENSE if planted.kind == "dense" else SPARSE
    w, h = (random.gamma(0.5, 1.0, shape) for shape in ((rows, planted.rank), (planted.rank, columns)))
    mean = w @ h
    if planted.kind == "dense":
        return np.maximum(mean + NOISE * mean.std() * random.standard_normal(mean.shape), 0)
    return scipy.sparse.csr_array(random.poisson(mean * (COUNT / mean.mean())).astype(np.float32))


def main(arguments: list[str]) -> None:
    """Print the ranks that are chosen, and how many of them are the planted ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["dense", "sparse"])
    parser.add_argument("--planted", nargs="*", type=int, default=list(RANKS))
    options = parser.parse_args(arguments)
    print(environment.describe())
    print("\n| V | planted | chosen exactly | others | seconds each |\n|---|--:|--:|---|--:|")
    for kind in options.kinds:
        for rank in options.planted:
            began, chosen = time.perf_counter(), []
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                planted = Planted(kind, rank, seed)
                found = select_rank(matrix(planted), RANKS[rank], random_state=seed, **planted.options)
                chosen.append(found.n_components)
            seconds = (time.perf_counter() - began) / options.seeds
            others = ", ".join(str(other) for other in chosen if other != rank)
            exact = f"{chosen.count(rank)} of {options.seeds}"
            print(f"| {kind} | {rank} | {exact} | {others or '-'} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
