"""Runs in tests: small fits, interruptions of them, and comparisons of results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from support.matrices import low_rank

from dask_nmf import Result, nmf
from dask_nmf.options.algorithms import SOLVERS

OPTIONS: dict[str, Any] = {"n_components": 3, "max_iter": 4, "tol": 0, "random_state": 7}


class Crash(Exception):
    """Raised to break a fit off."""

    pass


def assert_same_bits(one: Result, other: Result) -> None:
    """Check that two results have equal factors and errors, bit for bit."""
    for mine, theirs in zip(dask.compute(one.W, one.H), dask.compute(other.W, other.H), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(one.error_history, other.error_history)
    assert one.relative_error == other.relative_error


def crash_after(number: int) -> Callable[[Any], None]:
    """Return a callback that raises `Crash` after a pass."""

    def callback(step: Any) -> None:
        if step.number == number:
            raise Crash

    return callback


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification time (ns) and the content of each file below a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


SHAPES = {"tall": (40, 15), "wide": (15, 40)}
in_turns = pytest.mark.parametrize(  # solvers with a shape each, and one of them with both
    ("solver", "shape"),
    [
        *((solver, list(SHAPES.values())[number % 2]) for number, solver in enumerate(SOLVERS)),
        ("hals", SHAPES["wide"]),
    ],
)


def fit(shape: tuple[int, int], store: Path, **options: Any) -> Result:
    return nmf(low_rank(*shape, 3), **{**OPTIONS, "store": store, **options})
