"""A fuzzer of input files and runs, for test_hostile.py or for any number of minutes.

    PYTHONPATH=tests python -m tools.fuzz MINUTES SEED

damages a valid file of each kind again and again, in this process, with 4 GiB of address space and 20 seconds
of processor time for each. A damaged file must be refused by an error that the command has an exit code for,
or be read as zarr, NumPy and SciPy read it.
"""

import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import zarr
from support.matrices import SOURCES, SPARSE_NPZ, Array, low_rank
from tools.damage import damage

from dask_nmf import Run, nmf
from dask_nmf.cli.process.exit_codes import exit_code
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import ListOptions, recommend_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.sources.formats.stored.npz import PARTS
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import locate, locate_file

MATRICES = (
    "npy", "npy F", "npz X", "npz one", "npz csr", "npz csc", *SPARSE_NPZ,
    "zarr v2", "zarr v3", "zarr shards", "csr in zarr", "csc in zarr",
)  # fmt: skip
STATES = ("finished", "stopped", "broken")  # of runs
SHAPE = (30, 20)
LARGE = 10**6  # entries that are not compared
EXAMPLES: dict[str, str] = {}  # texts of errors, by their class


def matrix(kind: str, folder: Path) -> Path:
    """Write a valid V of a kind; return its path."""
    v = low_rank(*SHAPE, 2)
    v[v < np.median(v)] = 0
    return Path((SOURCES | SPARSE_NPZ)[kind](v, folder / "v"))


class Stop(Exception):
    """Raised to break a fit off."""


def a_run(folder: Path, state: str, **options: Any) -> Path:
    """Write a valid run that is finished, stopped or broken off, and beside it its V and some cells."""
    v = low_rank(*SHAPE, 2)
    np.save(folder / "v.npy", v)
    (folder / "cells.csv").write_text("row,column\n0,0\n29,19\n7,3\n")

    def stop(step: Any) -> None:
        if state == "broken" and step.number == 2:
            raise Stop

    limit = 0 if state == "stopped" else None
    with suppress(Stop):
        fitted(folder / "run.zarr", time_limit=limit, callback=stop, **options)
    return folder / "run.zarr"


def fitted(path: Path, **options: Any) -> Any:
    """Fit a run to the V beside it."""
    return nmf(str(path.parent / "v.npy"), 2, store=path, max_iter=3, tol=0, **options)


def checked_matrix(path: Path) -> str:
    """Check that a V is refused or read as other libraries read it; return which."""
    try:
        opened = open_matrix(str(path))
        if opened.layout.rows * opened.layout.columns > LARGE:
            return "large"
        everything = tuple(slice(0, size) for size in (opened.layout.rows, opened.layout.columns))
        block = opened.reader[everything]
    except Exception as error:
        return _refused(error)
    mine = block.toarray() if scipy.sparse.issparse(block) else np.asarray(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _as_others_read(path)
    mine = opened.orientation.turn_array(mine)
    np.testing.assert_allclose(mine, theirs.astype(mine.dtype), rtol=1e-13)  # entries stored twice are summed
    try:
        result = nmf(opened, 2, max_iter=1)
    except Exception as error:
        return _refused(error)
    assert np.isfinite(result.H.compute()).all()
    return "read"


def checked_run(path: Path, **options: Any) -> str:
    """Check that each use of a run is refused or succeeds; return the outcomes.

    The uses are a summary, predict, recommend, transform and a resumed fit.
    """
    folder, told = path.parent, []
    v, cells = str(folder / "v.npy"), str(folder / "cells.csv")
    for act in (
        lambda: json.dumps(Run.load(path).summary(), allow_nan=False),
        lambda: _predicted(path, cells, folder),
        lambda: recommend_to(
            locate(path), v, ListOptions(2), locate_file(folder / "best.csv"), True, lambda _: nullcontext()
        ),
        lambda: transform_to(locate(path), v, locate(folder / "w.zarr"), True, lambda _: nullcontext()),
        lambda: fitted(path, **options),
    ):
        try:
            act()
            told.append("read")
        except Exception as error:
            told.append(_refused(error))
    return " ".join(told)


def _predicted(path: Path, cells: str, folder: Path) -> None:
    predict_to(locate(path), Path(cells), locate_file(folder / "values.csv"), True)
    mine = np.loadtxt(folder / "values.csv", delimiter=",", skiprows=1)[:, 2]
    w, h = (np.asarray(factor[:]) for factor in Run.load_result(path).factors)
    np.testing.assert_allclose(mine, (w @ h)[[0, 29, 7], [0, 19, 3]], rtol=1e-12)


def _as_others_read(path: Path) -> Array:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        content = path.read_bytes()
        archive = BytesIO(content[content.index(b"PK") :])  # ZIP ignores bytes before the archive
        with np.load(archive, allow_pickle=False) as held:
            if "format" in held.files:
                kind = str(held["format"].astype(str))
                return _filled(kind, [held[name] for name in ("data", *PARTS[kind])], held["shape"])
            return held["X"] if "X" in held.files else next(held[n] for n in held.files if held[n].ndim == 2)
    opened = zarr.open(str(path), mode="r")
    if isinstance(opened, zarr.Array):
        return np.asarray(opened[...])
    parts = [np.asarray(opened[name][...]) for name in ("data", "indices", "indptr")]
    return _filled(str(opened.attrs["encoding-type"])[:3], parts, opened.attrs["shape"])


def _filled(kind: str, parts: list[Array], shape: Any) -> Array:
    """Return a dense array of the parts of a sparse one, made by SciPy."""
    data, *places = parts
    if kind in ("csr", "csc"):
        data, places[0] = (part[: places[1][-1]] for part in (data, places[0]))
    given = (data, tuple(places)) if kind == "coo" else (data, *places)
    held = getattr(scipy.sparse, f"{kind}_array")(given, shape=tuple(map(int, shape)))
    return np.asarray(held.toarray())


def _refused(error: Exception) -> str:
    if isinstance(error, AssertionError | TimeoutError) or exit_code(error) == 1:
        raise error
    told = type(error).__name__
    EXAMPLES.setdefault(told, " ".join(str(error).split())[:200])
    return told


def main(minutes: float, seed: str) -> int:
    """Damage files until the time is over; print failures and return their number."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    warnings.simplefilter("ignore")

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, late)
    with tempfile.TemporaryDirectory() as name:
        sound: dict[str, tuple[Path, Callable[[Path], str]]] = {}
        for kind in MATRICES:
            (Path(name) / kind).mkdir()
            sound[kind] = matrix(kind, Path(name) / kind), checked_matrix
        for solver in ("hals", "mu"):
            for state in STATES:
                folder = Path(name) / f"{solver} {state}"
                folder.mkdir()
                run = a_run(folder, state, solver=solver)
                sound[folder.name] = run, partial(checked_run, solver=solver)
        told: Counter[tuple[str, str]] = Counter()
        end, number, found = time.monotonic() + 60 * minutes, 0, 0
        while time.monotonic() < end:
            for kind, (path, check) in sound.items():
                number += 1
                draw = random.Random(f"{seed} {number}")
                with tempfile.TemporaryDirectory() as place:
                    copy = Path(shutil.copytree(path.parent, f"{place}/it")) / path.name
                    what = damage(copy, draw)
                    signal.setitimer(signal.ITIMER_PROF, 20)
                    try:
                        told[kind, check(copy)] += 1
                    except BaseException as error:
                        found += 1
                        print(f"{seed} {number} {kind}: {what}: {type(error).__name__}: {str(error)[:300]}")
                        place_of = traceback.extract_tb(error.__traceback__)[-3:]
                        print("   ", *(f"{at.filename}:{at.lineno}" for at in place_of), flush=True)
                        if isinstance(error, KeyboardInterrupt):
                            raise
                    finally:
                        signal.setitimer(signal.ITIMER_PROF, 0)
        for (kind, outcome), times in sorted(told.items()):
            print(f"{kind:14} {times:6} {outcome}")
        for example in EXAMPLES.items():
            print(*example)
        print(f"{number} files, {found} of them not as they should be", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2]) > 0)
