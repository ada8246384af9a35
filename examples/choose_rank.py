"""Choosing the rank: how many gene programs cells have, and how many mutational signatures tumours have.

The rank is chosen by the error of held-out entries. Beside it stands how far models from several starts and
folds agree, and the components that are chosen have standard errors from a bootstrap of the rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from matplotlib.figure import Figure

from dask_nmf import RankSelection, select_rank
from dask_nmf.plots import plot_consensus, plot_errors, plot_stability

DATA = Path(__file__).parent / "data"
LARGEST = 3  # entries named of each component


class Question(NamedTuple):
    """A matrix whose rank is asked for."""

    V: Any  # rows are samples
    columns: np.ndarray  # their names
    beta_loss: str
    ranks: str
    holdout: float


def cells() -> Question:
    """Return 700 cells x 765 genes, log-normalised."""
    file = DATA / "pbmc68k_reduced_lognorm.npz"
    V = scipy.sparse.csr_array(scipy.sparse.load_npz(file))
    with np.load(file) as stored:
        return Question(V, stored["gene"], "frobenius", "2:20:2", 0.03)


def signatures() -> Question:
    """Return 311 breast cancers x 96 types of mutations, counts."""
    with np.load(DATA / "hrdetect_sbs96.npz") as stored:
        counts = stored["X"].astype(np.float64)
        return Question(counts, stored["mutation_type"], "kullback-leibler", "2:12", 0.05)


QUESTIONS: dict[str, Callable[[], Question]] = {"cells": cells, "signatures": signatures}


def print_selection(chosen: RankSelection) -> None:
    """Print the table of ranks, and which one is recommended."""
    print(chosen.to_frame()[["held_out_error", "difference", "standard_error", "stability", "cophenetic"]])
    print(chosen.message)


def print_components(chosen: RankSelection, columns: np.ndarray) -> None:
    """Print the largest entries of each component, in percent of its sum, with their standard errors."""
    assert chosen.result is not None
    assert chosen.components_stderr is not None
    assert chosen.bootstrap_stability is not None
    H = chosen.result.H.compute()
    sums = H.sum(axis=1, keepdims=True)
    shares, errors = 100 * H / sums, 100 * chosen.components_stderr / sums
    for component, cosine in enumerate(chosen.bootstrap_stability):
        largest = np.argsort(-shares[component])[:LARGEST]
        entries = (f"{columns[j]} {shares[component, j]:.1f} ± {errors[component, j]:.1f} %" for j in largest)
        print(f"component {component + 1}, cosine {cosine:.3f} over bootstraps: {', '.join(entries)}")


def draw(chosen: RankSelection) -> Figure:
    """Draw the error, the stability, and the consensus of the recommended rank, side by side."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    for plot, axes in zip((plot_errors, plot_stability, plot_consensus), figure.subplots(1, 3), strict=True):
        plot(chosen, axes)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("output", type=Path, nargs="?", help="the picture, .png or .svg")
    parser.add_argument("--ranks", help="ranks to compare")
    parser.add_argument("--starts", type=int, default=4, help="starts of each rank in each fold")
    parser.add_argument("--folds", type=int, default=3, help="sets of held-out entries")
    parser.add_argument("--error-bars", type=int, default=30, help="bootstrap samples")
    asked = parser.parse_args()
    question = QUESTIONS[asked.question]()
    chosen = select_rank(
        question.V,
        asked.ranks or question.ranks,
        n_init=asked.starts,
        folds=asked.folds,
        holdout=question.holdout,
        beta_loss=question.beta_loss,
        error_bars=asked.error_bars,
    )
    print_selection(chosen)
    print_components(chosen, question.columns)
    output = asked.output or Path(f"rank_of_{asked.question}.png")
    draw(chosen).savefig(output, dpi=90)
    print(output)


if __name__ == "__main__":
    main()
