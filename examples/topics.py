"""Topics of the glosses of WordNet: 117,659 documents x 99,922 terms, 94 GB if it were dense.

Writes V (tf-idf) to Zarr, runs `dask-nmf fit` on it as a process, reads the run, and says how good it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import scipy.sparse
import zarr
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

from dask_nmf import Run

GLOSSES = Path(__file__).parent / "data" / "wordnet_gloss.npz"
CHUNK = 2**18  # stored entries
WORDS = 8
RANK = 20
# The share of ‖V‖² that scikit-learn explains, for this V and this rank, converged after 87 iterations that
# read V twice each: NMF(20, init="nndsvda", max_iter=200, random_state=0).fit(V).
SCIKIT_LEARN = 0.020077


def vocabulary() -> np.ndarray:
    """Return the word of each column."""
    with np.load(GLOSSES) as held:
        words: np.ndarray = held["vocab"].astype(str)
    return words


def write_csr(matrix: scipy.sparse.csr_array, path: Path) -> None:
    """Write a CSR matrix as a Zarr group in the layout of AnnData."""
    attributes = {
        "encoding-type": "csr_matrix",
        "encoding-version": "0.1.0",
        "shape": list(matrix.shape),
    }
    group = zarr.create_group(path, attributes=attributes, overwrite=True)
    for name in ("data", "indices", "indptr"):
        values = getattr(matrix, name)
        group.create_array(name, data=values, chunks=(min(CHUNK, len(values)),))


def write_glosses(path: Path, documents: int | None) -> None:
    """Write V: tf-idf of the glosses (of the first ``documents``) without stop words, float32."""
    counts = scipy.sparse.csr_array(scipy.sparse.load_npz(GLOSSES), dtype=np.float32)[:documents]
    counts.data *= ~np.isin(vocabulary(), list(ENGLISH_STOP_WORDS))[counts.indices]
    counts.eliminate_zeros()
    V = scipy.sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))
    write_csr(V, path)
    dense = V.shape[0] * V.shape[1] * 8 / 1e9
    print(f"{path}: {V.shape[0]:,} x {V.shape[1]:,}, {V.nnz:,} stored entries, {dense:.0f} GB if dense")


def run_watched(command: list[str]) -> tuple[float, int, int]:
    """Run a command; return its seconds, and the peak resident bytes of its largest process and of all."""
    print("$", " ".join(["dask-nmf", *command]), flush=True)
    executable = str(Path(sys.executable).with_name("dask-nmf"))
    began = time.monotonic()
    process = subprocess.Popen([executable, *command])
    largest = together = 0
    while process.poll() is None:
        sizes = resident(psutil.Process(process.pid))
        largest, together = max(largest, *sizes), max(together, sum(sizes))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - began, largest, together


def resident(process: psutil.Process) -> list[int]:
    """Return the resident bytes of a process and of each process that it started."""
    try:
        family = [process, *process.children(recursive=True)]
        return [one.memory_info().rss for one in family]
    except psutil.NoSuchProcess:  # ended meanwhile
        return [0]


def print_quality(run: Path, whole: bool) -> None:
    """Print how much of V the fit explains, beside the figure of scikit-learn where that is known."""
    told = Run.load(run).summary()
    explained = 1 - told["relative_error"] ** 2
    print(
        f"{told['n_components']} topics explain {100 * explained:.2f} % of ‖V‖²: "
        "glosses are short, and all different"
    )
    if whole and told["n_components"] == RANK:
        share = 100 * explained / SCIKIT_LEARN
        print(f"that is {share:.1f} % of what scikit-learn explains when it has converged")


def print_topics(run: Path) -> None:
    """Print each component: its share of W H, its two heaviest words, and the words that come next."""
    words = vocabulary()
    group = zarr.open_group(run, mode="r")
    W, H = group["W"][:], group["H"][:]
    weight = W.sum(axis=0) * H.sum(axis=1)
    print("topics, by their share of W H")
    for topic in np.argsort(-weight):
        first, second, *others = words[np.argsort(-H[topic])[:WORDS]]
        share = 100 * weight[topic] / weight.sum()
        print(f"{share:5.1f} %  {first + ', ' + second:24} {' '.join(others)}")


def print_next(V: Path, run: Path) -> None:
    """Print three commands to try next."""
    command = Path(sys.executable).with_name("dask-nmf")
    with suppress(ValueError):
        command = command.relative_to(Path.cwd())
    print("next, try")
    print(f"  {command} info {run}")
    print(f"  {command} transform {run} {V} --output {run.with_name('weights.zarr')} --overwrite")
    print(f"  {command} fit {V} --rank 40 --output {run.with_name('topics-40.zarr')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where V and the run are written")
    parser.add_argument("--documents", type=int, help="the first so many only")
    parser.add_argument("--rank", default=str(RANK))
    parser.add_argument("--max-iter", help="most passes")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    V, run = asked.folder / "wordnet.zarr", asked.folder / "topics.zarr"
    write_glosses(V, asked.documents)
    command = ["fit", str(V), "--rank", asked.rank, "--output", str(run), "--overwrite"]
    if asked.max_iter:
        command += ["--max-iter", asked.max_iter]
    seconds, largest, together = run_watched(command)
    print_quality(run, whole=asked.documents is None)
    print_topics(run)
    print_next(V, run)
    print(
        f"{seconds:.1f} s; peak memory {largest / 1e6:.0f} MB in the largest process, "
        f"{together / 1e6:.0f} MB in all of them"
    )


if __name__ == "__main__":
    main()
