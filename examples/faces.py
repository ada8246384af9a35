"""Pictures are sums of parts: strokes of handwritten digits, or parts of faces, as one picture.

By default the digits that scikit-learn carries. Any `.npz` with `X` (pictures x pixels) and `image_shape`
will do: faces, for example.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from dask_nmf import NMF

COLUMNS = 8
SHOWN = 3  # pictures taken apart


def pictures(source: Path | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pictures, (pictures, pixels), 0 where nothing is drawn, and their (height, width)."""
    if source is None:
        digits = load_digits()
        return digits.data, digits.images.shape[1:]
    with np.load(source) as held:
        height, width = held["image_shape"].tolist()
        return held["X"].astype(np.float32), (height, width)


def draw(X: np.ndarray, W: np.ndarray, H: np.ndarray, shape: tuple[int, int], colours: str) -> Figure:
    """Draw all parts and, below them, some pictures beside the sum of their parts and the parts."""
    rows = -(-len(H) // COLUMNS)
    figure = Figure(figsize=(COLUMNS, (rows + SHOWN) * shape[0] / shape[1] + 0.8), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=[rows + 0.4, SHOWN + 0.4])
    above.suptitle(f"the {len(H)} parts (rows of H)", fontsize=10)
    below.suptitle("a picture  ≈  the sum of its parts  =  its strongest parts + the others", fontsize=10)
    for axes, part in zip(above.subplots(rows, COLUMNS).flat, H, strict=False):
        show(axes, part.reshape(shape), part.max(), colours)
    for line, i in zip(below.subplots(SHOWN, COLUMNS), range(SHOWN), strict=True):
        parts = W[i, :, None] * H
        strongest = parts[np.argsort(-parts.sum(axis=1))[: COLUMNS - 2]]
        for axes, picture in zip(line, (X[i], parts.sum(axis=0), *strongest), strict=False):
            show(axes, picture.reshape(shape), X[i].max(), colours)
    return figure


def show(axes: Any, picture: np.ndarray, most: float, colours: str) -> None:
    """Draw one picture, with the colours from 0 to ``most``."""
    axes.imshow(picture, cmap=colours, vmin=0, vmax=most)
    axes.set(xticks=[], yticks=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the picture, .png")
    parser.add_argument("--data", type=Path, help="an .npz (default: digits)")
    parser.add_argument("--rank", type=int, default=16)
    asked = parser.parse_args()
    X, shape = pictures(asked.data)
    model = NMF(asked.rank, random_state=0)
    W = model.fit_transform(X)
    error = model.error_history_[-1]
    print(f"{len(X)} pictures, {asked.rank} parts: {model.message_}, relative error {error:.4f}")
    colours = "gray_r" if asked.data is None else "gray"  # ink, or light
    draw(X, W, model.components_, shape, colours).savefig(asked.output, dpi=80)
    print(asked.output)


if __name__ == "__main__":
    main()
