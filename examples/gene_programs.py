"""Gene programs of single cells: genes that are active together, and the kinds of blood cells that use them.

700 cells x 765 genes, log-normalised. W says how much of each program a cell uses, H which genes it has.
The kinds of cells are known, but the fit does not see them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.sparse
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from dask_nmf import nmf

CELLS = Path(__file__).parent / "data" / "pbmc68k_reduced_lognorm.npz"
RANK = 10
GENES = 5  # named of each program
NEIGHBOURS = 15


def marker_genes(H: np.ndarray, genes: np.ndarray) -> list[list[str]]:
    """Return the genes that are large in one program and small in the others."""
    weight = H**2 / H.sum(axis=0)  # large, times its share of the gene
    return [genes[np.argsort(-program)[:GENES]].tolist() for program in weight]


def mean_usage(W: np.ndarray, kind_of: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the kinds of cells, sorted by their main program, and the share of each program in each kind."""
    kinds = np.unique(kind_of)
    means = np.array([W[kind_of == kind].mean(axis=0) for kind in kinds])
    means /= means.sum(axis=1, keepdims=True)
    order = np.lexsort((-means.max(axis=1), means.argmax(axis=1)))
    return kinds[order].tolist(), means[order]


def accuracy(points: np.ndarray, kind_of: np.ndarray) -> float:
    """Return the share of cells whose kind is that of their nearest neighbours in the other folds."""
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
    return float(cross_val_score(KNeighborsClassifier(NEIGHBOURS), points, kind_of, cv=folds).mean())


def print_accuracies(V: np.ndarray, W: np.ndarray, kind_of: np.ndarray) -> None:
    """Print how well W, all genes, and as many principal components tell the kinds of cells apart."""
    _, sizes = np.unique(kind_of, return_counts=True)
    print(f"kind of cell told by its {NEIGHBOURS} nearest neighbours, cross-validated")
    print(f"{sizes.max() / len(kind_of):7.1%}  the commonest kind, always")
    print(f"{accuracy(V, kind_of):7.1%}  all {V.shape[1]} genes")
    components = PCA(RANK, random_state=0).fit_transform(V)
    print(f"{accuracy(components, kind_of):7.1%}  {RANK} principal components")
    print(f"{accuracy(W, kind_of):7.1%}  W, {RANK} programs")


def draw(kinds: list[str], means: np.ndarray, markers: list[list[str]], kind_of: np.ndarray) -> Figure:
    """Draw a heat map, kinds of cells x programs."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(means, cmap="magma_r", vmin=0, aspect="auto")
    axes.set_xticks(range(len(markers)), ["\n".join(names) for names in markers], fontsize=7)
    axes.set_yticks(range(len(kinds)), [f"{kind} ({np.sum(kind_of == kind)})" for kind in kinds])
    axes.set(xlabel="gene programs (rows of H), by the genes that mark them")
    axes.set_title("what each kind of blood cell uses (mean rows of W, each sums to 1)", fontsize=10)
    figure.colorbar(image, ax=axes, format="{x:.0%}")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("cells.png"), help="the picture, .png")
    output = parser.parse_args().output
    V = scipy.sparse.csr_array(scipy.sparse.load_npz(CELLS))
    with np.load(CELLS) as held:
        kind_of, genes = held["bulk_label"], held["gene"]
    result = nmf(V, RANK, normalize="l1")  # rows of H sum to 1: W is in units of expression
    print(f"{V.shape[0]} cells x {V.shape[1]} genes: relative error {result.relative_error:.4f},", end=" ")
    print(result.message)
    W, H = result.W.compute(), result.H.compute()
    markers = marker_genes(H, genes)
    kinds, means = mean_usage(W, kind_of)
    for program, names in enumerate(markers):
        most = int(means[:, program].argmax())
        print(f"program {program + 1:2}: {' '.join(names)}; most in {kinds[most]},", end=" ")
        print(f"{means[most, program]:.0%} of what it uses")
    print_accuracies(V.toarray(), W, kind_of)
    draw(kinds, means, markers, kind_of).savefig(output, dpi=80)
    print(output)


if __name__ == "__main__":
    main()
