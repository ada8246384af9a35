"""Non-negative matrix factorisation of matrices that do not fit in memory, on Dask."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dask_nmf._version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers see of `_MODULES`: a test holds that they are the same
    from dask_nmf.api import nmf as nmf
    from dask_nmf.api import select_rank as select_rank
    from dask_nmf.estimator.displays.components import NMFComponentsDisplay as NMFComponentsDisplay
    from dask_nmf.estimator.nmf import NMF as NMF
    from dask_nmf.fitting.result import Result as Result
    from dask_nmf.forecasts.door import plan as plan
    from dask_nmf.forecasts.plan import Plan as Plan
    from dask_nmf.inference.predict import predict as predict
    from dask_nmf.inference.recommend import recommend as recommend
    from dask_nmf.inference.transform import transform as transform
    from dask_nmf.iteration.outcome import Outcome as Outcome
    from dask_nmf.kernels.summary.means import Means as Means
    from dask_nmf.runs.run import Run as Run
    from dask_nmf.selection.result import RankSelection as RankSelection

_MODULES = {
    "Means": "dask_nmf.kernels.summary.means",
    "NMF": "dask_nmf.estimator.nmf",
    "NMFComponentsDisplay": "dask_nmf.estimator.displays.components",
    "Outcome": "dask_nmf.iteration.outcome",
    "Plan": "dask_nmf.forecasts.plan",
    "RankSelection": "dask_nmf.selection.result",
    "Result": "dask_nmf.fitting.result",
    "Run": "dask_nmf.runs.run",
    "nmf": "dask_nmf.api",
    "plan": "dask_nmf.forecasts.door",
    "predict": "dask_nmf.inference.predict",
    "recommend": "dask_nmf.inference.recommend",
    "select_rank": "dask_nmf.api",
    "transform": "dask_nmf.inference.transform",
}  # of the public names
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `dask-nmf --help` needs none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'dask_nmf' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
