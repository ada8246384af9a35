"""Topics of the glosses of WordNet: 117,659 documents x 99,922 terms, 94 GB if it were dense.

Writes V (tf-idf) to Zarr, runs `dask-nmf fit` on it as a process, and reads the run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import scipy.sparse
import zarr
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

GLOSSES = Path(__file__).parent / "data" / "wordnet_gloss.npz"
CHUNK = 2**18  # stored entries
WORDS = 8


def vocabulary() -> np.ndarray:
    """The word of each column."""
    with np.load(GLOSSES) as held:
        words: np.ndarray = held["vocab"].astype(str)
    return words


def write_csr(matrix: scipy.sparse.csr_array, path: Path) -> None:
    """A CSR matrix as a Zarr group in AnnData's layout."""
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
    """V: tf-idf of the glosses (of the first ``documents``), "the", "of" and the like left out, float32."""
    counts = scipy.sparse.csr_array(scipy.sparse.load_npz(GLOSSES), dtype=np.float32)[:documents]
    counts.data *= ~np.isin(vocabulary(), list(ENGLISH_STOP_WORDS))[counts.indices]
    counts.eliminate_zeros()
    V = scipy.sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))
    write_csr(V, path)
    dense = V.shape[0] * V.shape[1] * 8 / 1e9
    print(f"{path}: {V.shape[0]:,} x {V.shape[1]:,}, {V.nnz:,} stored entries, {dense:.0f} GB if dense")


def run_watched(command: list[str]) -> tuple[float, int, int]:
    """Run a command: its seconds, and the peak resident bytes of its largest process and of all together."""
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
    """Resident bytes of a process and of those that it started."""
    try:
        family = [process, *process.children(recursive=True)]
        return [one.memory_info().rss for one in family]
    except psutil.NoSuchProcess:  # ended meanwhile
        return [0]


def print_topics(run: Path) -> None:
    """The loss after each read, and the words with the largest entries of H for each component."""
    words = vocabulary()
    group = zarr.open_group(run, mode="r")
    W, H = group["W"][:], group["H"][:]
    print("relative error after each pass:", *(f"{loss:.5f}" for loss in group["history_loss"][:]))
    weight = W.sum(axis=0) * H.sum(axis=1)
    for place, topic in enumerate(np.argsort(-weight), start=1):
        print(f"topic {place:2d}:", *words[np.argsort(-H[topic])[:WORDS]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where V and the run are written")
    parser.add_argument("--documents", type=int, help="the first so many only")
    parser.add_argument("--rank", default="20")
    parser.add_argument("--max-iter", default="5")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    V, run = asked.folder / "wordnet.zarr", asked.folder / "topics.zarr"
    write_glosses(V, asked.documents)
    command = ["fit", str(V), "--rank", asked.rank, "--output", str(run), "--max-iter", asked.max_iter]
    seconds, largest, together = run_watched([*command, "--overwrite"])
    print_topics(run)
    print(
        f"{seconds:.1f} s; peak memory {largest / 1e6:.0f} MB in the largest process, "
        f"{together / 1e6:.0f} MB in all of them"
    )


if __name__ == "__main__":
    main()
