"""Mutational signatures: the processes that mutated these tumours, as kinds of mutations that occur together.

311 breast cancers x 96 types of mutations (six substitutions, between the bases beside them). Counts, so the
loss is Kullback & Leibler's. Some tumours cannot repair their DNA by homologous recombination (HRD); the fit
does not see which, but one of its signatures does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import roc_auc_score

from dask_nmf import Result, nmf

MUTATIONS = Path(__file__).parent / "data" / "hrdetect_sbs96.npz"
RANK = 6
COLOURS = {  # of the substitutions, as in COSMIC's pictures
    "C>A": "#03bcee",
    "C>G": "#010101",
    "C>T": "#e32926",
    "T>A": "#cac9c9",
    "T>C": "#a1ce63",
    "T>G": "#ebc6c4",
}


def best_of(V: np.ndarray, starts: int) -> Result:
    """Return the fit with the lowest divergence; rows of H sum to 1, so that W counts mutations."""
    asked: dict[str, Any] = {"beta_loss": "kullback-leibler", "normalize": "l1"}
    results = [nmf(V, RANK, random_state=seed, **asked) for seed in range(starts)]
    print("divergence from each start:", *(f"{result.reconstruction_err**2 / 2:.0f}" for result in results))
    return min(results, key=lambda result: result.reconstruction_err)


def areas(counts: np.ndarray, deficient: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each signature's share in a tumour; 0.5 is a guess."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.array([roc_auc_score(deficient, share) for share in shares.T])


def print_signatures(counts: np.ndarray, H: np.ndarray, types: np.ndarray, area: np.ndarray) -> None:
    """Print each signature's share of all mutations, its commonest types and its AUC for HRD."""
    print("signature  of all  AUC of HRD  commonest types")
    for i, share in enumerate(counts.sum(axis=0) / counts.sum()):
        common = " ".join(types[np.argsort(-H[i])[:4]])
        print(f"{i + 1:9}  {share:6.1%}  {area[i]:10.3f}  {common}")


def draw(counts: np.ndarray, H: np.ndarray, types: np.ndarray) -> Figure:
    """Draw the signatures, one above the other, with a bar for each type."""
    figure = Figure(figsize=(10, 1.5 * len(H) + 0.8), layout="constrained")
    charts = figure.subplots(len(H), 1, sharex=True)
    colours = [COLOURS[name[2:5]] for name in types]
    for i, (axes, share) in enumerate(zip(charts, counts.sum(axis=0) / counts.sum(), strict=True)):
        axes.bar(range(len(types)), H[i], color=colours, width=0.8)
        axes.set_title(f"signature {i + 1}: {share:.1%} of all mutations", fontsize=9, loc="left")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.spines[["top", "right"]].set_visible(False)
    name_types(charts[-1], types)
    keys = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=keys, loc="outside upper right", ncols=len(keys), fontsize=9, frameon=False)
    return figure


def name_types(axes: Any, types: np.ndarray) -> None:
    """Label each bar with its three bases."""
    axes.set_xlim(-1, len(types))
    bases = [name[0] + name[2] + name[-1] for name in types]  # A[C>T]G is at ACG
    axes.set_xticks(range(len(types)), bases, rotation=90, fontsize=6, family="monospace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "output", type=Path, nargs="?", default=Path("signatures.png"), help="the picture, .png"
    )
    parser.add_argument("--starts", type=int, default=5, help="seeds, of which the best fit is taken")
    asked = parser.parse_args()
    with np.load(MUTATIONS) as held:
        V, types, deficient = held["X"].astype(np.float64), held["mutation_type"], held["hrd_label"]
    print(f"{V.shape[0]} tumours x {V.shape[1]} types, {V.sum():.0f} mutations; {deficient.sum()} with HRD")
    best = best_of(V, asked.starts)
    counts, H = best.W.compute(), best.H.compute()
    area = areas(counts, deficient)
    print_signatures(counts, H, types, area)
    print(f"signature {area.argmax() + 1} tells HRD best: AUC {area.max():.3f}", end="; ")
    print(f"the number of mutations alone: {roc_auc_score(deficient, V.sum(axis=1)):.3f}")
    draw(counts, H, types).savefig(asked.output, dpi=80)
    print(asked.output)


if __name__ == "__main__":
    main()
