"""Small fits that call every compiled function, so that a later fit need not compile."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.api import nmf
from dask_nmf.estimator.nmf import NMF
from dask_nmf.inference.recommend import recommend
from dask_nmf.inference.transform import transform
from dask_nmf.kernels import compiled
from dask_nmf.kernels.compiled import NotKept

RANK = 2
SHAPES = (24, 8), (8, 24)  # panels of rows, panels of columns
LOSSES: tuple[dict[str, Any], ...] = (
    {},
    {"solver": "mu"},
    {"beta_loss": "kullback-leibler"},
    {"solver": "mu", "beta_loss": "kullback-leibler"},
)
SGD: tuple[dict[str, Any], ...] = ({"solver": "sgd"}, {"solver": "sgd", "batch_size": 2})


class WarmUp(NamedTuple):
    """The outcome of a warm-up."""

    folder: Path  # where the code is kept
    compiled: int  # variants of functions: one for each combination of types
    found: int  # variants that had been compiled before
    bytes: int  # of the files
    seconds: float


def warm_up() -> WarmUp:
    """Compile all functions that a fit may need, into the folder that numba chooses or NUMBA_CACHE_DIR names.

    Raises
    ------
    OSError, ValueError
        If what is compiled cannot be kept: as `compiled.own_folder`, and when the folder is full.
    """
    began, folder = time.monotonic(), compiled.own_folder()
    compiled.read_own_folder_only()
    before = compiled.counts()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotKept)
            _call_everything()
    except NotKept as error:
        raise OSError(str(error)) from error
    after = compiled.counts()
    size = sum(file.stat().st_size for file in folder.rglob("*.nb[ci]"))
    return WarmUp(folder, after[0] - before[0], after[1] - before[1], size, time.monotonic() - began)


def _call_everything() -> None:
    for dtype, shape in product((np.float32, np.float64), SHAPES):
        v = np.random.default_rng(0).random(shape).astype(dtype)
        for block, settings in _fits(v):
            nmf(block, RANK, max_iter=2, tol=0, **settings)
        _others(v)


def _fits(v: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the matrices to fit, dense and sparse, each with its settings."""
    sparse = scipy.sparse.csr_array(np.where(v > 0.3, v, 0))
    holes = np.where(v > 0.1, v, np.nan)
    weights = np.ones_like(v)
    for settings in (*LOSSES, *SGD):
        for block in v, sparse:
            yield block, settings
        for block in v, np.asfortranarray(v), sparse:
            yield block, {**settings, "validation_fraction": 0.2}
        for more in {}, {"validation_fraction": 0.2}:
            yield holes, {**settings, "missing": "nan", **more}
            yield sparse, {**settings, "missing": "unstored", **more}
    for settings in LOSSES:
        yield v, {**settings, "weights": weights}
        yield sparse, {**settings, "weights": weights}
        yield v, {**settings, "alpha_W": 0.01, "l1_ratio": 0.5, "missing": "nan"}
    yield v, {"init": "nndsvda"}


def _others(v: Any) -> None:
    """Call what is not a fit: `partial_fit`, `recommend`, and `transform` for components that are alike."""
    for settings in LOSSES[::2]:
        model = NMF(RANK, max_iter=2, tol=0, **settings)
        model.partial_fit(v).partial_fit(v)
    recommend(v, v[:, :RANK], v[:RANK], 1)
    alike = np.ones((RANK, v.shape[1]), v.dtype)
    transform(v, alike)
    transform(np.where(v > 0.1, v, np.nan), alike, missing="nan")
