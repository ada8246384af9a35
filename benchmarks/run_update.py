"""Time and loss of `update` and `forget` beside a fit of all rows, on a matrix in an .npz file.

    python benchmarks/run_update.py wordnet_gloss.npz --rank 20

One row in twenty, at random, is added to a run of the others, or taken out of a run of all. Times are
seconds of processors of this process, with functions that are compiled already; only their ratios mean
something. The losses are relative to those of a fit of the same rows from the same seed, and behind a stroke
to those of a fit that begins with the H of the run: two fits from other starts end in other minima.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf import Run, nmf
from dask_nmf.updates import forget, update


def read(path: Path, rows: int) -> Any:
    """Return the first rows of the matrix in a file, in random order, as float32.

    A file of ratings from −9.95 on gives those of them that are for the fit, plus 9.95.
    """
    with np.load(path) as file:
        if "value_x100" in file:
            seen = ~file["is_test"]
            values = (file["value_x100"][seen] + 995.0) / 100
            v = scipy.sparse.csr_array((values, (file["row"][seen], file["col"][seen])), tuple(file["shape"]))
            v = v[:rows]
        elif "indptr" in file:
            parts = file["data"], file["indices"], file["indptr"]
            v = scipy.sparse.csr_array(parts, shape=tuple(file["shape"]))[:rows]
        else:
            v = file["X"][:rows]
    return v[np.random.default_rng(0).permutation(v.shape[0])].astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of processors that work takes, and its result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measured(v: Any, rank: int, options: dict[str, Any]) -> str:
    """Return the ratios of times and of losses of an update and of a forget to those of fits."""
    rows = v.shape[0]
    old = rows - rows // 20
    with tempfile.TemporaryDirectory() as folder:
        first, part, whole = (Path(folder, name) for name in ("first", "part", "whole"))
        nmf(v[:2000], rank, store=first, max_iter=1, **options)
        update(first, v[-50:])
        before, small = timed(lambda: nmf(v[:old], rank, store=part, **options))
        fit, large = timed(lambda: nmf(v, rank, store=whole, **options))
        starts = [Run.load_result(run).read("H") for run in (part, whole)]
        added, found = timed(lambda: update(part, v[old:]))
        taken, left = timed(lambda: forget(whole, list(range(old, rows)), v))
    warm = nmf(v, rank, H=starts[0], **options), nmf(v[:old], rank, H=starts[1], **options)
    more = above(found.relative_error, large, warm[0])
    less = above(left.relative_error, small, warm[1])
    return (
        f"fit {fit:.2f} s in {large.n_iter} passes; update {added / fit:.1%} of its time, loss {more}; "
        f"forget {taken / before:.1%} of a fit without the rows, loss {less}"
    )


def above(error: float, *fits: Any) -> str:
    """Return how far the loss of an error is above those of fits."""
    return " / ".join(f"{(error / fit.relative_error) ** 2 - 1:+.3%}" for fit in fits)


def main() -> None:
    """Print a line for each loss."""
    parser = argparse.ArgumentParser()
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2**40)
    parser.add_argument("--loss", action="append", choices=["frobenius", "kullback-leibler"])
    parser.add_argument("--missing", choices=["unstored"])
    asked = parser.parse_args()
    v = read(asked.matrix, asked.rows)
    print(f"{asked.matrix.name}: {v.shape[0]} x {v.shape[1]}, rank {asked.rank}")
    for loss in asked.loss or ("frobenius", "kullback-leibler"):
        options = {"beta_loss": loss, "random_state": 0}
        options |= {"missing": asked.missing} if asked.missing else {}
        print(f"  {loss}: {measured(v, asked.rank, options)}", flush=True)


if __name__ == "__main__":
    main()
