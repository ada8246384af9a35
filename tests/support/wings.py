"""The wings of the package, and which of them each may import."""

from pathlib import Path

import dask_nmf

PACKAGE = Path(dask_nmf.__file__).parent
GROUND = {"_version", "errors", "keywords", "process_settings", "progress", "rng", "settings", "types"}
FACES = {"__init__", "api", "estimator"}
MAY_IMPORT = {  # a wing, and the wings it may import; every wing may import the ground
    "kernels": set[str](),
    "planning": {"kernels"},
    "storage": set[str](),
    "cluster": {"planning", "storage"},
    "sources": {"kernels", "planning", "storage", "cluster"},
    "solvers": {"kernels"},
    "execution": {"kernels", "planning", "cluster", "sources", "solvers"},
    "runs": {"kernels", "planning", "storage", "cluster", "sources", "solvers", "execution"},
}
MAY_IMPORT["fitting"] = {*MAY_IMPORT, "runs"}
MAY_IMPORT["inference"] = {*MAY_IMPORT, "fitting"}
MAY_IMPORT["online"] = {*MAY_IMPORT, "inference"}
MAY_IMPORT["api"] = MAY_IMPORT["estimator"] = {*MAY_IMPORT, "online", "cli"}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
WINGS = [wing for wing in MAY_IMPORT if wing not in FACES]
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
