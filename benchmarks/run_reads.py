"""Count the reads of V that a fit of real data takes to the error of scikit-learn's best answer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

from lib import environment
from lib.datasets import DATA, load
from sklearn.feature_extraction.text import TfidfTransformer

from dask_nmf import nmf
from dask_nmf.sources.dense import DenseRows
from dask_nmf.sources.formats.objects.memory import SparseRows
from dask_nmf.sources.registry import open_matrix

SEEDS = range(3)


class Case(NamedTuple):
    """A data set with a reference objective."""

    reference: str  # the name in the table of reference objectives
    file: str
    prepare: Callable[[Any], Any]


CASES = (
    Case("digits_fro_k16", "digits", lambda V: V),
    Case("orl_fro_k25", "orl_faces", lambda V: V / 255),
    Case("reuters_fro_k20", "reuters_lda", lambda V: V),
    Case("reuters_tfidf_fro_k20", "reuters_lda", TfidfTransformer().fit_transform),
    Case("pbmc_fro_k10", "pbmc68k_reduced_lognorm", lambda V: V),
    Case("wordnet_tfidf_fro_k20", "wordnet_gloss", TfidfTransformer(sublinear_tf=True).fit_transform),
)


class Fit(NamedTuple):
    """The error of a fit, and its reads of V."""

    error: float  # ‖V − W H‖ / ‖V‖
    passes: float
    reads: float  # rows loaded in panels / rows of V
    single: float  # rows loaded one by one, which identify V when a run is resumed


@contextmanager
def counting_loads() -> Iterator[list[int]]:
    """Yield a list that receives the number of rows of every load in this process."""
    loads: list[int] = []
    kinds = {kind: kind.__getitem__ for kind in (DenseRows, SparseRows)}

    def counting(read: Callable[..., Any]) -> Callable[..., Any]:
        def __getitem__(self: Any, index: tuple[slice, slice]) -> Any:  # noqa: N807
            loads.append(len(range(*index[0].indices(self.shape[0]))))
            return read(self, index)

        return __getitem__

    for kind, read in kinds.items():
        kind.__getitem__ = counting(read)  # type: ignore[method-assign]
    try:
        yield loads
    finally:
        for kind, read in kinds.items():
            kind.__getitem__ = read  # type: ignore[method-assign]


def fit(V: Any, rank: int, seed: int, **options: int) -> Fit:
    """Run one fit, from the first read to W in a store."""
    rows = open_matrix(V).layout.rows
    with tempfile.TemporaryDirectory() as folder, counting_loads() as loads:
        result = nmf(V, rank, random_state=seed, store=f"{folder}/run.zarr", **options)
    panels = [count for count in loads if count > 1]
    return Fit(result.relative_error, result.n_iter, sum(panels) / rows, len(loads) - len(panels))


def median_fit(fits: list[Fit]) -> Fit:
    """Return the median of each figure."""
    return Fit(*(median(values) for values in zip(*fits, strict=True)))


def row(reference: str, known: dict[str, Any], short: Fit, long: Fit) -> str:
    """Return a line of the table."""
    best = known["best_rel_err"]
    iterations = next(count for objective, count in known["objs"].values() if objective == known["best"])
    cells = [f"{reference:22} {best:.4f} {iterations:10d}"]
    for fitted, counts in (
        (short, f"{short.reads:5.2f} {short.single:6.0f}"),
        (long, f"{long.passes:6.0f} {long.reads:5.1f}"),
    ):
        share = (1 - fitted.error**2) / (1 - best**2)
        cells.append(f"{fitted.error:.4f} {fitted.error / best:.4f} {share:9.4f} {counts}")
    return " | ".join(cells)


def main() -> None:
    print(environment.describe())
    references = json.loads((DATA / "sklearn_reference_objectives.json").read_text())
    print(f"scikit-learn {references['sklearn']}, best of its starts; an iteration reads V twice")
    print(f"{'':40} | {'max_iter=3':39} | converged")
    figures = "error  ratio  explained"
    print(f"{'data':22} error  iterations | {figures} reads single | {figures} passes reads")
    for reference, file, prepare in CASES:
        known = references[reference]
        V = prepare(load(file))
        short, long = (
            median_fit([fit(V, known["k"], seed, **options) for seed in SEEDS])
            for options in ({"max_iter": 3}, {})
        )
        print(row(reference, known, short, long), flush=True)


if __name__ == "__main__":
    main()
