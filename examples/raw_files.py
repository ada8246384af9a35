"""Files as people have them, for the tutorials: text, cells, ratings, a table and images.

text: the docstrings of NumPy, SciPy and scikit-learn, as JSON lines in functions.jsonl
cells: 700 blood cells x 765 genes, as a folder of 10x Genomics, in cells/
ratings: what 2000 users think of some of 150 items, of a planted model, in ratings.csv
table: mutations of 311 breast tumours by 96 types, in tumours.csv
images: 1797 handwritten digits of 8 x 8 pixels, in digits/
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image
from recommender import planted
from sklearn.datasets import load_digits

DATA = Path(__file__).parent / "data"
LIBRARIES = "numpy", "scipy", "sklearn"
LEAST = 200  # characters of a docstring
DRAWN = r"^.*# may vary$"  # lines of docstrings with random numbers, which SciPy draws when it is imported


def text(folder: Path) -> Path:
    """Write the docstring of each public function and class: its name, and the text."""
    found = dict(function for name in LIBRARIES for function in functions(importlib.import_module(name)))
    path = folder / "functions.jsonl"
    with path.open("w") as file:
        for name, docstring in sorted(found.items()):
            file.write(json.dumps({"name": name, "text": docstring}) + "\n")
    return path


def functions(library: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the public functions and classes of a library's public modules, and their docstrings."""
    modules = [library.__name__]
    modules += [
        f"{library.__name__}.{found.name}" for found in pkgutil.iter_modules(library.__path__) if found.ispkg
    ]
    for module in modules:
        if any(part.startswith("_") or part in ("tests", "conftest") for part in module.split(".")):
            continue
        for name, value in vars(importlib.import_module(module)).items():
            docstring = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
            if docstring and len(docstring) > LEAST:
                yield f"{module}.{name}", re.sub(DRAWN, "", docstring, flags=re.MULTILINE)


def cells(folder: Path) -> Path:
    """Write genes x cells in MatrixMarket, and the names of both, each compressed by gzip."""
    with np.load(DATA / "pbmc68k_reduced_lognorm.npz") as data:
        parts = data["data"], data["indices"], data["indptr"]
        matrix = scipy.sparse.csr_array(parts, shape=tuple(data["shape"]))
        genes, kinds = data["gene"], data["bulk_label"]
    path = folder / "cells"
    path.mkdir(exist_ok=True)
    with gzip.open(path / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, matrix.T.tocoo())
    with gzip.open(path / "features.tsv.gz", "wt") as file:
        file.writelines(f"{gene}\t{gene}\tGene Expression\n" for gene in genes)
    with gzip.open(path / "barcodes.tsv.gz", "wt") as file:
        file.writelines(f"{kind} {number}\n" for number, kind in enumerate(kinds))
    return path


def ratings(folder: Path) -> Path:
    """Write a line for each rating: the user, the item and the rating."""
    known, _ = planted()
    path = folder / "ratings.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["user", "item", "rating"])
        for row, column, value in zip(known.rows, known.columns, known.values, strict=True):
            lines.writerow([f"user {row}", f"item {column}", f"{value:.1f}"])
    return path


def table(folder: Path) -> Path:
    """Write a line for each tumour: its name, and how many mutations of each type it has."""
    with np.load(DATA / "hrdetect_sbs96.npz") as data:
        counts, tumours, types = data["X"], data["sample"], data["mutation_type"]
    path = folder / "tumours.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["tumour", *types])
        lines.writerows([name, *row] for name, row in zip(tumours, counts.tolist(), strict=True))
    return path


def images(folder: Path) -> Path:
    """Write each digit as a PNG file, named by its number and by which digit it is."""
    digits = load_digits()
    path = folder / "digits"
    path.mkdir(exist_ok=True)
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((pixels * 15.9375).astype(np.uint8)).save(path / f"{number:04}_{digit}.png")
    return path


def main() -> None:
    kinds = {function.__name__: function for function in (text, cells, ratings, table, images)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    asked = parser.parse_args()
    print(kinds[asked.kind](asked.folder))


if __name__ == "__main__":
    main()
