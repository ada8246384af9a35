"""Compare Kullback-Leibler fits that begin with merged components with fits that have their own start.

A selection fits a sample once, at the largest rank, and merges components by their squared error, down to
each smaller rank. Here such a start and the start of a fit by itself each lead to a converged fit.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np
from lib import environment
from lib.datasets import load

from dask_nmf import nmf, rng
from dask_nmf.fitting.starts.sampled.rank_starts import starts_of_ranks
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns
from dask_nmf.kernels.blocks.masking import EntryMask, with_mask
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty

RANKS = {
    "golub_all_aml": (2, 3, 5, 8),
    "reuters_lda": (4, 8, 12, 20),
    "hrdetect_sbs96": (3, 6, 9, 12),
    "digits": (4, 8, 16),
}


def divergences(name: str, seed: int) -> dict[int, float]:
    """Return for each rank but the largest the divergence after a merged start over that after its own."""
    v, ranks = load(name).astype(np.float64), RANKS[name]
    settings = Settings(max(ranks), beta_loss="kullback-leibler", random_state=seed)
    sample, stream = with_mask(v, 0, EntryMask(beta=1.0)), rng.Stream.H_FACTOR
    merged = starts_of_ranks(sample, ranks, settings, lambda _: Penalty(), stream)
    found = {}
    for rank in ranks[:-1]:
        h = lift_columns(merged[rank], seed, stream)
        options = {"beta_loss": "kullback-leibler", "random_state": seed}
        ours = nmf(v, rank, init="custom", H=h, **options).relative_error
        found[rank] = (ours / nmf(v, rank, **options).relative_error) ** 2
    return found


def main() -> None:
    """Print a row for each matrix and rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(environment.describe())
    print("\n| V | rank | from the largest | least | median | largest |\n|---|--:|--:|--:|--:|--:|")
    for name, ranks in RANKS.items():
        found = [divergences(name, seed) for seed in range(options.seeds)]
        for rank in ranks[:-1]:
            ratios = [each[rank] for each in found]
            row = " | ".join(f"{value:.4f}" for value in (min(ratios), median(ratios), max(ratios)))
            print(f"| {name} | {rank} | {ranks[-1]} | {row} |", flush=True)


if __name__ == "__main__":
    main()
