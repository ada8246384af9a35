"""Non-negative matrix factorisation of matrices that do not fit in memory, on Dask."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_nmf.answer import Result
    from dask_nmf.estimator import NMF
    from dask_nmf.factorise import nmf
    from dask_nmf.predictions import predict, recommend
    from dask_nmf.project import transform
    from dask_nmf.store import Run

__version__ = "0.1.0"

__all__ = ["NMF", "Result", "Run", "nmf", "predict", "recommend", "transform"]

_HOMES = {
    "NMF": "dask_nmf.estimator",
    "Result": "dask_nmf.job",
    "Run": "dask_nmf.store",
    "nmf": "dask_nmf.factorise",
    "predict": "dask_nmf.predictions",
    "recommend": "dask_nmf.predictions",
    "transform": "dask_nmf.project",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `dask-nmf --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dask_nmf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
